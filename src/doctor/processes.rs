//! How many children, workers and threads there can be.

use super::facts::{Facts, Room};
use super::finding::{Finding, Mend};
use super::group::Ceiling;
use super::need::Need;
use super::show::amount;
use forkd_server::Model;
use forkd_server::model::{MAX_CHILDREN, Threads};

/// What the limits of processes leave.
pub(super) fn findings(facts: &Facts, need: &Need) -> Vec<Finding> {
    let mut findings = vec![of_group(facts, need), of_user(facts, need)];
    let of_all = |limit, fact, setting: &'static str| {
        Finding::of(limit, fact, |room: &Room| {
            let enough = need.tasks() + room.used + need.tasks() / 2;
            let mend = || Mend::sysctl(setting, enough.next_power_of_two());
            Finding::ok(limit, used(*room), allows(room.left(), need)).judged(
                need,
                need.tasks(),
                room.left(),
                mend,
            )
        })
    };
    findings.push(of_all("kernel.pid_max", &facts.pid_max, "kernel.pid_max"));
    findings.push(of_all("kernel.threads-max", &facts.threads_max, "kernel.threads-max"));
    findings.extend(places(need));
    findings
}

/// What forkd itself is told to serve at once.
fn places(need: &Need) -> Option<Finding> {
    let (asked, places) = (need.connections?, need.places()?);
    let meaning = format!("All groups together serve {} connections at once; more wait.", amount(places));
    let found = Finding::ok("places for connections", amount(places), meaning);
    // what is enough is enough: no share is left for others
    let enough = if asked > places { u64::MAX } else { 0 };
    Some(found.judged(need, enough, places, || {
        let (most, option, value) = match need.groups.iter().find(|group| group.queues > 0).map(|it| it.model)
        {
            Some(Model::Fork) => (MAX_CHILDREN, "max-children", asked.to_string()),
            Some(Model::Thread) => (Threads::MOST, "max-threads", asked.to_string()),
            Some(Model::Event | Model::Coroutine) => (u32::MAX, "max-connections", asked.to_string()),
            _ => (MAX_CHILDREN, "workers", format!("8..{asked}")),
        };
        let (option, value) =
            if asked > most.into() { ("model", "event".to_owned()) } else { (option, value) };
        let in_file = if value.parse::<u64>().is_ok() { value.clone() } else { format!("{value:?}") };
        Mend {
            now: format!("forkd serve --{option} {value}"),
            lasting: format!("{option} = {in_file} in forkd's configuration file"),
        }
    }))
}

/// The limit of the control group, which counts threads, too.
fn of_group(facts: &Facts, need: &Need) -> Finding {
    const LIMIT: &str = "pids.max";
    Finding::of(LIMIT, &facts.group.tasks, |ceiling| {
        let Some(ceiling) = ceiling else {
            return Finding::ok(
                LIMIT,
                "no limit",
                "The control group lets forkd have any number of processes.",
            );
        };
        let room = ceiling.room;
        let enough = room.used + need.tasks() + need.tasks() / 7 + 1;
        Finding::ok(LIMIT, used(room), allows(room.left(), need)).judged(
            need,
            need.tasks(),
            room.left(),
            || of_unit(ceiling, "TasksMax", enough),
        )
    })
}

/// How to raise a limit of a group.
pub(super) fn of_unit(ceiling: &Ceiling, directive: &str, enough: u64) -> Mend {
    let file = ceiling.file.display();
    match ceiling.unit() {
        Some(unit) => Mend {
            now: format!("systemctl set-property --runtime {unit} {directive}={enough}"),
            lasting: format!("the same without --runtime, or {directive}={enough}: systemctl edit {unit}"),
        },
        None => Mend {
            now: format!("echo {enough} > {file}"),
            lasting: "the setting of what made the group, such as --pids-limit or --memory of a container"
                .into(),
        },
    }
}

/// The limit of this user, which counts threads, too.
fn of_user(facts: &Facts, need: &Need) -> Finding {
    const LIMIT: &str = "processes (ulimit -u)";
    Finding::of(LIMIT, &facts.processes, |limit| {
        let most = match facts.is_root {
            // setrlimit(2): CAP_SYS_RESOURCE
            true => {
                return Finding::ok(
                    LIMIT,
                    amount(limit.soft),
                    "It doesn't hold for root; it does for --user.",
                );
            }
            false => limit.soft,
        };
        let enough = need.tasks() + need.tasks() / 2;
        let meaning = format!("{} This user's other processes count, too.", allows(most, need));
        Finding::ok(LIMIT, amount(most), meaning).judged(need, need.tasks(), most, || {
            Mend::ulimit('u', "LimitNPROC", "nproc", enough, facts.group.service())
        })
    })
}

fn used(room: Room) -> String {
    format!("{}, {} used", amount(room.most), amount(room.used))
}

/// What so many processes are good for.
fn allows(left: u64, need: &Need) -> String {
    let children = amount(left.saturating_sub(1));
    let wanted = match need.is_asked {
        true => format!("; {} are asked for, the master among them", amount(need.tasks())),
        false => String::new(),
    };
    format!("At most {children} children, workers and threads beside the master{wanted}.")
}
