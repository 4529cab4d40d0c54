//! How many descriptors and mappings a process of forkd can have.

use super::facts::{Facts, Limit};
use super::finding::{Finding, Mend, Verdict};
use super::need::{Demand, Need};
use super::show::amount;
use forkd_server::Model;

/// Descriptors that a process has beside those of its clients, or of its workers.
const OTHERS: u64 = 64;

/// Mappings that a process has beside those of stacks.
const OTHER_MAPPINGS: u64 = 500;

/// What the limits of descriptors and mappings leave.
pub(super) fn findings(facts: &Facts, need: &Need) -> Vec<Finding> {
    vec![open_files(facts, need), all_open_files(facts, need), mappings(facts, need)]
}

fn open_files(facts: &Facts, need: &Need) -> Finding {
    const LIMIT: &str = "open files (ulimit -n)";
    Finding::of(LIMIT, &facts.open_files, |limit| {
        let (pool, event) = (limit.soft.saturating_sub(OTHERS), limit.hard.saturating_sub(OTHERS));
        let meaning = format!(
            "A pool has at most {} workers, a worker of thread as many connections, and one of event or coroutine, \
             which raises the limit for itself, {}.",
            amount(pool),
            amount(event)
        );
        let value = format!("{}, hard {}", amount(limit.soft), amount(limit.hard));
        let mut found = Finding::ok(LIMIT, value, meaning);
        let worst = need.groups.iter().map(|group| shortfall(need, group, *limit)).min_by_key(|it| it.0);
        match worst {
            Some((verdict, enough)) if verdict != Verdict::Ok => {
                let hard = facts.most_open_files.as_ref().copied().unwrap_or(u64::MAX);
                let mut mend = Mend::ulimit('n', "LimitNOFILE", "nofile", enough, facts.group.service());
                if enough > limit.hard && !facts.is_root {
                    found.meaning += " Only root can raise the hard limit.";
                }
                if enough > hard {
                    mend.now = format!("sysctl -w fs.nr_open=\"{enough}\" && {}", mend.now);
                }
                found.but(verdict, mend)
            }
            _ => found,
        }
    })
}

/// What the limit is to the processes of a group, and what would be enough.
fn shortfall(need: &Need, group: &Demand, limit: Limit) -> (Verdict, u64) {
    // the worker's share of clients, and for a master a pidfd of each worker
    let (wanted, room) = match group.model {
        Model::Event | Model::Coroutine => (need.share(group).unwrap_or(0), limit.hard),
        Model::Thread => (need.share(group).unwrap_or(0), limit.soft),
        Model::Prefork | Model::Iterative => (group.processes * group.sockets, limit.soft),
        _ => (0, limit.soft),
    };
    (Verdict::of(need, wanted + OTHERS, room), wanted + wanted / 7 + 2 * OTHERS)
}

fn all_open_files(facts: &Facts, need: &Need) -> Finding {
    const LIMIT: &str = "fs.file-max";
    Finding::of(LIMIT, &facts.all_open_files, |room| {
        let wanted = need.connections.unwrap_or(0);
        let value = format!("{}, {} used", amount(room.most), amount(room.used));
        let meaning = format!("All processes of the machine can open {} more.", amount(room.left()));
        Finding::ok(LIMIT, value, meaning)
            .judged(need, wanted, room.left(), || Mend::sysctl(LIMIT, room.used + 2 * wanted))
    })
}

/// A stack of a thread or a coroutine is two mappings, with its guard page.
fn mappings(facts: &Facts, need: &Need) -> Finding {
    const LIMIT: &str = "vm.max_map_count";
    Finding::of(LIMIT, &facts.mappings, |most| {
        let stacks = most.saturating_sub(OTHER_MAPPINGS) / 2;
        let with_stacks =
            need.groups.iter().filter(|group| matches!(group.model, Model::Thread | Model::Coroutine));
        let wanted = with_stacks.filter_map(|group| need.share(group)).max().unwrap_or(0);
        let meaning = format!("A worker has at most {} threads or coroutines.", amount(stacks));
        Finding::ok(LIMIT, amount(*most), meaning)
            .judged(need, wanted, stacks, || Mend::sysctl(LIMIT, 3 * wanted + OTHER_MAPPINGS))
    })
}
