//! What the clients can do at all: the same traffic over a server that does nothing but echo.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::{Command, Stdio};
use std::sync::Arc;

use super::plan::Plan;
use super::record::Calibration;
use super::scratch::Scratch;
use super::stats::median;
use forkd_load::{Live, Load, Phase, Reach, Target};
use forkd_net::Endpoint;
use forkd_net::Error;
use forkd_sys::program::{Privileges, Program};

/// The word on the command line that makes a forkd the null server; only `compare` uses it.
pub const NULL_SERVER: &str = "null-server";

/// How many may wait to be accepted.
const BACKLOG: i32 = 4096;

/// What was measured, round by round.
#[derive(Debug, Default)]
pub(super) struct Rounds(Vec<Calibration>);

impl Rounds {
    /// Measures a round more.
    pub(super) fn measure(
        &mut self,
        plan: &Plan,
        live: &Arc<Live>,
        says: &mut dyn FnMut(Phase, usize),
    ) -> Result<(), Error> {
        let server = Null::start(plan)?;
        let mut round = Calibration::default();
        for &phase in plan.phases.iter().filter(|phase| **phase != Phase::Hold) {
            says(phase, plan.most_clients());
            let target = if phase == Phase::Datagrams { &server.datagrams } else { &server.stream };
            let load = Load::new(target.clone(), plan.load(plan.most_clients()))?;
            let outcome = load.run(phase, live)?;
            if live.is_stopped() {
                return Ok(());
            }
            match phase {
                Phase::Churn => round.conn_per_s = Some(outcome.rate()),
                Phase::PingPong => round.req_per_s = Some(outcome.rate()),
                Phase::Bulk => round.mb_per_s = Some(outcome.megabytes_per_second()),
                Phase::Datagrams => round.datagrams_per_s = Some(outcome.rate()),
                Phase::Hold => {}
            }
        }
        self.0.push(round);
        Ok(())
    }

    /// Returns the medians.
    pub(super) fn calibration(&self) -> Option<Calibration> {
        let middle = |figure: fn(&Calibration) -> Option<f64>| median(self.0.iter().filter_map(figure));
        (!self.0.is_empty()).then(|| Calibration {
            conn_per_s: middle(|round| round.conn_per_s),
            req_per_s: middle(|round| round.req_per_s),
            mb_per_s: middle(|round| round.mb_per_s),
            datagrams_per_s: middle(|round| round.datagrams_per_s),
        })
    }
}

/// A null server; it ends when this is dropped.
struct Null {
    _program: Program,
    stream: Target,
    datagrams: Target,
    _scratch: Scratch,
}

impl Null {
    /// It is handed its sockets, which listen already, so clients need not wait until it is ready.
    fn start(plan: &Plan) -> Result<Self, Error> {
        let scratch = Scratch::new()?;
        let failed = |cause: std::io::Error| Error::os("cannot start the null server", cause);
        let (sockets, endpoints) = sockets(plan, &scratch).map_err(failed)?;
        let [stream, datagrams] = endpoints.map(|endpoint| Target::new(&endpoint, Reach::Loopback));
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        let [listener, bouncer] = sockets.map(Stdio::from);
        command.arg(NULL_SERVER).stdin(listener).stdout(bouncer).stderr(Stdio::null());
        let program = Program::start(&mut command, Privileges::Keep).map_err(failed)?;
        Ok(Self { _program: program, stream: stream?, datagrams: datagrams?, _scratch: scratch })
    }
}

fn sockets(plan: &Plan, scratch: &Scratch) -> std::io::Result<([OwnedFd; 2], [Endpoint; 2])> {
    if plan.is_unix {
        let paths = ["stream", "datagrams"].map(|name| scratch.path(name));
        let [stream, datagrams] = &paths;
        let sockets: [OwnedFd; 2] =
            [UnixListener::bind(stream)?.into(), UnixDatagram::bind(datagrams)?.into()];
        rustix::net::listen(&sockets[0], BACKLOG)?;
        let [stream, datagrams] = paths;
        return Ok((sockets, [Endpoint::Unix(stream), Endpoint::Unixgram(datagrams)]));
    }
    let (listener, bouncer) =
        (TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?, UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?);
    rustix::net::listen(&listener, BACKLOG)?;
    let host = || Ipv4Addr::LOCALHOST.to_string();
    let endpoints = [
        Endpoint::Tcp { host: host(), port: listener.local_addr()?.port() },
        Endpoint::Udp { host: host(), port: bouncer.local_addr()?.port() },
    ];
    Ok(([listener.into(), bouncer.into()], endpoints))
}
