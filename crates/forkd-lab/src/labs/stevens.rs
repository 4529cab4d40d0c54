//! The table of server designs, measured today.

use std::time::Duration;

use forkd_compare::report::picture::{Bar, Picture};
use forkd_compare::{Contestant, Plan};
use forkd_load::Phase;
use forkd_load::text::micros;
use forkd_net::Error;

use crate::lab::{Claim, Experiment, Lab, Outcome, missing};

pub(crate) const LAB: Lab = Lab {
    name: "stevens",
    title: "what a client costs each design of a server",
    story: "Chapter 30 of Stevens' UNIX Network Programming (volume 1) measures designs of servers by the processor time that \
            process control takes: what a design needs more than an iterative server, which needs none. Here 16 clients at a \
            time connect, send a line, get it back and leave: at a server for one client after the other (iterative), with a \
            process or a thread for each (fork, thread), and with a pool of these that is there before (prefork, prethread).",
    question: "Which of these designs takes the most processor time for each client?",
    choices: &[
        "a fork for each client",
        "a thread for each client",
        "a pool of processes that are there already (prefork)",
    ],
    answer: 0,
    why: "A process has to be made, to be scheduled and to be taken apart again: tables of memory, descriptors, a process id. \
          A thread shares most of that. A pool pays once, before the first client comes. The order is that of the book, thirty \
          years and many kernels later. What the book does not measure is in other experiments: what dies with whom, and who waits \
          behind whom.",
    next: &[
        ("forkd compare", "the whole table: rates, latencies, memory"),
        ("forkd lab crash", "what the fork is good for"),
    ],
    run,
};

/// The designs, in the order of the book.
const MODELS: [(&str, &str); 5] = [
    ("iterative", "iterative"),
    ("fork", "fork for each client"),
    ("prefork", "prefork"),
    ("thread", "thread for each client"),
    ("prethread", "prethread"),
];

fn run(experiment: &mut Experiment<'_>) -> Result<Outcome, Error> {
    let plan = Plan {
        contestants: MODELS.iter().map(|(model, _)| Contestant::Model(model)).collect(),
        phases: vec![Phase::Churn],
        clients: vec![16],
        duration: Duration::from_millis(300),
        rounds: 2,
        ..Plan::default()
    };
    let record = experiment.compare(&plan, |step, name| format!("round {}: {name}", step.round))?;
    let costs = MODELS.map(|(model, _)| {
        let entry = record.models.iter().find(|entry| entry.name == model)?;
        entry.churn.as_ref()?.median.cpu_us_per_conn
    });
    match MODELS.iter().zip(&costs).find(|(_, cost)| cost.is_none()) {
        None => Ok(judge(&costs)),
        Some(((model, _), _)) => Err(missing(format!(
            "the processor time of {model} could not be measured: this machine is too busy to serve many clients, or tells \
             no times (/proc)"
        ))),
    }
}

/// What a client costs at each, in microseconds of processor time.
fn judge(costs: &[Option<f64>; MODELS.len()]) -> Outcome {
    let text = |cost: Option<f64>| cost.map_or("not measured".into(), micros);
    let bars =
        MODELS.iter().zip(costs).map(|((_, name), cost)| Bar::new(*name, cost.unwrap_or(0.0), text(*cost)));
    let of =
        |model: &str| MODELS.iter().position(|(name, _)| *name == model).and_then(|number| costs[number]);
    let claim = |book: &str, more: &str, less: &str| {
        let (more_cost, less_cost) = (of(more), of(less));
        let seen = format!("{more}: {}; {less}: {}", text(more_cost), text(less_cost));
        let holds = more_cost.zip(less_cost).is_some_and(|(more, less)| more > less);
        Claim::new(book, seen, holds)
    };
    Outcome {
        picture: Picture::of(
            "Processor time for each client",
            "of all processes of the server; connect, one echo, leave; 16 clients at a time",
            bars.collect(),
        ),
        claims: vec![
            claim("a fork for each client costs more than a pool of processes", "fork", "prefork"),
            claim("a fork for each client costs more than a thread for each", "fork", "thread"),
            claim("a thread for each client costs more than a pool of threads", "thread", "prethread"),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_agrees_with_nothing() {
        let costs = [15.0, 120.0, 18.0, 40.0, 19.0].map(Some);
        assert!(judge(&costs).agrees());
        let mut other = costs;
        other[1] = Some(12.0);
        other[4] = None;
        assert!(judge(&other).claims.iter().all(|claim| !claim.holds));
    }
}
