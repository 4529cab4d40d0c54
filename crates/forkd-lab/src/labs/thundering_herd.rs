//! How many processes a client wakes.

use forkd_compare::report::picture::{Bar, Picture};
use forkd_net::Error;

use super::waiters::{CLIENTS, Seen, WAITERS, Way, watch};
use crate::lab::{Claim, Experiment, Lab, Outcome};

pub(crate) const LAB: Lab = Lab {
    name: "thundering-herd",
    title: "how many processes one client wakes",
    story: "Eight processes wait for clients at one listening socket: first in accept(2), then in poll(2) and in epoll, \
            which tell that a client is there, to be accepted then, at last in epoll with the flag EPOLLEXCLUSIVE. 64 clients come one after the other, so that each could be served by one \
            process. How often a process wakes is what the kernel counts (voluntary_ctxt_switches).",
    question: "How many of the eight processes does one client wake when they wait in poll(2)?",
    choices: &[
        "1: the kernel hands over the connection",
        "most of them, and one gets the connection",
        "2: one accepts, one takes its place",
    ],
    answer: 1,
    why: "A process in accept(2) waits exclusively: the kernel wakes one of them for each connection (Linux since 2.3). poll(2) \
          and epoll only report that a socket is readable, which is so for all, so all are woken, and all but one find \
          nothing. This is the thundering herd. EPOLLEXCLUSIVE (Linux 4.5) asks for one, or a few, to be woken. forkd's prefork \
          workers wait in accept(2). Its event workers wait in epoll, and pay for being all woken with being able to choose: one \
          that has more clients than the others leaves a new one to them.",
    next: &[
        ("forkd lab lifo", "which of them it is that is woken"),
        ("forkd serve --model prefork --workers 1 tcp://127.0.0.1:7007", "a worker that waits in accept(2)"),
        (
            "grep ^vol /proc/$(pgrep -n -x forkd)/status",
            "how often it has waited: in another terminal, before and after a client (nc -N 127.0.0.1 7007)",
        ),
    ],
    run,
};

const WAYS: [Way; 4] = [Way::Accept, Way::Poll, Way::Epoll, Way::EpollExclusive];

fn run(experiment: &mut Experiment<'_>) -> Result<Outcome, Error> {
    let mut all = Vec::new();
    for way in WAYS {
        let seen = watch(experiment, way)?;
        experiment.tell(format!(
            "{}: {CLIENTS} clients have woken processes {} times",
            way.name(),
            seen.woken
        ));
        all.push(seen);
    }
    Ok(judge(&all))
}

fn judge(all: &[Seen]) -> Outcome {
    let each: Vec<f64> = all.iter().map(|seen| seen.woken as f64 / CLIENTS as f64).collect();
    let bars = WAYS.iter().zip(&each).map(|(way, woken)| Bar::new(way.name(), *woken, format!("{woken:.1}")));
    let of = |way| WAYS.iter().position(|other| *other == way).map_or(0.0, |number| each[number]);
    let claim = |book: &str, way, holds: fn(f64) -> bool| {
        Claim::new(book, format!("{:.1} of {WAITERS} processes for each client", of(way)), holds(of(way)))
    };
    Outcome {
        picture: Picture::of(
            "Processes woken for each client",
            &format!("of {WAITERS} that wait at one listening socket; one can accept it"),
            bars.collect(),
        ),
        claims: vec![
            claim("in accept(2), one is woken", Way::Accept, |woken| woken < 2.0),
            claim("in poll(2), most are woken", Way::Poll, |woken| woken > WAITERS as f64 / 2.0),
            claim("in epoll, most are woken", Way::Epoll, |woken| woken > WAITERS as f64 / 2.0),
            claim("in epoll with EPOLLEXCLUSIVE, one or a few", Way::EpollExclusive, |woken| woken < 3.0),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_wakes_all_in_accept_disagrees() {
        let seen = |woken: u64| Seen { accepted: Vec::new(), woken: woken * CLIENTS as u64 };
        assert!(judge(&[1, 8, 7, 1].map(seen)).agrees());
        assert!(!judge(&[8, 8, 7, 1].map(seen)).agrees());
        assert!(!judge(&[1, 1, 7, 1].map(seen)).agrees());
    }
}
