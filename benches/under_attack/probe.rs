//! The well-behaved client, and how long it waits.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::daemon::{Daemon, Service};

/// From the beginning of one probe to that of the next.
const PACE: Duration = Duration::from_millis(5);
/// After that a probe has failed.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
const MESSAGE: [u8; 64] = *b"sixty-four bytes, ends with a newline: a message of this bench.\n";

/// Connects, exchanges one message, and closes.
pub(crate) fn fresh_connection(daemon: &Daemon) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&daemon.address, PROBE_TIMEOUT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PROBE_TIMEOUT))?;
    let mut answer = [0; MESSAGE.len()];
    if daemon.service == Service::Http {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        stream.read_exact(&mut answer)?;
        return if answer.starts_with(b"HTTP/1.1 200") {
            Ok(())
        } else {
            Err(io::ErrorKind::InvalidData.into())
        };
    }
    stream.write_all(&MESSAGE)?;
    stream.read_exact(&mut answer)?;
    if answer == MESSAGE { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// How long fresh connections took.
#[derive(Clone, Copy)]
pub(crate) struct Waits {
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) failed: usize,
}

impl Waits {
    fn of(mut waits: Vec<Duration>, failed: usize) -> Self {
        waits.sort_unstable();
        let quantile = |q: f64| waits[((waits.len() - 1) as f64 * q).round() as usize];
        Self { p50: quantile(0.5), p99: quantile(0.99), failed }
    }

    pub(crate) fn medians(rounds: Vec<Self>) -> Self {
        let median = |of: fn(&Self) -> Duration| {
            let mut values: Vec<_> = rounds.iter().map(of).collect();
            values.sort_unstable();
            values[values.len() / 2]
        };
        let failed = rounds.iter().map(|round| round.failed).sum();
        Self { p50: median(|waits| waits.p50), p99: median(|waits| waits.p99), failed }
    }
}

impl fmt::Display for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |wait: Duration| wait.as_secs_f64() * 1e3;
        f.pad(&format!("{:.2} / {:.2}", ms(self.p50), ms(self.p99)))
    }
}

/// Probes two daemons at the same pace, each by a thread of its own.
pub(crate) fn both(one: &Daemon, other: &Daemon, span: Duration) -> (Waits, Waits) {
    thread::scope(|scope| {
        let other = scope.spawn(|| paced(other, span));
        let one = paced(one, span);
        (one, other.join().unwrap_or_else(|_| Waits::of(vec![PROBE_TIMEOUT], 1)))
    })
}

fn paced(daemon: &Daemon, span: Duration) -> Waits {
    let (mut waits, mut failed) = (Vec::new(), 0);
    let mut next = Instant::now();
    let end = next + span;
    while next < end {
        thread::sleep(next.saturating_duration_since(Instant::now()));
        let begin = Instant::now();
        failed += usize::from(fresh_connection(daemon).is_err());
        waits.push(begin.elapsed());
        next = (next + PACE).max(Instant::now());
    }
    Waits::of(waits, failed)
}
