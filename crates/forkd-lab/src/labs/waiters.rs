//! Processes that wait for clients at one listening socket, as the workers of a pool do.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use forkd_net::Error;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::lab::cannot;
use crate::look::waits_of;
use crate::subject::{Board, Subject, eventually};

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

/// How long a process has to go back to its wait.
const REST: Duration = Duration::from_millis(3);

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
pub(super) fn watch(way: Way) -> Result<Seen, Error> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(cannot("listen"))?;
    let address = listener.local_addr().map_err(cannot("find out where a socket listens"))?;
    listener.set_nonblocking(way != Way::Accept).map_err(cannot("set a flag of a socket"))?;
    let board = Told::default();
    let waiters: Vec<Subject> = (0..WAITERS)
        .map(|number| Subject::fork(|| life(way, &listener, number, &board)))
        .collect::<Result<_, _>>()?;
    if !eventually(|| (0..WAITERS).all(|number| board.get(READY + number) == 1)) {
        return Err(Error::Internal("the processes of an experiment do not start".into()));
    }
    // until all are asleep
    std::thread::sleep(REST * 10);
    let waits = || waiters.iter().filter_map(|waiter| waits_of(waiter.pid)).sum::<u64>();
    let before = waits();
    for _ in 0..CLIENTS {
        let mut client = TcpStream::connect(address).map_err(cannot("connect"))?;
        client.read_to_end(&mut Vec::new()).map_err(cannot("read an answer"))?;
        std::thread::sleep(REST);
    }
    let accepted = (0..WAITERS).map(|number| board.get(ACCEPTED + number)).collect();
    Ok(Seen { accepted, woken: waits().saturating_sub(before) })
}

/// The life of a process that waits.
fn life(way: Way, listener: &TcpListener, number: usize, board: &Told) -> u8 {
    let Ok(epoll) = Epoll::new(EpollCreateFlags::empty()) else { return 1 };
    let exclusive = if way == Way::EpollExclusive { EpollFlags::EPOLLEXCLUSIVE } else { EpollFlags::empty() };
    if epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN | exclusive, 0)).is_err() {
        return 1;
    }
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
