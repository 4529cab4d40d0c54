//! Metrics, the master's side: the socket, and the child that answers there (see [`crate::metrics`]).
//!
//! The child knows the names of the listening sockets as they were when it was forked, and has the sockets
//! themselves, to ask how long their queues are. So where those change it is replaced: the next one takes the
//! scrapers that come, and it leaves when it has answered those that it has.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Instant, SystemTime};

use nix::sys::signal::Signal;

use super::birth;
use super::context::Context;
use super::descriptors::Closing;
use super::lines;
use super::master::Master;
use super::oom::KILL;
use super::phase::Phase;
use super::pooling::signal_descriptors;
use super::sockets::tell_of_seclusion;
use super::station::{Station, faces};
use crate::Error;
use crate::config::values::MetricsEndpoint;
use crate::limit::RateLimit;
use crate::metrics::{Face, Metrics, serve};
use crate::model::starts::{EARLY, Starts};
use crate::scoreboard::Cause;
use crate::sys::fd::pipe;
use crate::sys::fork::{PidCells, Watch, fork};
use crate::sys::pidfd::{Ended, how_it_ended, signal_child};
use crate::sys::signal::TermHeld;
use crate::transport::bind::{BindOptions, Holder, bind_all};
use crate::transport::listener::Kind;
use crate::transport::{Endpoint, Listener};

/// Scrapers that the kernel queues: who finds no place asks again only after a second.
const BACKLOG: u32 = 1024;

/// Where metrics are served, and by whom.
#[derive(Debug)]
pub(super) struct MetricsServer {
    listeners: Vec<Listener>,
    started: SystemTime,
    current: Option<Server>,
    /// Those that leave when they have answered.
    leaving: Vec<Server>,
    /// The listening sockets or their names have changed since the current one was forked.
    is_stale: bool,
    starts: Starts,
    complaints: RateLimit,
}

#[derive(Debug)]
struct Server {
    pid: u32,
    watch: OwnedFd,
    /// The end of a pipe that it leaves at the end of: told to, or bereaved.
    leash: Option<OwnedFd>,
    since: Instant,
}

impl Server {
    /// Tells it to leave when it has answered.
    fn dismiss(&mut self, cx: &mut Context) {
        if let Some(leash) = self.leash.take() {
            cx.descriptors.remove(leash.as_raw_fd());
        }
    }
}

impl MetricsServer {
    /// The descriptors to poll, with the child that each stands for.
    pub(super) fn watches(&self) -> impl Iterator<Item = (&OwnedFd, u32)> {
        self.current.iter().chain(&self.leaving).map(|server| (&server.watch, server.pid))
    }

