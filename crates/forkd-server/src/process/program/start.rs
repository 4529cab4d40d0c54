//! The first and last steps of a worker that becomes a program.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Pid;

use crate::scoreboard::{Cause, Place};
use crate::service::application::WorkerProgram;
use crate::sys::oom::Expendable;
use crate::sys::program::{FIRST_SOCKET, Image, become_program};
use crate::transport::{Endpoint, Listener};

/// What the master has prepared for it.
pub(in crate::process) struct Setup<'a> {
    pub(in crate::process) program: &'a WorkerProgram,
    pub(in crate::process) sockets: Vec<&'a Arc<Listener>>,
    pub(in crate::process) place: Place,
    /// Where it says how it is.
    pub(in crate::process) notify: Option<OsString>,
    /// What its standard output and error become.
    pub(in crate::process) output: Option<BorrowedFd<'a>>,
    pub(in crate::process) parent: Pid,
    /// Makes it the OOM killer's choice rather than the master.
    pub(in crate::process) expendable: Option<Expendable>,
}

/// Becomes the program; returns the status that it exits with where it can't.
pub(in crate::process) fn live(setup: &Setup<'_>) -> u8 {
    if let Some(expendable) = setup.expendable {
        expendable.become_so();
    }
    let sockets: Vec<BorrowedFd<'_>> = setup.sockets.iter().map(|listener| listener.as_fd()).collect();
    let error = become_program(Image {
        program: setup.program.program(),
        arguments: setup.program.arguments(),
        environment: &environment(setup),
        sockets: &sockets,
        output: setup.output,
        privileges: setup.program.privileges(),
        parent: setup.parent,
    });
    // its standard error may be the pipe that the master reads
    eprintln!("{}", setup.program.why_not_started(&error));
    Cause::Failed.status()
}

/// What the program finds in its environment beside what this process has: by each convention there is for sockets that are
/// inherited.
fn environment(setup: &Setup<'_>) -> Vec<(OsString, Option<OsString>)> {
    let Setup { program, sockets, place, notify, output, parent, .. } = setup;
    let own = std::process::id();
    let endpoints: Vec<&Endpoint> = sockets.iter().map(|socket| socket.endpoint()).collect();
    let mut variables = vec![
        ("LISTEN_FDNAMES".into(), Some(names(&endpoints).into())),
        // of another process's sockets
        ("LISTEN_PIDFDID".into(), None),
        ("SERVER_STARTER_PORT".into(), Some(server_starter(&endpoints))),
        ("EINHORN_MASTER_PID".into(), Some(parent.as_raw_nonzero().to_string().into())),
        ("EINHORN_CHILD_INDEX".into(), Some(place.number.to_string().into())),
        ("EINHORN_FD_COUNT".into(), Some(endpoints.len().to_string().into())),
        ("NOTIFY_SOCKET".into(), notify.clone()),
        ("FORKD_WORKER".into(), Some(place.number.to_string().into())),
        ("FORKD_GENERATION".into(), Some(place.generation.to_string().into())),
    ];
    for (at, endpoint) in endpoints.iter().enumerate() {
        let family = match endpoint {
            endpoint if endpoint.path().is_some() => "AF_UNIX",
            endpoint if endpoint.is_ipv6() => "AF_INET6",
            _ => "AF_INET",
        };
        let number = FIRST_SOCKET as usize + at;
        variables.push((format!("EINHORN_FD_{at}").into(), Some(number.to_string().into())));
        variables.push((format!("EINHORN_FD_FAMILY_{at}").into(), Some(family.into())));
    }
    let watchdog = program.patience().filter(|_| notify.is_some());
    let micros = |limit: Duration| limit.as_micros().to_string().into();
    variables.push(("WATCHDOG_USEC".into(), watchdog.map(micros)));
    variables.push(("WATCHDOG_PID".into(), watchdog.map(|_| own.to_string().into())));
    if output.is_some() {
        // its standard error is no stream of the journal
        variables.push(("JOURNAL_STREAM".into(), None));
    }
    variables
}

/// What each socket is, for sd_listen_fds_with_names(3).
fn names(endpoints: &[&Endpoint]) -> String {
    let kind = |endpoint: &&Endpoint| match (endpoint.path().is_some(), endpoint.is_datagram()) {
        (true, true) => "unixgram",
        (true, false) => "unix",
        (false, true) => "udp",
        (false, false) => "tcp",
    };
    endpoints.iter().map(kind).collect::<Vec<_>>().join(":")
}

/// The sockets as Server::Starter names them.
fn server_starter(endpoints: &[&Endpoint]) -> OsString {
    let mut all = OsString::new();
    for (at, endpoint) in endpoints.iter().enumerate() {
        if at > 0 {
            all.push(";");
        }
        match (endpoint.path(), endpoint.host(), endpoint.port()) {
            (Some(path), ..) => all.push(path),
            (None, Some(host), Some(port)) if host.contains(':') => all.push(format!("[{host}]:{port}")),
            (None, Some(host), Some(port)) => all.push(format!("{host}:{port}")),
            (None, ..) => all.push(OsStr::new(&endpoint.to_string())),
        }
        all.push(format!("={}", FIRST_SOCKET as usize + at));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_have_names_by_each_convention() {
        let endpoints: Vec<Endpoint> =
            ["tcp://127.0.0.1:80", "tcp://[::1]:81", "unix:///run/a.sock", "udp://0.0.0.0:53"]
                .map(|endpoint| endpoint.parse().expect(endpoint))
                .into();
        let endpoints: Vec<&Endpoint> = endpoints.iter().collect();
        assert_eq!(names(&endpoints), "tcp:tcp:unix:udp");
        assert_eq!(server_starter(&endpoints), "127.0.0.1:80=3;[::1]:81=4;/run/a.sock=5;0.0.0.0:53=6");
    }
}
