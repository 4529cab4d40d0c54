//! What HAProxy's agent-check asks at the same socket: it sends `agent` and a line feed (`agent-send "agent\n"`), and gets
//! one line. What else comes is HTTP.
//!
//! By default an agent-check sends nothing, and a server can't tell that from a client of HTTP that dawdles. A socket of its
//! own could, for an option, a descriptor in each process, a unit of systemd and a rule of a firewall more.

use std::cell::RefCell;

use super::http::Scrape;
use super::{Metrics, health};
use forkd_server::{Protocol, Reply};

/// What it sends.
const REQUEST: &[u8] = b"agent\n";

/// A connection whose first bytes tell which protocol it has.
pub(super) struct Asked<'a> {
    metrics: &'a RefCell<Metrics>,
    http: Scrape<'a>,
    /// How many bytes of the request of an agent-check have come; `None`: it is HTTP.
    matched: Option<usize>,
    line: String,
}

impl<'a> Asked<'a> {
    pub(super) fn new(metrics: &'a RefCell<Metrics>) -> Self {
        Self { metrics, http: Scrape::new(metrics), matched: Some(0), line: String::new() }
    }
}

impl Protocol for Asked<'_> {
    fn received<'a>(&'a mut self, input: &'a [u8]) -> Reply<'a> {
        let Some(matched) = self.matched else { return self.http.received(input) };
        let expected = &REQUEST[matched..];
        if input.starts_with(expected) {
            self.line = health::agent(self.metrics.borrow_mut().sample());
            return Reply::Finish(self.line.as_bytes());
        }
        if expected.starts_with(input) {
            self.matched = Some(matched + input.len());
            return Reply::Wait;
        }
        self.matched = None;
        if matched > 0 {
            // not a whole line of HTTP, so there is no answer to it alone
            let _ = self.http.received(&REQUEST[..matched]);
        }
        self.http.received(input)
    }

    fn resume(&mut self) -> Reply<'_> {
        self.http.resume()
    }

    fn ended(&mut self) -> Reply<'_> {
        self.http.ended()
    }
}
