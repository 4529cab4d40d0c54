//! What dies with the process that serves a client.

use std::time::{Duration, Instant};

use forkd_compare::report::picture::{Bar, Picture};
use forkd_load::text::span;
use forkd_net::Error;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::daemon::{Client, Daemon, Echo};
use crate::lab::{Claim, Experiment, Lab, Outcome, cannot, missing};

pub(crate) const LAB: Lab = Lab {
    name: "crash",
    title: "what dies with the process that serves a client",
    story: "A server has a process for each client (fork), a pool of processes, one client each (prefork), a thread for each client \
            (thread), or one process that switches between all clients (event, coroutine). Eight clients are connected to each. Then a process that serves one of them is killed (SIGKILL), as by a \
            fault in its code or by the kernel when memory ends. Each client sends a line and waits for it to come back, and a new client comes.",
    question: "How many of the eight clients does the server with threads lose?",
    choices: &[
        "1: the thread that served it",
        "8: all threads are in the process that died",
        "none: the server starts it anew",
    ],
    answer: 1,
    why: "Memory protection ends at the process. Threads, callbacks and coroutines of a process share its memory, its \
          descriptors and its end. With a process for each client a fault costs the client that met it, and no other. In each \
          case the master, which has started the others, lives on, as it runs no code for clients: it forks another worker, and new clients are served.",
    next: &[
        (
            "forkd serve --model thread --workers 4",
            "a crash of one costs a quarter of the clients; kill -9 one of them",
        ),
        ("forkd status", "in another terminal: deaths counts what has ended by a signal, and by which"),
    ],
    run,
};

const CLIENTS: usize = 8;

/// How long an echo may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The servers, and how many clients the book says that they lose.
const SERVERS: [(&str, &[&str], usize); 5] = [
    ("fork", &["--model", "fork"], 1),
    ("prefork, 8 workers", &["--model", "prefork", "--workers", "8"], 1),
    ("thread", &["--model", "thread", "--workers", "1"], CLIENTS),
    ("event", &["--model", "event", "--workers", "1"], CLIENTS),
    ("coroutine", &["--model", "coroutine", "--workers", "1"], CLIENTS),
];

/// What happened at a server.
#[derive(Debug, Clone, Copy)]
struct Seen {
    lost: usize,
    /// When a new client was served, from the death on.
    again: Option<Duration>,
}

fn run(experiment: &mut Experiment<'_>) -> Result<Outcome, Error> {
    let mut seen = Vec::new();
    for (name, options, _) in SERVERS {
        let found = kill_one(experiment, options)?;
        let again = found.again.map_or("in vain".into(), span);
        experiment.tell(format!(
            "{name}: {} of {CLIENTS} clients lost; a new one was served after {again}",
            found.lost
        ));
        seen.push(found);
    }
    Ok(judge(&seen))
}

fn kill_one(experiment: &Experiment<'_>, options: &[&str]) -> Result<Seen, Error> {
    let daemon = Daemon::start(experiment, options, "tcp://127.0.0.1:0")?;
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| daemon.client()).collect::<Result<_, _>>()?;
    if clients.iter_mut().any(|client| client.echo(PATIENCE).time().is_none()) {
        return Err(missing(format!("a forkd does not serve eight clients within {}", span(PATIENCE))));
    }
    let serving = daemon.children()?.into_iter().find(|child| child.serving > 0);
    let Some(victim) = serving else {
        return Err(Error::Internal("a forkd knows no child that serves".into()));
    };
    kill(Pid::from_raw(victim.pid), Signal::SIGKILL).map_err(cannot("kill a child of a forkd"))?;
    let death = Instant::now();
    let served = std::iter::repeat_with(|| daemon.client().ok().and_then(|mut it| it.echo(PATIENCE).time()))
        .take_while(|_| death.elapsed() < PATIENCE)
        .find(Option::is_some);
    let again = served.map(|_| death.elapsed());
    let echoes: Vec<Echo> = clients.iter_mut().map(|client| client.echo(PATIENCE)).collect();
    experiment.pause(Duration::ZERO)?;
    // a client that waits has its connection
    if echoes.contains(&Echo::None) {
        return Err(missing(format!("a client is neither served nor cut off within {}", span(PATIENCE))));
    }
    Ok(Seen { lost: echoes.iter().filter(|echo| **echo == Echo::Lost).count(), again })
}

fn judge(seen: &[Seen]) -> Outcome {
    let bars = SERVERS
        .iter()
        .zip(seen)
        .map(|((name, ..), seen)| Bar::new(*name, seen.lost as f64, format!("{} of {CLIENTS}", seen.lost)));
    let claim = |book: &str, expected: usize| {
        let of = SERVERS.iter().zip(seen).filter(|((.., loses), _)| *loses == expected);
        let said = of.clone().map(|((name, ..), seen)| format!("{name}: {}", seen.lost));
        let holds = of.clone().all(|(_, seen)| seen.lost == expected);
        Claim::new(book, said.collect::<Vec<_>>().join("; "), holds)
    };
    let slowest = seen.iter().filter_map(|seen| seen.again).max();
    let served = seen.iter().filter(|seen| seen.again.is_some()).count();
    let again = slowest
        .map_or("none".into(), |time| format!("{served} of {}, after {} at most", seen.len(), span(time)));
    Outcome {
        picture: Picture::of(
            "Clients lost with one process",
            &format!("of {CLIENTS} that were connected when it was killed"),
            bars.collect(),
        ),
        claims: vec![
            claim("with a process for each client, one client is lost", 1),
            claim("with all clients in one process, all are lost", CLIENTS),
            Claim::new("the server goes on: a new client is served", again, served == seen.len()),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_loses_more_disagrees() {
        let again = Some(Duration::from_millis(3));
        let mut seen = SERVERS.map(|(.., lost)| Seen { lost, again });
        assert!(judge(&seen).agrees());
        seen[0].lost = 2;
        seen[1].again = None;
        let holds: Vec<_> = judge(&seen).claims.iter().map(|claim| claim.holds).collect();
        assert_eq!(holds, [false, true, false]);
    }
}
