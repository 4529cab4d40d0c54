//! What a sample means to those that send clients here, or start the daemon again: whether it lives, whether it is ready,
//! and how many more clients it could serve.

use std::time::Duration;

use forkd_server::supervise::{AcceptedBy, ListenerSample, STATES, Sample, Stage, State};

/// How long the master's loop may be overdue. It turns within milliseconds, but for a machine that is overloaded.
const LATE: Duration = Duration::from_secs(10);

/// Whether the daemon is alive, or why not: its master does what is due. It can't be told of one to which nothing has
/// happened and nothing is due.
pub(super) fn alive(sample: &Sample) -> Result<(), &'static str> {
    if sample.overdue >= LATE { Err("the master is stuck") } else { Ok(()) }
}

/// Whether clients may be sent here, or why not.
pub(super) fn ready(sample: &Sample) -> Result<(), &'static str> {
    alive(sample)?;
    match sample.stage {
        Stage::Starting => Err("starting"),
        Stage::Running if sample.listeners.iter().all(works) => Ok(()),
        Stage::Running => Err("no worker works"),
        Stage::Draining => Err("draining"),
        Stage::Ending | Stage::Killing => Err("stopped"),
    }
}

/// The line that HAProxy's agent-check reads.
///
/// `ready` takes back what `drain` has done: HAProxy keeps that for the next daemon at this address. `stopped` and `down`
/// are for connections that have ended or can't be served: it may cut those that it has.
pub(super) fn agent(sample: &Sample) -> String {
    match (ready(sample), sample.stage) {
        (Ok(()), _) => format!("ready up {}%\n", idle_percent(sample)),
        (Err(_), Stage::Draining) => "drain\n".to_owned(),
        (Err(why), Stage::Ending | Stage::Killing) => format!("{why}\n"),
        (Err(why), _) => format!("down#{why}\n"),
    }
}

/// Whether a listening socket has a process that serves its clients, or will in a moment: a worker that leaves after its
/// last client is no reason to send clients elsewhere.
fn works(listener: &ListenerSample) -> bool {
    let alive = STATES.iter().zip(&listener.states).filter(|(state, _)| **state != State::Ended);
    // those of another socket are counted there
    let has_own = listener.has_pool && !matches!(listener.accepted_by, AcceptedBy::WorkersOf(_));
    !has_own || alive.map(|(_, count)| count).sum::<u32>() > 0
}

/// The part of its connections that the daemon has free, in percent: of the listening socket that has the least, as none
/// can help another. At least 1: a server that is full makes clients wait, and of 0 HAProxy makes one that drains.
fn idle_percent(sample: &Sample) -> u128 {
    sample.listeners.iter().filter_map(idle_of).min().unwrap_or(100).max(1)
}

/// The same of one listening socket, if it has connections that are known of; 100 where they have no limit.
fn idle_of(listener: &ListenerSample) -> Option<u128> {
    let most = u128::from(listener.connections_each?) * u128::from(listener.limit);
    let free = most.saturating_sub(listener.serving.into());
    (free * 100).checked_div(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(each: Option<u32>, limit: u32, serving: u32) -> ListenerSample {
        ListenerSample { connections_each: each, limit, serving, ..ListenerSample::default() }
    }

    fn running(listeners: Vec<ListenerSample>) -> Sample {
        Sample { stage: Stage::Running, listeners, ..Sample::default() }
    }

    #[test]
    fn each_phase_has_its_answers() {
        for (stage, why, line) in [
            (Stage::Starting, Some("starting"), "down#starting\n"),
            (Stage::Running, None, "ready up 100%\n"),
            (Stage::Draining, Some("draining"), "drain\n"),
            (Stage::Ending, Some("stopped"), "stopped\n"),
            (Stage::Killing, Some("stopped"), "stopped\n"),
        ] {
            let sample = Sample { stage, ..Sample::default() };
            assert_eq!((ready(&sample).err(), agent(&sample).as_str()), (why, line));
            assert_eq!(alive(&sample), Ok(()));
        }
    }

    #[test]
    fn a_master_that_misses_what_is_due_is_stuck() {
        let sample = |overdue| Sample { overdue, ..running(Vec::new()) };
        assert_eq!(alive(&sample(LATE - Duration::from_millis(1))), Ok(()));
        let stuck = sample(LATE);
        assert_eq!((alive(&stuck), ready(&stuck)), (Err("the master is stuck"), Err("the master is stuck")));
        assert_eq!(agent(&stuck), "down#the master is stuck\n");
    }

    #[test]
    fn each_pool_needs_a_worker() {
        let pool = |states| ListenerSample { has_pool: true, states, ..listener(Some(1), 2, 0) };
        let (leaving, none) = (pool([0, 0, 0, 1, 0, 0]), pool([0, 0, 0, 0, 1, 0]));
        let fork = listener(Some(1), 2, 0);
        assert_eq!(ready(&running(vec![leaving.clone(), fork.clone()])), Ok(()));
        let lacking = running(vec![leaving, none, fork]);
        assert_eq!(
            (ready(&lacking), agent(&lacking).as_str()),
            (Err("no worker works"), "down#no worker works\n")
        );
    }

    #[test]
    fn a_socket_is_served_by_the_workers_of_another() {
        let pool = |states| ListenerSample { has_pool: true, states, ..listener(None, 1, 0) };
        let beside = ListenerSample {
            accepted_by: AcceptedBy::WorkersOf("tcp://a:1".into()),
            ..pool([0; STATES.len()])
        };
        let (works, lacks) = (pool([0, 0, 0, 0, 0, 1]), pool([0; STATES.len()]));
        // how many more clients they could serve is not known
        assert_eq!(agent(&running(vec![works, beside.clone()])), "ready up 100%\n");
        assert_eq!(ready(&running(vec![lacks, beside])), Err("no worker works"));
    }

    #[test]
    fn the_share_that_is_idle_is_that_of_the_busiest_socket() {
        for (listeners, percent) in [
            (vec![listener(Some(1), 8, 3)], 62),
            (vec![listener(Some(1), 8, 3), listener(Some(100), 2, 150)], 25),
            // full, and more than that while a limit is lowered
            (vec![listener(Some(1), 8, 8)], 1),
            (vec![listener(Some(1), 8, 9)], 1),
            (vec![listener(Some(u32::MAX), u32::MAX, 1000)], 99),
            (vec![listener(Some(u32::MAX), 1, 0)], 100),
            // datagrams, and a socket that is closed
            (vec![listener(None, 1, 1), listener(Some(1), 0, 0)], 100),
        ] {
            assert_eq!(idle_percent(&running(listeners.clone())), percent, "{listeners:?}");
        }
    }
}