    /// When to try again to start one.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        self.starts.not_before().filter(|&then| self.current.is_none() && then > now)
    }

    /// The sockets or names have changed.
    pub(super) fn renew(&mut self) {
        self.is_stale = true;
    }

    fn on_turn(&mut self, cx: &mut Context, stations: &[Station]) {
        if std::mem::take(&mut self.is_stale)
            && let Some(mut server) = self.current.take()
        {
            server.dismiss(cx);
            self.leaving.push(server);
        }
        let is_early = self.starts.not_before().is_some_and(|then| cx.now < then);
        if self.current.is_some() || is_early {
            return;
        }
        match self.spawn(cx, stations) {
            Ok(server) => {
                cx.descriptors.add([&server.watch].into_iter().chain(&server.leash).map(AsRawFd::as_raw_fd));
                self.current = Some(server);
            }
            Err(error) => {
                self.starts.rest(cx.now);
                if let Some(suppressed) = self.complaints.admit(cx.now) {
                    lines::metrics_fork_failed(&error, suppressed);
                }
            }
        }
    }

    fn spawn(&self, cx: &mut Context, stations: &[Station]) -> std::io::Result<Server> {
        let asked = faces(stations).filter_map(Station::listener).filter(|l| l.tells_of_arrivals());
        let own = self.listeners.iter().chain(asked).map(AsRawFd::as_raw_fd);
        let mut closing = Closing::all_but(own.chain(signal_descriptors(cx)).collect());
        let close = closing.of(&cx.descriptors);
        let (bell, leash) = pipe()?;
        let mut leash = Some(leash);
        let (board, pid) = (cx.board, AtomicU32::new(0));
        let (blocked, signals, null) = (&cx.blocked, &mut cx.signals, cx.null.as_ref());
        let _held = TermHeld::hold();
        let expendable = cx.oom.score();
        let _lent = board.lend()?;
        let cells = PidCells { parent: &pid, child: None };
        let child = fork(blocked, cells, Watch::Descriptor, || {
            if let Some(expendable) = expendable {
                expendable.become_so();
            }
            if birth::attendant(board, close, signals.take(), null).is_err() {
                return Cause::Failed.status();
            }
            // or it would hold itself
            drop(leash.take());
            let metrics = Metrics::new(board, faces(stations).map(face).collect(), self.started);
            match catch_unwind(AssertUnwindSafe(|| serve(bell.as_fd(), &self.listeners, metrics))) {
                Ok(()) => Cause::Retired.status(),
                Err(_) => Cause::Panicked.status(),
            }
        })?;
        let watch = child.watch.ok_or_else(|| std::io::Error::from_raw_os_error(libc::EBADF))?;
        Ok(Server { pid: child.pid.cast_unsigned(), watch, leash, since: cx.now })
    }

    /// A watch is readable: its child is dead.
    pub(super) fn bury(&mut self, cx: &mut Context, pid: u32) {
        let mut server = match self.leaving.iter().position(|server| server.pid == pid) {
            Some(at) => self.leaving.swap_remove(at),
            None => {
                let Some(server) = self.current.take_if(|server| server.pid == pid) else { return };
                if cx.now < server.since + EARLY {
                    self.starts.failed(cx.now)
                } else {
                    self.starts.worked()
                }
                let how = match how_it_ended(&server.watch) {
                    Ended::Exit(status) => format!("status {status}"),
                    Ended::Signal(KILL) => cx.oom.cause(cx.now).to_string(),
                    Ended::Signal(signal) => Cause::Signal(signal).to_string(),
                    Ended::Unknown => "unknown".to_owned(),
                };
                if !cx.stopping
                    && let Some(suppressed) = self.complaints.admit(cx.now)
                {
                    lines::metrics_server_ended(pid, &how, suppressed);
                }
                server
            }
        };
        server.dismiss(cx);
        cx.descriptors.remove(server.watch.as_raw_fd());
    }

    /// Ends them: also one that is stopped, and whatever a scraper waits for.
    pub(super) fn end(&self) {
        self.watches().for_each(|(_, pid)| _ = signal_child(pid, Signal::SIGKILL));
    }
}

impl Master {
    /// Serves metrics here, once the loop runs. Without a socket that another unit should have bound, it goes on:
    /// the clients need none.
    pub(crate) fn bind_metrics(&mut self, endpoint: &MetricsEndpoint) -> Result<(), Error> {
        let options = BindOptions { backlog: BACKLOG, ..BindOptions::default() };
        let served =
            self.stations.iter().map(|station| Holder { endpoint: station.endpoint(), is_old: false });
        let holders: Vec<Holder<'_>> = served.collect();
        let listeners = match bind_all(&endpoint.0, options, &holders, &self.reload.inherited) {
            Err(error @ Error::Unavailable(_)) if matches!(endpoint.0, Endpoint::Systemd(_)) => {
                let why = error.sentence();
                lines::no_metrics(&why);
                self.cx.metrics_error = Some(why);
                return Ok(());
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
        self.cx.descriptors.add(listeners.iter().map(AsRawFd::as_raw_fd));
        self.cx.board.measure();
        self.metrics = Some(MetricsServer {
            listeners,
            started: SystemTime::now(),
            current: None,
            leaving: Vec::new(),
            is_stale: false,
            starts: Starts::default(),
            complaints: RateLimit::default(),
        });
        Ok(())
    }

    /// Sees to it that somebody answers scrapers, until the daemon stops.
    pub(super) fn see_to_metrics(&mut self) {
        if let Some(metrics) = self.metrics.as_mut().filter(|_| self.phase == Phase::Running) {
            metrics.on_turn(&mut self.cx, &self.stations);
        }
    }
}

fn face(station: &Station) -> Face {
    let post = station.post().filter(|post| post.listener.tells_of_arrivals());
    Face {
        number: station.number(),
        endpoint: station.endpoint().to_string(),
        service: station.service.name().to_owned(),
        model: station.model(),
        listener: post.map(|post| Arc::clone(&post.listener)),
        arrivals: station.arrivals(),
    }
}
