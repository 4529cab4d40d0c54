//! Two servers that answer each other.

use std::ffi::OsString;
use std::fs::File;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::time::Duration;

use forkd_compare::report::picture::{Bar, Picture};
use forkd_compare::{Scratch, not_inherited};
use forkd_load::text::thousands;
use forkd_net::Error;
use forkd_sys::program::{Image, Privileges, become_program};

use crate::lab::{Claim, Experiment, Lab, Outcome, cannot};
use crate::subject::{Board, Subject, eventually};

pub(crate) const LAB: Lab = Lab {
    name: "loop",
    title: "two UDP echo servers that answer each other",
    story: "Two programs of ten lines answer each datagram with the same datagram. One datagram comes to the second that says, \
            falsely, that it is from the first; then the two are left alone for half a second. After that the same is done with \
            two forkds.",
    question: "How many datagrams do the two simple servers answer in half a second?",
    choices: &[
        "1: an answer is no request",
        "255: the hop limit ends it",
        "thousands, and ever more: it never ends",
    ],
    answer: 2,
    why: "To an echo server an answer looks like a request, and UDP has no connection that would tell them apart. One datagram with \
          a forged source makes a loop that lasts until one of the two is stopped (CERT CA-1996-01; in 2024 again, \
          CVE-2024-2169). The hop limit does not end it, as each answer is a new datagram with a new one. forkd lets an answer \
          leave with one hop less than its request had left, so a datagram between two forkds dies as in any routing loop, and \
          it refuses datagrams from the ports of services that answer anything.",
    next: &[
        (
            "forkd serve udp://127.0.0.1:7007",
            "in another terminal, forkd status: what it has refused, by reason",
        ),
        ("tcpdump -v -i lo udp", "as root, while forkd lab loop runs: the ttl of each datagram"),
    ],
    run,
};

/// How long they are left alone.
const ALONE: Duration = Duration::from_millis(500);

/// The least hop limit that ends a loop.
const HOPS: u64 = 255;

fn run(experiment: &mut Experiment<'_>) -> Result<Outcome, Error> {
    let simple = simple()?;
    experiment
        .tell(format!("two simple servers have answered {} datagrams, and go on", thousands(simple as f64)));
    let (forkds, is_over) = forkds(experiment)?;
    let over = if is_over { "and it is over" } else { "and go on" };
    experiment.tell(format!("two forkds have answered {} datagrams, {over}", thousands(forkds as f64)));
    Ok(judge(simple, forkds, is_over))
}

/// Two sockets, and a datagram on its way from the first to the second.
fn sockets() -> std::io::Result<[UdpSocket; 2]> {
    let [first, second] = [UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?];
    first.send_to(b"hello\n", second.local_addr()?)?;
    Ok([first, second])
}

/// How many datagrams two servers of a few lines answer.
fn simple() -> Result<u64, Error> {
    let board = Board::<2>::default();
    let sockets = sockets().map_err(cannot("send a datagram"))?;
    let _servers = (sockets.iter().enumerate())
        .map(|(number, socket)| Subject::fork(|| answer(socket, number, &board)))
        .collect::<Result<Vec<_>, _>>()?;
    std::thread::sleep(ALONE);
    Ok(board.get(0) + board.get(1))
}

fn answer(socket: &UdpSocket, number: usize, board: &Board<2>) -> u8 {
    let mut buffer = [0; 2048];
    while let Ok((n, from)) = socket.recv_from(&mut buffer) {
        let _ = socket.send_to(&buffer[..n], from);
        board.add(number, 1);
    }
    1
}

/// How many datagrams two forkds answer, and whether that is all.
fn forkds(experiment: &Experiment<'_>) -> Result<(u64, bool), Error> {
    let scratch = Scratch::new()?;
    let sockets = sockets().map_err(cannot("send a datagram"))?;
    let log = File::create(scratch.path("log")).map_err(cannot("create the log of a forkd"))?;
    let controls = ["a", "b"].map(|name| scratch.path(name));
    let parent = rustix::process::getpid();
    let forkd = experiment.forkd;
    let environment: Vec<(OsString, Option<OsString>)> = not_inherited().map(|name| (name, None)).collect();
    let start = |(socket, control): (&UdpSocket, &std::path::PathBuf)| {
        let arguments: Vec<OsString> =
            ["serve", "--model", "event", "--workers", "1", "--log", "stderr", "--control"]
                .map(OsString::from)
                .into_iter()
                .chain([control.into()])
                .collect();
        Subject::fork(|| {
            become_program(Image {
                program: forkd.as_os_str(),
                arguments: &arguments,
                environment: &environment,
                sockets: &[socket.as_fd()],
                output: Some(log.as_fd()),
                privileges: Privileges::Keep,
                parent,
            });
            1
        })
    };
    let _servers = sockets.iter().zip(&controls).map(start).collect::<Result<Vec<_>, _>>()?;
    let answered = || {
        controls.iter().map(|control| (experiment.ask)(control).map(|counters| counters.connections)).sum()
    };
    if !eventually(|| Option::is_some(&answered())) {
        return Err(Error::Internal("two forkds do not start".into()));
    }
    std::thread::sleep(ALONE);
    let before: Option<u64> = answered();
    std::thread::sleep(ALONE / 2);
    let after: Option<u64> = answered();
    Ok((after.unwrap_or(0), before == after))
}

fn judge(simple: u64, forkds: u64, is_over: bool) -> Outcome {
    let bar = |name: &str, count: u64| Bar::new(name, count as f64, thousands(count as f64));
    Outcome {
        picture: Picture::of(
            "Datagrams that two servers answer each other",
            "in half a second, after one with a forged source",
            vec![bar("two simple servers", simple), bar("two forkds", forkds)],
        ),
        claims: vec![
            Claim::new("two simple servers go on for ever", thousands(simple as f64), simple > 4 * HOPS),
            Claim::new(
                format!("between two forkds it ends within {HOPS}"),
                format!(
                    "{}{}",
                    thousands(forkds as f64),
                    if is_over { ", and no more" } else { ", and more" }
                ),
                is_over && (1..=HOPS).contains(&forkds),
            ),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_goes_on_disagrees() {
        assert!(judge(50_000, 64, true).agrees());
        assert!(!judge(50_000, 64, false).agrees());
        assert!(!judge(50_000, 0, true).agrees());
        assert!(!judge(64, 64, true).agrees());
    }
}
