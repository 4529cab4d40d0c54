//! Two servers that answer each other.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use forkd_compare::report::picture::{Bar, Picture};
use forkd_compare::{Scratch, not_inherited};
use forkd_load::text::thousands;
use forkd_net::Error;
use forkd_sys::program::{Image, Privileges, become_program};

use crate::daemon::last_words;
use crate::lab::{Claim, Experiment, Lab, Outcome, cannot, missing};
use crate::subject::{Board, Subject};

pub(crate) const LAB: Lab = Lab {
    name: "loop",
    title: "two UDP echo servers that answer each other",
    story: "Two programs of ten lines answer each datagram with the same datagram. One datagram comes to the second that says, \
            falsely, that it is from the first; then the two are left alone for half a second. (A datagram may pass so many routers as its hop limit says, at most 255.) After that the same is done with \
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

/// No loop that ends has so many.
const ENDLESS: u64 = 4 * HOPS;
/// A loop in which so long nothing happens is over.
const QUIET: Duration = Duration::from_millis(250);

fn run(experiment: &mut Experiment<'_>) -> Result<Outcome, Error> {
    let simple = simple(experiment)?;
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
fn simple(experiment: &Experiment<'_>) -> Result<u64, Error> {
    let board = Board::<2>::default();
    let sockets = sockets().map_err(cannot("send a datagram"))?;
    let servers = (sockets.iter().enumerate())
        .map(|(number, socket)| Subject::fork(|| answer(socket, number, &board)))
        .collect::<Result<Vec<_>, _>>()?;
    experiment.pause(ALONE)?;
    let answered = || board.get(0) + board.get(1);
    // on a machine that does much else they need longer, and a loop that has ended does not go on
    let mut since = Instant::now();
    let mut last = answered();
    experiment.until("two simple servers go on", || {
        servers.iter().try_for_each(Subject::is_well)?;
        let now = answered();
        if now != last {
            (last, since) = (now, Instant::now());
        }
        Ok(now > ENDLESS || since.elapsed() > QUIET)
    })?;
    Ok(last)
}

fn answer(socket: &UdpSocket, number: usize, board: &Board<2>) -> io::Result<()> {
    let mut buffer = [0; 2048];
    loop {
        let (n, from) = socket.recv_from(&mut buffer)?;
        let _ = socket.send_to(&buffer[..n], from);
        board.add(number, 1);
    }
}

/// How many datagrams two forkds answer, and whether that is all.
fn forkds(experiment: &Experiment<'_>) -> Result<(u64, bool), Error> {
    let scratch = Scratch::new()?;
    let sockets = sockets().map_err(cannot("send a datagram"))?;
    let path = scratch.path("log");
    let log = File::create(&path).map_err(cannot("create the log of a forkd"))?;
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
            // it has written why
            Err(io::ErrorKind::NotFound.into())
        })
    };
    let servers = sockets.iter().zip(&controls).map(start).collect::<Result<Vec<_>, _>>()?;
    let answered = || {
        controls.iter().map(|control| (experiment.ask)(control).map(|counters| counters.connections)).sum()
    };
    let (mut last, mut since): (Option<u64>, _) = (None, Instant::now());
    experiment.until("it is over between two forkds, or will never be", || {
        if servers.iter().any(|server| server.is_well().is_err()) {
            let text = fs::read_to_string(&path).unwrap_or_default();
            return Err(missing(format!("a forkd could not serve: {}", last_words(&text))));
        }
        let now = answered();
        if now != last {
            (last, since) = (now, Instant::now());
        }
        Ok(now.is_some_and(|now| now > ENDLESS || (now > 0 && since.elapsed() > ALONE + QUIET)))
    })?;
    let last = last.unwrap_or(0);
    Ok((last, last <= ENDLESS))
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
            Claim::new("two simple servers go on for ever", thousands(simple as f64), simple > ENDLESS),
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
