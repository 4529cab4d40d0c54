//! Processes that wait for clients at one listening socket, as the workers of a pool do.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;

use forkd_net::Error;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::lab::{Experiment, cannot};
use crate::look::{is_possible, sleeps, untold, waits_of};
use crate::subject::{Board, Subject};

/// How a process waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// In accept(2).
    Accept,
    /// In poll(2), then accept(2) of what may be there.
    Poll,
    /// In epoll_wait(2), each with an epoll instance of its own.
    Epoll,
    /// The same, with EPOLLEXCLUSIVE.
    EpollExclusive,
}

impl Way {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept(2)",
            Self::Poll => "poll(2)",
            Self::Epoll => "epoll",
            Self::EpollExclusive => "epoll, EPOLLEXCLUSIVE",
        }
    }
}

/// How many processes wait.
pub(super) const WAITERS: usize = 8;
/// How many clients come, one after the other.
pub(super) const CLIENTS: usize = 64;

/// What the processes did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    /// The clients of each.
    pub(super) accepted: Vec<u64>,
    /// How often any of them was woken.
    pub(super) woken: u64,
}

// what a process tells, from its place on the board
const READY: usize = 0;
const ACCEPTED: usize = WAITERS;

type Told = Board<{ 2 * WAITERS }>;

/// Has processes wait in this way, and clients come.
pub(super) fn watch(experiment: &Experiment<'_>, way: Way) -> Result<Seen, Error> {
    is_possible()?;
    let listener = TcpListener::bind("127.0.0.1:0").map_err(cannot("listen"))?;
    let address = listener.local_addr().map_err(cannot("find out where a socket listens"))?;
    listener.set_nonblocking(way != Way::Accept).map_err(cannot("set a flag of a socket"))?;
    let board = Told::default();
    let waiters: Vec<Subject> = (0..WAITERS)
        .map(|number| Subject::fork(|| life(way, &listener, number, &board)))
        .collect::<Result<_, _>>()?;
    experiment.until("all processes are ready", || {
        waiters.iter().try_for_each(Subject::is_well)?;
        Ok((0..WAITERS).all(|number| board.get(READY + number) == 1))
    })?;
    all_sleep(experiment, &waiters)?;
    let waits = || {
        let each = waiters.iter().map(|waiter| waits_of(waiter.pid));
        each.sum::<Option<u64>>().ok_or_else(|| untold("how often processes wait"))
    };
    let before = waits()?;
    for _ in 0..CLIENTS {
        let mut client = TcpStream::connect(address).map_err(cannot("connect"))?;
        client.read_to_end(&mut Vec::new()).map_err(cannot("read an answer"))?;
        all_sleep(experiment, &waiters)?;
    }
    let accepted = (0..WAITERS).map(|number| board.get(ACCEPTED + number)).collect();
    Ok(Seen { accepted, woken: waits()?.saturating_sub(before) })
}

/// Waits until all wait: one that has been woken, and has not run since, does not sleep.
fn all_sleep(experiment: &Experiment<'_>, waiters: &[Subject]) -> Result<(), Error> {
    experiment.until("all processes wait for a client", || {
        waiters.iter().try_for_each(Subject::is_well)?;
        let sleep: Option<Vec<bool>> = waiters.iter().map(|waiter| sleeps(waiter.pid)).collect();
        Ok(sleep.ok_or_else(|| untold("the state of processes"))?.into_iter().all(|sleeps| sleeps))
    })
}

/// The life of a process that waits.
fn life(way: Way, listener: &TcpListener, number: usize, board: &Told) -> io::Result<()> {
    let epoll = Epoll::new(EpollCreateFlags::empty())?;
    let exclusive = if way == Way::EpollExclusive { EpollFlags::EPOLLEXCLUSIVE } else { EpollFlags::empty() };
    epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN | exclusive, 0))?;
    board.set(READY + number, 1);
    loop {
        match way {
            Way::Accept => {}
            Way::Poll => _ = poll(&mut [PollFd::new(listener.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE),
            Way::Epoll | Way::EpollExclusive => {
                _ = epoll.wait(&mut [EpollEvent::empty()], EpollTimeout::NONE)
            }
        }
        if let Ok((mut client, _)) = listener.accept() {
            board.add(ACCEPTED + number, 1);
            let _ = client.write_all(b"x");
        }
    }
}
