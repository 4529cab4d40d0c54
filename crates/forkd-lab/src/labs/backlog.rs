//! How many clients a server that does not accept has.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use forkd_compare::report::picture::{Bar, Picture};
use forkd_load::text::span;
use forkd_net::Error;
use forkd_sys::socket::{self, Mode};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketType, sockopt};

use crate::lab::{Claim, Experiment, Lab, Outcome, cannot};

pub(crate) const LAB: Lab = Lab {
    name: "backlog",
    title: "how many clients are connected to a server that does not accept",
    story: "A server listens with a backlog of 4 (listen(2): how many may wait), and is busy: it does not call accept(2). Twelve clients connect. Then the \
            server has time, and accepts whatever there is, for as long as anything comes.",
    question: "How many clients are connected before the server has accepted any?",
    choices: &[
        "none: a connection needs accept(2)",
        "4 or 5: as many as the queue has room for",
        "all 12: connect(2) does not wait for the server",
    ],
    answer: 1,
    why: "The kernel makes connections, and the server takes them out of a queue. Linux takes one more than the backlog says. \
          For the others there is no answer: their kernels send the first packet again, after a second, then after two more, \
          and so on, so a queue that was full for a moment costs a whole second. Where the queue is full again just then, a client is connected \
          as it sees it, and the server does not know it yet. That a client is connected does not mean that \
          it is served, and a health check has to ask for an answer. The system caps the backlog: net.core.somaxconn.",
    next: &[
        (
            "forkd serve --backlog 4 --model iterative",
            "ss -ltn shows Recv-Q (waiting) and Send-Q (the backlog)",
        ),
        ("forkd status", "in another terminal; QUEUED: how many wait, of how many that may"),
    ],
    run,
};

const BACKLOG: i32 = 4;
const CLIENTS: usize = 12;

/// When those that can connect are connected, over loopback.
const AT_ONCE: Duration = Duration::from_millis(300);

/// How long the server accepts: the second try comes after 1 s, the third after 3 s.
const ACCEPTS: Duration = Duration::from_millis(4500);

#[derive(Debug, Clone, Copy)]
struct Seen {
    at_once: usize,
    in_the_end: usize,
    /// From the start to the last client's connection.
    last: Duration,
}

fn run(experiment: &mut Experiment<'_>) -> Result<Outcome, Error> {
    let listener = listen().map_err(cannot("listen"))?;
    let address = listener.local_addr().map_err(cannot("find out where a socket listens"))?;
    let began = Instant::now();
    let clients: Vec<OwnedFd> = (0..CLIENTS)
        .map(|_| begin_to_connect(address))
        .collect::<Result<_, _>>()
        .map_err(cannot("connect"))?;
    experiment.pause(AT_ONCE)?;
    let at_once = connected(&clients);
    experiment.tell(format!("{at_once} of {CLIENTS} clients are connected; the server has accepted none"));
    experiment.tell("now the server accepts");
    let mut accepted = Vec::<TcpStream>::new();
    let accepts = Instant::now();
    while accepts.elapsed() < ACCEPTS && connected(&clients) < CLIENTS {
        is_ready(&listener, PollFlags::IN, 100);
        experiment.pause(Duration::ZERO)?;
        while let Ok((stream, _)) = listener.accept() {
            accepted.push(stream);
            experiment.tell(format!("accepted number {} at {}", accepted.len(), span(began.elapsed())));
        }
    }
    let in_the_end = connected(&clients);
    experiment.tell(format!(
        "{in_the_end} clients are connected as they see it, {} as the server sees it",
        accepted.len()
    ));
    Ok(judge(Seen { at_once, in_the_end, last: began.elapsed() }))
}

/// A socket that does not block.
fn socket() -> rustix::io::Result<OwnedFd> {
    socket::socket(AddressFamily::INET, SocketType::STREAM, Mode::NonBlocking)
}

fn listen() -> std::io::Result<TcpListener> {
    let socket = socket()?;
    rustix::net::bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0)))?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

fn begin_to_connect(to: SocketAddr) -> std::io::Result<OwnedFd> {
    let socket = socket()?;
    match rustix::net::connect(&socket, &to) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}

fn connected(clients: &[OwnedFd]) -> usize {
    let is_connected = |client: &&OwnedFd| {
        is_ready(client, PollFlags::OUT, 0) && matches!(sockopt::socket_error(client), Ok(Ok(())))
    };
    clients.iter().filter(is_connected).count()
}

/// Waits for so many milliseconds at most.
fn is_ready(socket: impl AsFd, flags: PollFlags, limit: i64) -> bool {
    let limit = Timespec { tv_sec: 0, tv_nsec: limit * 1_000_000 };
    poll(&mut [PollFd::from_borrowed_fd(socket.as_fd(), flags)], Some(&limit)) == Ok(1)
}

fn judge(seen: Seen) -> Outcome {
    let Seen { at_once, in_the_end, last } = seen;
    let bar = |name: &str, count: usize| Bar::new(name, count as f64, format!("{count} of {CLIENTS}"));
    let room = BACKLOG as usize..=BACKLOG as usize + 1;
    Outcome {
        picture: Picture::of(
            "Clients that are connected",
            &format!("to a server that listens with a backlog of {BACKLOG}"),
            vec![bar("before it accepts", at_once), bar("after it has accepted", in_the_end)],
        ),
        claims: vec![
            Claim::new(
                "the kernel connects as many as the queue has room for: the backlog, on Linux one more",
                format!("{at_once} connected without accept(2)"),
                room.contains(&at_once),
            ),
            Claim::new(
                "the others are connected when they try again, a second or more later",
                format!("{in_the_end} in the end, the last one after {}", span(last)),
                in_the_end == CLIENTS && last >= Duration::from_millis(900),
            ),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_without_a_limit_disagrees() {
        let of =
            |at_once, last| judge(Seen { at_once, in_the_end: CLIENTS, last: Duration::from_millis(last) });
        assert!(of(5, 1050).agrees() && of(4, 3100).agrees());
        assert!(!of(12, 1050).agrees() && !of(5, 310).agrees());
    }
}
