//! What becomes of children that have ended.

use std::io;
use std::time::Duration;

use forkd_compare::report::picture::{Bar, Picture};
use forkd_net::Error;
use forkd_sys::signal::{ignore_sigchld, restore_sigchld};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use crate::lab::{Claim, Experiment, Lab, Outcome};
use crate::look::{children_of, is_possible};
use crate::subject::{Board, Subject, fork_child};

pub(crate) const LAB: Lab = Lab {
    name: "zombie",
    title: "what SIGCHLD does with children that have ended",
    story: "A process that has ended stays in the table of processes, as a zombie, until its parent has asked by wait(2) how it \
            ended. The kernel sends the parent a signal, SIGCHLD, when a child ends. Four parents fork 20 children each, which \
            exit at once, while their parent is busy. The first parent does nothing about it. The second ignores SIGCHLD. The \
            third calls wait(2) once for each SIGCHLD that it gets, the fourth calls it until there is no more to wait for.",
    question: "How many zombies does the third parent have in the end?",
    choices: &[
        "none: it waits at each signal",
        "19: it has got one signal for all",
        "20: it can't wait for any",
    ],
    answer: 1,
    why: "A signal that is pending already is not queued again: 20 deaths while the parent is busy are one SIGCHLD. So a \
          handler has to call waitpid(2) in a loop, with WNOHANG, by which it does not wait. If the parent ignores SIGCHLD, the kernel keeps nothing of \
          a child that ends (wait(2), NOTES; POSIX.1-2001): that is how forkd never has a zombie. The price is that wait(2) \
          can't tell any more how a child ended; forkd learns that from a pidfd, a descriptor of the child (pidfd_open(2)).",
    next: &[
        (
            "python3 -c 'import os,time; os.fork() or os._exit(0); time.sleep(60)' &",
            "a parent and its zombie: ps shows it as defunct",
        ),
        ("forkd serve --model fork", "in another terminal, clients: nc 127.0.0.1 7007"),
        ("ps -o pid,stat,args --ppid $(pgrep -o -x forkd)", "its children; none has the state Z"),
    ],
    run,
};

/// How many children each parent has.
const CHILDREN: usize = 20;

/// What a parent does about its children's ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Nothing,
    Ignores,
    WaitsOnce,
    WaitsForAll,
}

const WAYS: [(Way, &str); 4] = [
    (Way::Nothing, "does nothing"),
    (Way::Ignores, "ignores SIGCHLD"),
    (Way::WaitsOnce, "waits once per signal"),
    (Way::WaitsForAll, "waits for all"),
];

// what a parent tells
const FORKED: usize = 0;
const MAY_LOOK: usize = 1;
const DONE: usize = 2;

fn run(experiment: &mut Experiment<'_>) -> Result<Outcome, Error> {
    is_possible()?;
    let mut zombies = Vec::new();
    for (way, name) in WAYS {
        let left = zombies_of(experiment, way)?;
        experiment.tell(format!("the parent that {name}: {left} of {CHILDREN} children are zombies"));
        zombies.push((way, name, left));
    }
    Ok(judge(&zombies))
}

fn zombies_of(experiment: &Experiment<'_>, way: Way) -> Result<usize, Error> {
    let board = Board::<3>::default();
    let parent = Subject::fork(|| life(way, &board))?;
    // all are dead before it looks: a zombie has state Z, and one that the kernel has reaped is gone
    experiment.until("all children have ended", || {
        parent.is_well()?;
        Ok(board.get(FORKED) == CHILDREN as u64
            && children_of(parent.pid).iter().all(|child| child.state == 'Z'))
    })?;
    board.set(MAY_LOOK, 1);
    experiment.until("a parent has looked after its children", || {
        parent.is_well()?;
        Ok(board.get(DONE) == 1)
    })?;
    Ok(children_of(parent.pid).len())
}

/// The life of a parent; SIGCHLD is blocked in it, so that it gets those that are pending when it looks.
fn life(way: Way, board: &Board<3>) -> io::Result<()> {
    restore_sigchld();
    if way == Way::Ignores {
        ignore_sigchld()?;
    }
    let signals = SignalFd::with_flags(&SigSet::from(Signal::SIGCHLD), SfdFlags::SFD_NONBLOCK)?;
    for _ in 0..CHILDREN {
        fork_child(|| 0)?;
        board.add(FORKED, 1);
    }
    board.wait(MAY_LOOK, 1);
    while let Ok(Some(_)) = signals.read_signal() {
        match way {
            Way::Nothing | Way::Ignores => break,
            Way::WaitsOnce => _ = wait_once(),
            Way::WaitsForAll => while wait_once() {},
        }
    }
    board.set(DONE, 1);
    std::thread::sleep(Duration::from_secs(60));
    Ok(())
}

/// Waits for one child that has ended; tells whether there was one.
fn wait_once() -> bool {
    waitpid(None, Some(WaitPidFlag::WNOHANG)).is_ok_and(|status| status != WaitStatus::StillAlive)
}

fn judge(zombies: &[(Way, &str, usize)]) -> Outcome {
    let bars =
        zombies.iter().map(|(_, name, left)| Bar::new(*name, *left as f64, left.to_string())).collect();
    let note = format!("of {CHILDREN} children that have ended while the parent was busy");
    let of = |way| zombies.iter().find(|(found, ..)| *found == way).map_or(0, |(.., left)| *left);
    let claim = |book: &str, way, expected: usize| {
        Claim::new(book, format!("{} zombies", of(way)), of(way) == expected)
    };
    let all = CHILDREN;
    Outcome {
        picture: Picture::of("Zombies, by what the parent does", &note, bars),
        claims: vec![
            claim("a child that its parent does not wait for stays as a zombie", Way::Nothing, all),
            claim("a parent that ignores SIGCHLD has none", Way::Ignores, 0),
            claim(
                "one SIGCHLD stands for many deaths: waiting once leaves all but one",
                Way::WaitsOnce,
                all - 1,
            ),
            claim("waiting until there is no more leaves none", Way::WaitsForAll, 0),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_queues_signals_disagrees() {
        let with = |once| {
            WAYS.map(|(way, name)| {
                (
                    way,
                    name,
                    match way {
                        Way::Nothing => CHILDREN,
                        Way::WaitsOnce => once,
                        _ => 0,
                    },
                )
            })
        };
        assert!(judge(&with(CHILDREN - 1)).agrees());
        let outcome = judge(&with(0));
        assert_eq!(outcome.claims.iter().filter(|claim| !claim.holds).count(), 1);
    }
}
