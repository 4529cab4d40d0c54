//! What memory and processors leave, and what the kernel's ways with memory cost a fork.

use super::facts::Facts;
use super::finding::{Finding, Mend, Verdict};
use super::need::Need;
use super::processes::of_unit;
use super::show::amount;
use forkd_server::Model;

/// What a child or a worker takes of memory, with what the kernel keeps of it: about.
const PROCESS: u64 = 80 << 10;

/// What a connection takes besides: its socket, and for the largest part its share of a thread or a coroutine.
const CONNECTION: u64 = 20 << 10;

/// So much of a minute waited for memory is a shortage, in percent.
const PRESSURE: f64 = 10.0;

/// What memory and processors leave.
pub(super) fn findings(facts: &Facts, need: &Need) -> Vec<Finding> {
    vec![
        of_group(facts, need),
        available(facts, need),
        pressure(facts),
        overcommit(facts, need),
        huge_pages(facts),
        processors(facts),
    ]
}

/// Bytes that are needed.
fn wanted(need: &Need) -> u64 {
    let processes = need.groups.iter().any(|group| group.model == Model::Fork);
    let tasks = if processes { need.tasks() } else { need.groups.iter().map(|group| group.processes).sum() };
    tasks * PROCESS + need.connections.unwrap_or(0) * CONNECTION
}

fn meaning(bytes: u64) -> String {
    format!(
        "Enough for about {} children, or {} connections of event.",
        amount(bytes / (PROCESS + CONNECTION)),
        amount(bytes / CONNECTION)
    )
}

fn of_group(facts: &Facts, need: &Need) -> Finding {
    const LIMIT: &str = "memory.max";
    Finding::of(LIMIT, &facts.group.memory, |ceiling| {
        let Some(ceiling) = ceiling else {
            return Finding::ok(LIMIT, "no limit", "The control group lets forkd have all memory.");
        };
        let (room, wanted) = (ceiling.room, wanted(need));
        Finding::ok(LIMIT, format!("{} MiB, {} used", room.most >> 20, room.used >> 20), meaning(room.left()))
            .judged(need, wanted, room.left(), || of_unit(ceiling, "MemoryMax", room.used + 2 * wanted))
    })
}

fn available(facts: &Facts, need: &Need) -> Finding {
    const LIMIT: &str = "memory";
    Finding::of(LIMIT, &facts.memory, |bytes| {
        let found = Finding::ok(LIMIT, format!("{} MiB available", bytes >> 20), meaning(*bytes));
        found.judged(need, wanted(need), *bytes, || {
            Mend::option(
                "forkd serve --model event",
                "model = \"event\" in forkd's configuration file, or more memory",
            )
        })
    })
}

/// It is of the moment, so it is never more than tight.
fn pressure(facts: &Facts) -> Finding {
    const LIMIT: &str = "memory pressure";
    Finding::of(LIMIT, &facts.group.pressure, |percent| {
        let found = Finding::ok(
            LIMIT,
            format!("{percent} %"),
            "So much of the last minute some process waited for memory.",
        );
        match *percent >= PRESSURE {
            true => found.but(
                Verdict::Tight,
                Mend::option(
                    "ps -eo rss,pid,comm --sort=-rss | head",
                    "more memory, or fewer children (--max-children)",
                ),
            ),
            false => found,
        }
    })
}

fn overcommit(facts: &Facts, need: &Need) -> Finding {
    const LIMIT: &str = "vm.overcommit_memory";
    Finding::of(LIMIT, &facts.overcommit, |mode| match mode {
        2 => {
            let meaning = "The kernel counts all that each child could write, and refuses forks long before memory is full; \
                           children begin on a copy of the master's stack, which is slower.";
            let found = Finding::ok(LIMIT, "2, strict", meaning);
            let forks = need.groups.iter().any(|group| group.model == Model::Fork);
            if forks { found.but(Verdict::Tight, Mend::sysctl(LIMIT, 0)) } else { found }
        }
        _ => Finding::ok(
            LIMIT,
            mode.to_string(),
            "A fork is not refused for memory that its child would never write.",
        ),
    })
}

fn huge_pages(facts: &Facts) -> Finding {
    const LIMIT: &str = "transparent_hugepage";
    Finding::of(LIMIT, &facts.huge_pages, |mode| {
        let meaning = match mode.as_str() {
            "always" => {
                "forkd keeps them off the stacks of its children, and its heap is smaller than one; a program of a \
                         pool that forks with a large heap forks faster for them, and takes more memory."
            }
            _ => "forkd asks for none. A large program that forks pays for each page of 4 KiB.",
        };
        Finding::ok(LIMIT, mode.as_str(), meaning)
    })
}

fn processors(facts: &Facts) -> Finding {
    let meaning = "--workers auto starts so many workers.";
    Finding::ok("processors", facts.processors.as_str(), meaning)
}
