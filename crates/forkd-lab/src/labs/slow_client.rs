//! A client that says nothing, and one that comes after it.

use std::time::Duration;

use forkd_compare::report::picture::{Bar, Picture};
use forkd_load::text::span;
use forkd_net::Error;

use crate::daemon::Daemon;
use crate::lab::{Claim, Experiment, Lab, Outcome, missing};

pub(crate) const LAB: Lab = Lab {
    name: "slow-client",
    title: "who waits behind a client that says nothing",
    story: "The servers differ in who serves a client: the server itself, one client after the other (iterative); a pool of \
            processes, one client each (prefork); a new process (fork) or thread (thread) for each client; one process that \
            switches between all clients (event, coroutine). To each server comes a client that sends a line, gets it back, and then stays and says nothing. A moment later comes a second \
            client, and sends a line, too. If it does not come back within a second, the first client leaves.",
    question: "Which servers answer the second client?",
    choices: &[
        "all: a server has a queue",
        "those that can serve more than one client at once",
        "only those that have a process for each client",
    ],
    answer: 1,
    why: "A server that serves one client at a time reads from that one until it leaves, and all others wait in the kernel's \
          queue: connected, and not served. So it is with the iterative loop, and so with a pool when each of its workers has \
          a client. What helps is a process for each client (fork), a thread for each (thread), or a loop that waits for all \
          clients at once (event, coroutine). A time limit helps every model: --idle-timeout.",
    next: &[
        ("forkd serve --model iterative --idle-timeout 5s", "the silent client has to leave after 5 s"),
        ("forkd serve --model prefork --workers 1..8", "the pool grows as long as clients wait"),
    ],
    run,
};

/// How long the second client waits until the first one leaves.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long it waits for a server that is to answer it, which may be slow.
const SLOWNESS: Duration = Duration::from_secs(20);

/// A server by its name and options, and whether the book says that it answers the second client.
type Server = (&'static str, &'static [&'static str], bool);

const SERVERS: [Server; 7] = [
    ("iterative", &["--model", "iterative"], false),
    ("prefork, 1 worker", &["--model", "prefork", "--workers", "1"], false),
    ("prefork, 2 workers", &["--model", "prefork", "--workers", "2"], true),
    ("fork", &["--model", "fork"], true),
    ("thread", &["--model", "thread", "--workers", "1"], true),
    ("event", &["--model", "event", "--workers", "1"], true),
    ("coroutine", &["--model", "coroutine", "--workers", "1"], true),
];

fn run(experiment: &mut Experiment<'_>) -> Result<Outcome, Error> {
    let mut waited = Vec::new();
    for (name, options, serves) in &SERVERS {
        let daemon = Daemon::start(experiment, options, "tcp://127.0.0.1:0")?;
        let mut slow = daemon.client()?;
        if slow.echo(SLOWNESS).time().is_none() {
            return Err(missing(format!("{name} does not serve its first client within {}", span(SLOWNESS))));
        }
        let mut second = daemon.client()?;
        let time = second.echo(if *serves { SLOWNESS } else { PATIENCE }).time();
        experiment.pause(Duration::ZERO)?;
        experiment.tell(match time {
            Some(time) => format!("{name} answers the second client after {}", span(time)),
            None => {
                drop(slow);
                let has_left =
                    if second.wait(SLOWNESS).time().is_some() { "and then does" } else { "nor then" };
                format!("{name} does not answer the second client before the first has left, {has_left}")
            }
        });
        waited.push(time);
    }
    Ok(judge(&waited))
}

fn judge(waited: &[Option<Duration>]) -> Outcome {
    let bar = |((name, ..), time): (&Server, &Option<Duration>)| match time {
        Some(time) => Bar::new(*name, time.as_secs_f64() * 1e3, span(*time)),
        None => Bar::new(*name, PATIENCE.as_secs_f64() * 1e3, "not served"),
    };
    let claim = |book: &str, expected: bool| {
        let of = SERVERS.iter().zip(waited).filter(|((.., serves), _)| *serves == expected);
        let (right, wrong): (Vec<_>, Vec<_>) = of.partition(|(_, time)| time.is_some() == expected);
        let names = |all: &[(&Server, &Option<Duration>)]| {
            all.iter().map(|((name, ..), _)| *name).collect::<Vec<_>>().join("; ")
        };
        let seen = if wrong.is_empty() { names(&right) } else { format!("not so: {}", names(&wrong)) };
        Claim::new(book, seen, wrong.is_empty())
    };
    Outcome {
        picture: Picture::of(
            "How long the second client waits",
            "for an echo, while the first one is connected and silent",
            SERVERS.iter().zip(waited).map(bar).collect(),
        ),
        claims: vec![
            claim("a server whose workers are all taken leaves others waiting", false),
            claim("a server that can serve several at once answers", true),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_server_is_judged() {
        let expected = SERVERS.map(|(.., serves)| serves.then_some(Duration::from_millis(1)));
        assert!(judge(&expected).agrees());
        let mut other = expected;
        other[3] = None;
        let outcome = judge(&other);
        assert!(outcome.claims[0].holds && !outcome.claims[1].holds);
        assert_eq!(outcome.claims[1].seen, "not so: fork");
    }
}
