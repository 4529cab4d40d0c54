//! Watches over a running program and its client.
//!
//! Invariant: a program ends with its client, and a client with the lifetime of its connection; a client that has only
//! finished sending is still there.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::net::{Shutdown, shutdown};
use rustix::process::Signal;

use crate::sys::poller::Interest;
use crate::sys::program::Program;
use crate::sys::sock_diag::OtherEnd;
use crate::transport::{Connection, Ready, Watch};

/// How long a program whose client has gone has to end by itself.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the kernel is asked whether a client that has finished sending has closed its connection.
const ASK: Duration = Duration::from_secs(1);
/// For as good as ever, but no clock overflows.
const LONG: Duration = Duration::from_secs(3600);

const PROGRAM: usize = 0;
const CLIENT: usize = 1;
const ORPHANS: usize = 2;

/// What has ended first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum First {
    Program,
    Client,
    /// The lifetime of the connection.
    Lifetime,
}

/// Waits until the program has ended, or ends it because the client has gone or the connection has lasted too long.
pub(super) fn accompany(
    program: &Program,
    connection: &Connection<'_>,
    socket: &OwnedFd,
) -> io::Result<First> {
    let mut watch = connection.watch()?;
    watch.poller.add(program, PROGRAM, Interest::READ)?;
    watch.poller.add(socket, CLIENT, Interest::END)?;
    if let Some(orphans) = program.orphans() {
        watch.poller.add(orphans, ORPHANS, Interest::READ)?;
    }
    let first = first_end(program, &mut watch, connection, socket)?;
    if first == First::Lifetime {
        // for all processes that have it; it fails only if the client has gone
        _ = shutdown(socket, Shutdown::Both);
    }
    if first != First::Program {
        program.signal(Signal::TERM);
        watch.poller.remove(socket, Interest::NONE)?;
        let until = Instant::now() + END_TIMEOUT;
        while let Some(limit) = until.checked_duration_since(Instant::now())
            && !watch.next(limit)?.iter().any(|event| event.token == PROGRAM)
        {
            program.reap();
        }
        // what is left of its group, if it has ended itself
        program.signal(Signal::KILL);
    }
    Ok(first)
}

/// Waits for this time; tells whether the client has closed its connection meanwhile. Fails when that has lasted too long.
pub(super) fn is_gone_within(
    pause: Duration,
    connection: &Connection<'_>,
    socket: &OwnedFd,
) -> io::Result<bool> {
    let until = Instant::now() + connection.may_wait(Ready::Read)?.map_or(pause, |left| left.min(pause));
    let mut watch = connection.watch()?;
    watch.poller.add(socket, CLIENT, Interest::END)?;
    while let Some(limit) = until.checked_duration_since(Instant::now()) {
        match watch.next(limit)?.first().map(|event| event.readable) {
            Some(true) => return Ok(true),
            Some(false) if OtherEnd::of(socket).is_some_and(|end| end.is_closed()) => return Ok(true),
            // it has only finished sending, which would be told again and again
            Some(false) => watch.poller.change(socket, CLIENT, Interest::END, Interest::NONE)?,
            None => {}
        }
    }
    Ok(false)
}

fn first_end(
    program: &Program,
    watch: &mut Watch,
    connection: &Connection<'_>,
    socket: &OwnedFd,
) -> io::Result<First> {
    // A client that has finished sending may have closed its connection, too: a socket can't tell. Of one on this
    // machine the kernel knows; of another, keep-alive finds out when its system has forgotten the connection.
    let (mut asks, mut other_end) = (false, None);
    loop {
        let (mut told, mut is_timeout) = (None, true);
        let left = connection.left().unwrap_or(LONG);
        if left.is_zero() {
            return Ok(First::Lifetime);
        }
        for event in watch.next(left.min(if asks { ASK } else { LONG }))? {
            match event.token {
                PROGRAM => return Ok(First::Program),
                CLIENT => told = Some(*event),
                _ => program.reap(),
            }
            is_timeout = false;
        }
        match told {
            Some(client) if client.readable => return Ok(First::Client),
            Some(_) => {
                watch.poller.change(socket, CLIENT, Interest::END, Interest::NONE)?;
                asks = true;
            }
            None if asks && is_timeout => match other_end.get_or_insert_with(|| OtherEnd::of(socket)) {
                Some(other_end) if other_end.is_closed() => return Ok(First::Client),
                other_end => asks = other_end.is_some(),
            },
            None => {}
        }
    }
}
