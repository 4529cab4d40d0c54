//! What ten thousand connected clients cost.

use std::time::Duration;

use forkd_compare::record::Entry;
use forkd_compare::report::picture::{Bar, Picture};
use forkd_compare::{Contestant, Plan};
use forkd_load::text::thousands;
use forkd_load::{Phase, allow_descriptors};
use forkd_net::Error;

use crate::lab::{Claim, Experiment, Lab, Outcome, missing};

pub(crate) const LAB: Lab = Lab {
    name: "c10k",
    title: "what ten thousand clients cost that mostly wait",
    story: "10,000 clients, or as many as this machine allows, connect to each server, send a line, get it back, and stay. What the server \
            needs for them is counted while all are there: processes, threads, and memory beyond what it had without clients (PSS: \
            what processes share is divided between them). The servers: a process for each client (fork), a thread for each (thread), and one process that switches between all \
            (event, coroutine). Each has a master besides, which serves nobody: one process \
            and one thread more.",
    question: "Which of the servers holds them with one process and one thread?",
    choices: &["none: each client needs at least a thread", "event and coroutine", "only fork"],
    answer: 1,
    why: "In 1999 Dan Kegel asked why a machine that can move the bytes of ten thousand clients could not serve them: what failed \
          was a process or a thread for each. A loop over epoll keeps a few hundred bytes for a connection, a coroutine a small \
          stack. Linux today does hold ten thousand processes, and forkd's children are small: what they cost is memory. The \
          choice is between that and what a process protects.",
    next: &[
        ("forkd compare --phases hold --clients 100,1000,10000", "how each grows"),
        ("forkd doctor --connections 10000", "what on this machine would be in the way"),
    ],
    run,
};

/// How long a client waits for its first echo. A machine that does much else serves it late, and one that is not served
/// then would not be later.
const PATIENCE: Duration = Duration::from_secs(20);

/// Numbers of clients that are tried, largest first.
const CLIENTS: [usize; 4] = [10_000, 5_000, 1_000, 200];

const MODELS: [&str; 4] = ["fork", "thread", "event", "coroutine"];

#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    served: f64,
    processes: f64,
    threads: f64,
    kib_each: f64,
}

fn run(experiment: &mut Experiment<'_>) -> Result<Outcome, Error> {
    let clients = room(experiment)?;
    let plan = Plan {
        contestants: MODELS.iter().map(|model| Contestant::Model(model)).collect(),
        phases: vec![Phase::Hold],
        clients: vec![clients],
        duration: Duration::from_millis(100),
        rounds: 1,
        workers: Some(1),
        patience: PATIENCE,
        ..Plan::default()
    };
    let record = experiment
        .compare(&plan, |step, name| format!("{name}: {} clients connect", thousands(step.clients as f64)))?;
    let mut seen = [Seen::default(); MODELS.len()];
    for (model, seen) in MODELS.iter().zip(&mut seen) {
        let entry = record.models.iter().find(|entry| entry.name == *model);
        *seen = entry.and_then(figures).ok_or_else(|| {
            missing(format!(
                "the processes and memory of {model} could not be counted: /proc does not tell of them"
            ))
        })?;
    }
    Ok(judge(clients, &seen))
}

/// As many clients as this machine has room for.
fn room(experiment: &mut Experiment<'_>) -> Result<usize, Error> {
    let mut narrowest = None;
    for clients in CLIENTS {
        // the servers inherit the descriptors that are allowed here
        let allowed = allow_descriptors(clients);
        let lack = experiment.lack(clients).or_else(|| Some(allowed.err()?.sentence()));
        let Some(lack) = lack else {
            if let Some(why) = narrowest {
                experiment.tell(format!("{} clients, and no more: {why}", thousands(clients as f64)));
            }
            return Ok(clients);
        };
        narrowest = Some(lack);
    }
    let least = CLIENTS[CLIENTS.len() - 1];
    Err(missing(format!("there is no room for {least} clients: {}", narrowest.unwrap_or_default())))
}

fn figures(entry: &Entry) -> Option<Seen> {
    let hold = &entry.hold.as_ref()?.median;
    Some(Seen {
        served: hold.served?,
        processes: hold.processes?,
        threads: hold.threads?,
        kib_each: hold.pss_kib_per_conn?,
    })
}

fn judge(clients: usize, all: &[Seen; MODELS.len()]) -> Outcome {
    // the master, and what the kernel counts with it
    let few = 4.0;
    let bars = MODELS.iter().zip(all).map(|(model, seen)| {
        let (count, what) = match () {
            () if seen.processes <= few && seen.threads > few => (seen.threads, "threads"),
            () => (seen.processes, "processes"),
        };
        let name = format!("{model} ({} {what})", thousands(count));
        Bar::new(name, seen.kib_each, format!("{:.1} KiB", seen.kib_each))
    });
    let served = all.iter().map(|seen| seen.served).fold(f64::INFINITY, f64::min);
    let [fork, thread, event, coroutine] = *all;
    let many = clients as f64 * 0.99;
    Outcome {
        picture: Picture::of(
            &format!("Memory for each of {} clients", thousands(clients as f64)),
            "that are connected and silent, and the processes and threads that hold them",
            bars.collect(),
        ),
        claims: vec![
            Claim::new(
                "all are served",
                format!("{} by each, at least", thousands(served)),
                served >= clients as f64,
            ),
            Claim::new("fork has a process for each", thousands(fork.processes), fork.processes >= many),
            Claim::new(
                "thread has a thread for each, and few processes",
                format!("{} threads, {} processes", thousands(thread.threads), thousands(thread.processes)),
                thread.threads >= many && thread.processes <= few,
            ),
            Claim::new(
                "event and coroutine have one thread for all, besides the master",
                format!("{} and {} threads", event.threads, coroutine.threads),
                event.threads <= few && coroutine.threads <= few,
            ),
            Claim::new(
                "a connection costs event less memory than a process costs fork",
                format!("{:.1} KiB, {:.1} KiB", event.kib_each, fork.kib_each),
                event.kib_each < fork.kib_each,
            ),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_serves_a_part_disagrees() {
        let seen = |processes, threads, kib_each| Seen { served: 1000.0, processes, threads, kib_each };
        let all =
            [seen(1001.0, 1001.0, 40.0), seen(2.0, 1003.0, 12.0), seen(2.0, 2.0, 0.5), seen(2.0, 2.0, 9.0)];
        assert!(judge(1000, &all).agrees());
        let mut other = all;
        other[0].served = 300.0;
        assert!(!judge(1000, &other).agrees());
    }
}
