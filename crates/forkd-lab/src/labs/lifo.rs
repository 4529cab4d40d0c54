//! Which of the processes that wait gets the next client.

use forkd_compare::report::picture::{Bar, Group, Picture};
use forkd_net::Error;

use super::waiters::{CLIENTS, Seen, WAITERS, Way, watch};
use crate::lab::{Claim, Experiment, Lab, Outcome};

pub(crate) const LAB: Lab = Lab {
    name: "lifo",
    title: "which of the processes that wait gets the next client",
    story: "Eight processes wait for clients at one listening socket: first in accept(2), then in epoll, with the flag \
            EPOLLEXCLUSIVE, which has the kernel wake one of them and not all. \
            64 clients come one after the other, so that all eight are idle when each comes.",
    question: "How are the 64 clients spread over the eight processes that wait in epoll?",
    choices: &["evenly: 8 each", "by chance", "one process gets most of them"],
    answer: 2,
    why: "In accept(2) a process joins the end of the socket's queue each time it begins to wait, so they take turns. An epoll \
          instance is in that queue for as long as it watches the socket, always at the same place: the kernel asks the same one \
          first, and takes another only while that one is busy. Without EPOLLEXCLUSIVE all are woken, and the one that came last is \
          first to run: last in, first out, which gave this its name. It is why workers of event-driven servers have uneven loads. It \
          does no harm while they are idle; under load the busy ones are passed over. forkd's event workers are all told of a new \
          client, and one that has more clients than the others leaves it to them.",
    next: &[
        (
            "forkd serve --model event --workers 4",
            "in another terminal, forkd status: how many clients each worker has had",
        ),
        ("forkd lab thundering-herd", "how many are woken"),
    ],
    run,
};

const WAYS: [Way; 2] = [Way::Accept, Way::EpollExclusive];

fn run(experiment: &mut Experiment<'_>) -> Result<Outcome, Error> {
    let mut all = Vec::new();
    for way in WAYS {
        let seen = watch(experiment, way)?;
        let counts: Vec<_> = seen.accepted.iter().map(u64::to_string).collect();
        experiment.tell(format!("{}: the processes have had {} clients", way.name(), counts.join(", ")));
        all.push(seen);
    }
    Ok(judge(&all))
}

fn judge(all: &[Seen]) -> Outcome {
    let group = |(way, seen): (&Way, &Seen)| Group {
        heading: way.name().into(),
        bars: seen
            .accepted
            .iter()
            .enumerate()
            .map(|(number, count)| {
                Bar::new(format!("process {}", number + 1), *count as f64, count.to_string())
            })
            .collect(),
    };
    let most = |seen: &Seen| seen.accepted.iter().copied().max().unwrap_or(0);
    let share = |seen| format!("the one with the most had {} of {CLIENTS}", most(seen));
    let even = (CLIENTS / WAITERS) as u64;
    Outcome {
        picture: Picture {
            title: "Clients of each process".into(),
            note: format!("of {CLIENTS} that came one after the other while all {WAITERS} processes waited"),
            groups: WAYS.iter().zip(all).map(group).collect(),
        },
        claims: vec![
            Claim::new("in accept(2) they take turns", share(&all[0]), most(&all[0]) <= 2 * even),
            Claim::new("in epoll one gets most of them", share(&all[1]), most(&all[1]) * 2 > CLIENTS as u64),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_is_fair_to_epoll_disagrees() {
        let even = Seen { accepted: vec![8; 8], woken: 64 };
        let mut uneven = Seen { accepted: vec![0; 8], woken: 64 };
        uneven.accepted[7] = 64;
        assert!(judge(&[even.clone(), uneven.clone()]).agrees());
        assert!(!judge(&[even.clone(), even.clone()]).agrees());
        assert!(!judge(&[uneven.clone(), uneven]).agrees());
    }
}
