//! `forkd serve --inetd`: standard input is the connection, which inetd(8) has accepted (`nowait`), or
//! systemd (`Accept=yes` and `StandardInput=socket` in the units); one process serves it and ends.
//!
//! Invariant: the client gets what the service says, and no line of the log: inetd makes the
//! connection the standard error, too.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsFd;

use nix::sys::stat::fstat;
use nix::unistd::dup2_stderr;
use rustix::net::sockopt;

use super::{here, resolve, sources};
use crate::config::Sources;
use crate::config::options::{DaemonOptions, ListenOptions, ServeOptions};
use crate::config::values::LogSink;
use crate::daemon::lines;
use crate::{Error, log};
use forkd_server::supervise::Stdin;
use forkd_server::supervise::{AccessSpec, ListenerSpec, Suits};

/// Serves standard input until the client or the idle time-out ends it.
///
/// # Errors
///
/// [`Error::Usage`] if standard input is nothing to serve; also those of `Config::resolve` and
/// [`log::init`].
pub fn run(options: ServeOptions) -> Result<(), Error> {
    let stdin = io::stdin();
    if sockopt::socket_type(&stdin).is_err() {
        return Err(refusal("is no socket"));
    }
    let shared = is_same(&stdin, io::stderr());
    if shared {
        silence_stderr()?;
    }
    let said = options.daemon.clone();
    let sources = sources(options);
    let said = sources.as_ref().map_or(said, Sources::daemon);
    let result = prepare_log(&said, shared).and_then(|()| {
        let sources = sources?;
        sources.refuse_with_inetd()?;
        // options for endpoints make one group, as no endpoint is given
        let config = resolve(&sources, &here(), &[])?;
        config.listen.first().map_or(Ok(()), serve)
    });
    if let (Err(error), true) = (&result, shared) {
        lines::cannot_serve_stdin(&error.sentence());
    }
    result
}

fn refusal(why: &str) -> Error {
    let advice = "--inetd is for inetd (nowait; wait for datagrams) and for systemd units with Accept=yes and \
        StandardInput=socket";
    Error::Usage(format!("cannot serve standard input, which {why}; {advice}"))
}

/// Whether both are the same open file or socket.
fn is_same(one: impl AsFd, other: impl AsFd) -> bool {
    let identity = |fd| fstat(fd).ok().map(|stat| (stat.st_dev, stat.st_ino));
    identity(one.as_fd()) == identity(other.as_fd())
}

fn silence_stderr() -> Result<(), Error> {
    let cannot = |cause: io::Error| Error::os("cannot keep standard error from the client", cause);
    let null = OpenOptions::new().write(true).open("/dev/null").map_err(cannot)?;
    dup2_stderr(&null).map_err(|errno| cannot(errno.into()))
}

/// Where there is no standard error, lines go to syslog, if there is one.
fn prepare_log(said: &DaemonOptions, is_silent: bool) -> Result<(), Error> {
    let init = |sink| log::init(sink, said.log_level(), said.log_format());
    match said.log {
        None if is_silent => init(LogSink::Syslog).or_else(|_| init(LogSink::Stderr)),
        _ => init(said.log()),
    }
}

fn serve(listen: &ListenOptions) -> Result<(), Error> {
    let asked = listen.clone();
    let suits = Suits::new(move |endpoint| {
        let cannot = |why| Error::Usage(format!("cannot serve standard input: the service {why}"));
        asked.suits(endpoint).map_err(cannot)
    });
    let spec = ListenerSpec { suits, ..listen.spec(listen.make_service(None)?, AccessSpec::default()) };
    Stdin::take(spec.bind.keep_alive).map_err(|why| refusal(&why))?.serve(spec)
}
