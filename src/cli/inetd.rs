//! `forkd serve --inetd`: standard input is the connection, which inetd(8) has accepted (`nowait`), or
//! systemd (`Accept=yes` and `StandardInput=socket` in the units); one process serves it and ends.
//!
//! Invariant: the client gets what the service says, and no line of the log: inetd makes the
//! connection the standard error, too.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::stat::fstat;
use nix::unistd::dup2_stderr;
use rustix::net::{SocketType, sockopt};

use super::args::ServeArgs;
use super::here;
use crate::config::Listen;
use crate::config::values::LogSink;
use crate::coroutine::Waiter;
use crate::daemon::lines;
use crate::limit::SharedLimit;
use crate::model::Model;
use crate::model::hooks::Hooks;
use crate::model::offer::Offer;
use crate::model::serve::{Post, Work, batch_for};
use crate::scoreboard::Scoreboard;
use crate::sys::datagram::{Batch, Patience};
use crate::sys::fd::wait_readable;
use crate::transport::guard::Guard;
use crate::transport::inherited::{adopt_connection, listener_of};
use crate::transport::listener::Kind;
use crate::transport::{Connection, Endpoint, Listener, Traffic};
use crate::{Error, log};

/// How long datagrams are waited for, unless `--idle-timeout` says otherwise: a new process for each
/// would cost more than one that stays for the next.
const STAY: Duration = Duration::from_secs(10);

/// Serves standard input until the client or the idle time-out ends it.
///
/// # Errors
///
/// [`Error::Usage`] if standard input is nothing to serve; also those of `Config::resolve` and
/// [`log::init`].
pub fn run(args: &ServeArgs) -> Result<(), Error> {
    let stdin = io::stdin();
    let Ok(kind) = sockopt::socket_type(&stdin) else {
        return Err(refusal("is no socket"));
    };
    let shared = is_same(&stdin, io::stderr());
    if shared {
        silence_stderr()?;
    }
    let result = prepare_log(args, shared).and_then(|()| {
        // options for endpoints make one group, as no endpoint is given
        let config = args.resolve(&here(), &[])?;
        config.listen.first().map_or(Ok(()), |listen| serve(&stdin, kind, listen))
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

/// Where standard error leads nowhere, lines go to syslog, if there is one.
fn prepare_log(args: &ServeArgs, is_silent: bool) -> Result<(), Error> {
    let options = &args.daemon;
    let (level, format) = (options.log_level.unwrap_or_default(), options.log_format.unwrap_or_default());
    let init = |sink| log::init(sink, level, format);
    match options.log {
        None if is_silent => init(LogSink::Syslog).or_else(|_| init(LogSink::Stderr)),
        sink => init(sink.unwrap_or_default()),
    }
}

fn serve(stdin: impl AsFd, kind: SocketType, listen: &Listen) -> Result<(), Error> {
    let cannot = |cause: io::Error| Error::os("cannot set up the connection on standard input", cause);
    /// Of this process alone: how many there are is inetd's concern.
    static FAILURES: SharedLimit = SharedLimit::new();
    let (service, hooks) = (listen.service()?, Hooks::default());
    // handed over, if not by systemd
    let offer = Offer::new(&Endpoint::Systemd(None), service, Model::Iterative, hooks, &FAILURES)
        .with_idle_timeout(listen.idle_timeout);
    if kind == SocketType::STREAM && sockopt::socket_acceptconn(&stdin) == Ok(false) {
        let socket = stdin.as_fd().try_clone_to_owned().map_err(cannot)?;
        connection(&offer, socket, listen.keep_alive);
        return Ok(());
    }
    let listener = listener_of(&stdin).map_err(|why| refusal(&why))?;
    match listener.kind() {
        Kind::Stream => Err(refusal("is a listening socket and no connection")),
        Kind::Datagram => {
            let cannot = |why| Error::Usage(format!("cannot serve standard input: the service {why}"));
            listen.suits(listener.endpoint()).map_err(cannot)?;
            datagrams(offer, listener)
        }
    }
}

/// Whoever has started this process may share the connection, so it is waited for by poll(2).
fn connection(offer: &Offer, socket: OwnedFd, keep_alive: Option<Duration>) {
    let (peer, traffic) = (adopt_connection(&socket, keep_alive), Traffic::default());
    let waiter = Waiter::of_connection(offer.idle_timeout);
    let connection = Connection::stream(socket, peer, &traffic, &offer.site).shared();
    offer.serve(connection.waiting(&waiter)).1.close();
}

/// Answers what is queued, and what comes while it stays.
fn datagrams(offer: Offer, listener: Listener) -> Result<(), Error> {
    let stay = offer.idle_timeout.unwrap_or(STAY);
    let board =
        Scoreboard::for_one_process(1).map_err(|cause| Error::os("cannot map the scoreboard", cause))?;
    let guard = Guard::new(listener.udp_port());
    let post = Post { listener: Arc::new(listener), number: 0, offer };
    let work = Work { post: &post, guard: &guard, board: &board, slot: board.slot(0), turns: None };
    let mut batch = batch_for(work.listener(), 1);
    loop {
        match next(&mut batch, work.listener(), stay) {
            Ok(()) => work.datagrams(&mut batch, 1, work.service().echoes()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(Error::os("cannot receive from standard input", error)),
        }
    }
}

/// `WouldBlock` if none comes within the limit.
fn next(batch: &mut Batch, listener: &Listener, limit: Duration) -> io::Result<()> {
    match batch.receive_one(listener, Patience::DontWait) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            wait_readable(listener, limit);
            batch.receive_one(listener, Patience::DontWait)
        }
        received => received,
    }
}
