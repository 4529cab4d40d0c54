//! How long a forkd's connections kept a child or worker, as its metrics have it.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// For how long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// More than it has to say of one socket.
const LONGEST: u64 = 1 << 20;

/// The name of the histogram; its sum and its count are asked for.
const NAME: &str = "forkd_connection_duration_seconds";

/// Connections that have ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Served {
    /// How many.
    pub(super) connections: u64,
    /// How long these lasted, all together.
    seconds: f64,
}

impl Served {
    /// How long those lasted on average that have ended since.
    pub(super) fn mean_us_since(&self, before: &Self) -> Option<f64> {
        let count = self.connections.checked_sub(before.connections).filter(|count| *count > 0)?;
        Some((self.seconds - before.seconds) * 1e6 / count as f64)
    }
}

/// Asks for them at this socket; `None` if it does not answer.
pub(super) fn read(socket: &Path) -> Option<Served> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.take(LONGEST).read_to_string(&mut answer).ok()?;
    parse(&answer)
}

fn parse(text: &str) -> Option<Served> {
    let sum = |what: &str| {
        let lines = text.lines().filter_map(|line| line.strip_prefix(NAME)?.strip_prefix(what));
        let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        values.reduce(|one, other| one + other)
    };
    Some(Served { connections: sum("_count")? as u64, seconds: sum("_sum")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_that_of_the_time_between() {
        let text = |sum: f64, count: u64| {
            format!(
                "HTTP/1.0 200 OK\r\n\r\n# TYPE {NAME} histogram\n{NAME}_sum{{listener=\"tcp://a\"}} {sum}\n\
                 {NAME}_count{{listener=\"tcp://a\"}} {count}\n{NAME}_bucket{{le=\"1\"}} 7\nother_sum 5\n"
            )
        };
        let (before, after) = (parse(&text(1.0, 100)).unwrap(), parse(&text(1.5, 350)).unwrap());
        assert_eq!((after.connections, after.mean_us_since(&before)), (350, Some(2000.0)));
        assert_eq!(after.mean_us_since(&after), None);
        assert_eq!(parse("HTTP/1.0 503 Service Unavailable\r\n\r\n"), None);
    }
}
