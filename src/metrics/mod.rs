//! Metrics for Prometheus, and the health of the daemon for load balancers, served by a child of its own, so that a scraper
//! that dawdles never holds the master.
//!
//! Invariant: it reads the scoreboard, which is shared memory, and in /proc what workers use that accept by themselves, and asks
//! no process; nothing that a scraper sends or leaves undone reaches further than this process. `exposition` is the text of a
//! sample, `health` what it means, `http` the protocol of scrapers and probes, and `agent` that of HAProxy.

mod agent;
mod exposition;
mod health;
mod http;

use std::cell::RefCell;
use std::time::{Duration, SystemTime};

use crate::Error;
use crate::daemon::lines;
use forkd_server::Endpoint;
use forkd_server::supervise::Kind;
use forkd_server::supervise::Scoreboard;
use forkd_server::supervise::{Attendant, Duties, Limits};
use forkd_server::supervise::{BindOptions, Holder, bind_all};
use forkd_server::supervise::{Bound, tell_of_seclusion};
use forkd_server::supervise::{Inherited, Listener};
use forkd_server::supervise::{Sample, Socket};

/// What the process is called.
pub(crate) const NAME: &str = "metrics server";

/// Connections of scrapers that the kernel queues: one that finds no place asks again only after a second.
const BACKLOG: u32 = 1024;

/// A scraper asks at once, and reads what it gets.
const LIMITS: Limits = Limits { idle: Duration::from_secs(2), whole: Duration::from_secs(5) };

/// Binds the sockets of metrics, beside those that serve clients already; logs where they are. Without a socket
/// that another unit should have bound it returns the reason: clients don't need it, so the daemon goes on.
pub(crate) fn bind(
    endpoint: &Endpoint,
    served: &[Bound],
    inherited: &Inherited,
) -> Result<Result<Vec<Listener>, String>, Error> {
    let options = BindOptions { backlog: BACKLOG, ..BindOptions::default() };
    let served = served.iter().map(|bound| Holder { endpoint: bound.listener().endpoint(), is_old: false });
    let holders: Vec<Holder<'_>> = served.collect();
    let listeners = match bind_all(endpoint, options, &holders, inherited) {
        Err(error @ Error::Unavailable(_)) if matches!(endpoint, Endpoint::Systemd(_)) => {
            let why = error.sentence();
            lines::no_metrics(&why);
            return Ok(Err(why));
        }
        bound => bound?,
    };
    for listener in &listeners {
        if listener.kind() != Kind::Stream {
            let why = format!("cannot serve metrics at {endpoint}: it is a socket for datagrams");
            return Err(Error::Config(why));
        }
        listener.check_accept_now()?;
        listener.set_nonblocking(true).map_err(|cause| Error::os("cannot set O_NONBLOCK", cause))?;
        lines::metrics_at(listener.endpoint());
        if !listener.is_inherited() {
            tell_of_seclusion(listener.endpoint());
        }
    }
    Ok(Ok(listeners))
}

/// The process that serves metrics at these sockets, of a daemon that has been there for so long.
pub(crate) fn attendant(listeners: Vec<Listener>, uptime: Duration) -> Attendant {
    let started = SystemTime::now().checked_sub(uptime).unwrap_or(SystemTime::UNIX_EPOCH);
    Attendant::new(NAME, listeners, move |duties| {
        let metrics = RefCell::new(Metrics::new(&duties, started));
        duties.serve(LIMITS, || agent::Asked::new(&metrics))
    })
}

/// What is measured.
#[derive(Debug)]
pub(crate) struct Metrics {
    board: &'static Scoreboard,
    sockets: Vec<Socket>,
    started: SystemTime,
    /// What was said last: a counter never goes back.
    last: Sample,
    /// How many bytes of answers have not been read.
    unread: usize,
}

impl Metrics {
    fn new(duties: &Duties<'_>, started: SystemTime) -> Self {
        let sockets = duties.sockets.clone();
        Self { board: duties.board, sockets, started, last: Sample::default(), unread: 0 }
    }

    /// Reads everything.
    fn sample(&mut self) -> &Sample {
        self.last = Sample::read(self.board, &self.sockets, &self.last);
        &self.last
    }

    /// Reads everything, and writes it down.
    fn text(&mut self, format: http::Format) -> String {
        let sample = self.sample().clone();
        exposition::text(self.started, sample, format)
    }
}
