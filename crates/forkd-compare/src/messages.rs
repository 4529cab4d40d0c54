//! What a server says: where it listens, that it is ready, and its last words.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use super::watch::lock;
use forkd_net::Endpoint;

/// So many of its last lines are kept, to be shown if it fails.
const LINES: usize = 3;

/// What a server says.
#[derive(Debug, Default)]
pub(super) struct Messages {
    text: Mutex<Text>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Text {
    lines: VecDeque<String>,
    endpoints: Vec<Endpoint>,
    ready: bool,
    has_ended: bool,
}

impl Messages {
    /// Whether a forkd has said that it is ready.
    pub(super) fn is_ready(&self) -> bool {
        lock(&self.text).ready
    }

    /// Where a forkd has said that it listens.
    pub(super) fn endpoints(&self) -> Vec<Endpoint> {
        lock(&self.text).endpoints.clone()
    }

    /// Reads until the last writer has gone.
    pub(super) fn keep(&self, from: impl Read) {
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            lock(&self.text).add(&String::from_utf8_lossy(&line));
        }
        lock(&self.text).has_ended = true;
        self.ended.notify_all();
    }

    /// Waits until it can say no more; only a moment: another process may have the other end of the pipe for long.
    pub(super) fn wait_for_the_end(&self) {
        let text = lock(&self.text);
        let _ = self.ended.wait_timeout_while(text, Duration::from_millis(200), |text| !text.has_ended);
    }

    /// What follows a sentence that says that it has failed.
    pub(super) fn last_words(&self) -> String {
        let text = lock(&self.text);
        match text.lines.is_empty() {
            true => ", without a word".into(),
            false => {
                format!("; its last words: {}", text.lines.iter().cloned().collect::<Vec<_>>().join(" / "))
            }
        }
    }
}

impl Text {
    fn add(&mut self, line: &str) {
        let line = line.trim_end();
        let endpoint = line.split_once("listening on ").and_then(|(_, rest)| rest.split(' ').next());
        self.endpoints.extend(endpoint.and_then(|endpoint| endpoint.parse::<Endpoint>().ok()));
        self.ready |= line.contains("ready pid=");
        if !line.is_empty() {
            self.lines.push_back(line.to_owned());
        }
        if self.lines.len() > LINES {
            self.lines.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forkd_tells_where_it_is() {
        let messages = Messages::default();
        let log = "info listening on tcp://127.0.0.1:40123 service=echo model=fork\n\
                   info listening on unixgram:///tmp/x service=echo\n";
        messages.keep(log.as_bytes());
        assert!(!messages.is_ready());
        messages.keep(&b"info ready pid=7 (try: nc)\n"[..]);
        assert!(messages.is_ready());
        let endpoints: Vec<String> = messages.endpoints().iter().map(Endpoint::to_string).collect();
        assert_eq!(endpoints, ["tcp://127.0.0.1:40123", "unixgram:///tmp/x"]);
    }

    #[test]
    fn the_last_lines_are_kept() {
        let messages = Messages::default();
        assert_eq!(messages.last_words(), ", without a word");
        messages.keep(&b"a\nb\n\nc\nd\xff"[..]);
        messages.wait_for_the_end();
        assert_eq!(messages.last_words(), "; its last words: b / c / d\u{fffd}");
    }
}
