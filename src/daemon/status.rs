//! What a running daemon is doing, as it is shown to people and scripts.

mod sources;
mod table;
mod workers;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use forkd_server::supervise::Arrivals;
use forkd_server::supervise::{AcceptedBy, Activity, ChildActivity, View, WorkerActivity};
pub use sources::{Pardoned, SourceStatus, SourcesStatus};
pub use table::Watched;
#[cfg(feature = "top")]
pub(crate) use table::{dropped, known, queue, restarts, short, spread};
#[cfg(feature = "top")]
pub(crate) use workers::bytes;

/// What `forkd status --json` prints; its field names are a contract with scripts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The master's process id.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_s: f64,
    /// `starting`, `running`, or at a stop `draining`, `ending` or `killing`.
    #[serde(default)]
    pub phase: String,
    /// Why there are no metrics, though the configuration asks for them; else `null`.
    #[serde(default)]
    pub metrics_error: Option<String>,
    /// One for each listening socket.
    pub listeners: Vec<ListenerStatus>,
    /// One for each living child.
    pub children: Vec<ChildStatus>,
}

/// The counters of one listening socket and its children, living and dead.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// What it is bound to.
    pub endpoint: String,
    /// What is served.
    pub service: String,
    /// What runs the handler.
    pub model: String,
    /// Children alive now.
    pub alive: u32,
    /// The most that were alive at once.
    pub peak: u32,
    /// Children forked so far.
    pub forked: u64,
    /// Connections, or datagrams, so far.
    pub connections: u64,
    /// Bytes received from clients.
    pub bytes_in: u64,
    /// Bytes sent to clients.
    pub bytes_out: u64,
    /// Those whose handler failed or panicked.
    pub failed: u64,
    /// Connections that wait to be accepted; `null` where the system doesn't say.
    pub queued: Option<u32>,
    /// How many may wait.
    pub queue_limit: Option<u32>,
    /// What the kernel has dropped at the socket since that was made: datagrams, or packets of new connections, that
    /// had no room; `null` where the system doesn't say.
    pub dropped: Option<u32>,
    /// Connections that have not completed their first exchange, where `--early-drop` limits that.
    #[serde(default)]
    pub early: u32,
    /// Clients turned away, by cause.
    pub refused: BTreeMap<String, u64>,
    /// Connections that a limit of time has ended: `idle` (the client was silent), `unread` (it read nothing of what it
    /// was sent), `lifetime`.
    #[serde(default)]
    pub timed_out: BTreeMap<String, u64>,
    /// Children that have ended, by cause.
    pub deaths: BTreeMap<String, u64>,
    /// Workers that have ended though nothing had told them to.
    #[serde(default)]
    pub restarts: u64,
    /// Whether forkd can know of its clients: not of those that programs accept (`--worker-exec`), so that their counts
    /// are 0.
    #[serde(default = "yes")]
    pub knows_clients: bool,
    /// The endpoint whose workers serve this one, too, as workers that accept by themselves have all sockets; else `null`.
    #[serde(default)]
    pub workers_of: Option<String>,
    /// How evenly connections are spread over workers that serve many each: Jain's index, 1 if each has as many, 1/N if
    /// one of N has all; `null` without connections, with one worker, and where a child or a worker has one client.
    #[serde(default)]
    pub spread: Option<f64>,
}

/// One living child.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChildStatus {
    /// Its process id.
    pub pid: u32,
    /// Its line of the scoreboard.
    pub slot: u32,
    /// The endpoint that it serves.
    pub endpoint: String,
    /// `starting`, `idle`, `serving`, `leaving` or `ended`; `ready` for a worker that accepts by itself, where none has told
    /// of a client.
    pub state: String,
    /// How many connections it serves.
    pub serving: u32,
    /// How many threads it has, without those that a handler starts.
    pub threads: u32,
    /// The client that it serves, or served last.
    pub peer: String,
    /// Seconds since it was forked.
    pub age_s: f64,
    /// Connections, or datagrams, that it has taken.
    pub connections: u64,
    /// Bytes received by it.
    pub bytes_in: u64,
    /// Bytes sent by it.
    pub bytes_out: u64,
    /// What else is known of a worker that accepts by itself; of others `null`.
    #[serde(default)]
    pub worker: Option<WorkerStatus>,
}

/// A worker that accepts by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its number in its pool, from 0 on.
    pub number: u32,
    /// The generation of its pool: 1 at the start, and one more with each reload.
    pub generation: u32,
    /// What it says of itself by `STATUS=` of sd_notify(3).
    pub status: Option<String>,
    /// Seconds of processor time that it has used; `null` where the system doesn't say.
    pub cpu_s: Option<f64>,
    /// Bytes of memory that it has, those that it shares with others included; `null` where the system doesn't say.
    pub rss_bytes: Option<u64>,
    /// The same with those that it shares divided among all that have them. `forkd status` reads it by itself, without
    /// `--watch`, of the first 256 workers, as far as it may; the daemon doesn't say it.
    #[serde(default)]
    pub pss_bytes: Option<u64>,
}

impl ChildStatus {
    /// Whether anything is known of its clients.
    pub(crate) fn tells_of_clients(&self) -> bool {
        self.worker.is_none() || self.connections > 0
    }
}

fn yes() -> bool {
    true
}

impl From<WorkerActivity> for WorkerStatus {
    fn from(worker: WorkerActivity) -> Self {
        let WorkerActivity { number, generation, status, cpu, rss } = worker;
        let cpu_s = cpu.map(|cpu| cpu.as_secs_f64());
        Self { number, generation, status, cpu_s, rss_bytes: rss, pss_bytes: None }
    }
}

impl Status {
    /// Reads the scoreboard.
    pub(super) fn of(view: View<'_>, metrics_error: Option<String>) -> Self {
        let activities = view.activities();
        let child = |child: ChildActivity| {
            let of = activities.iter().find(|activity| activity.socket.number == child.socket)?;
            Some(ChildStatus {
                pid: child.pid,
                slot: child.slot,
                endpoint: of.socket.endpoint.clone(),
                state: child.state.name().to_owned(),
                serving: child.serving,
                threads: child.threads,
                peer: child.peer.to_string(),
                age_s: child.age.as_millis() as f64 / 1000.0,
                connections: child.sums.connections,
                bytes_in: child.sums.bytes_in,
                bytes_out: child.sums.bytes_out,
                worker: child.worker.map(WorkerStatus::from),
            })
        };
        Self {
            pid: std::process::id(),
            uptime_s: view.uptime().as_millis() as f64 / 1000.0,
            phase: view.stage().name().to_owned(),
            metrics_error,
            children: view.child_activities().filter_map(child).collect(),
            listeners: activities.into_iter().map(ListenerStatus::from).collect(),
        }
    }
}

impl From<Activity> for ListenerStatus {
    fn from(activity: Activity) -> Self {
        let Activity { socket, alive, peak, forked, sums, early, refused, .. } = activity;
        let Activity { timed_out, deaths, restarts, spread, .. } = activity;
        let Arrivals { queued, queue_limit, dropped } = socket.arrivals;
        Self {
            endpoint: socket.endpoint,
            service: socket.service,
            model: socket.model.to_string(),
            alive,
            peak,
            forked,
            connections: sums.connections,
            bytes_in: sums.bytes_in,
            bytes_out: sums.bytes_out,
            failed: sums.failed,
            queued,
            queue_limit,
            dropped,
            early,
            refused,
            timed_out,
            deaths,
            restarts,
            knows_clients: socket.accepted_by.may_tell(),
            workers_of: match socket.accepted_by {
                AcceptedBy::WorkersOf(endpoint) => Some(endpoint),
                _ => None,
            },
            spread,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::rates::{Rate, Rates};

    fn status() -> Status {
        let listener = ListenerStatus {
            endpoint: "tcp://127.0.0.1:7007".into(),
            service: "echo".into(),
            model: "fork".into(),
            alive: 1,
            peak: 3,
            forked: 17,
            connections: 17,
            bytes_in: 1024,
            bytes_out: 1024,
            failed: 1,
            queued: Some(4),
            queue_limit: Some(128),
            dropped: Some(2744),
            early: 6,
            refused: [("limit".to_owned(), 2)].into(),
            timed_out: [("idle".to_owned(), 3)].into(),
            deaths: [("done".to_owned(), 15), ("SIGSEGV".to_owned(), 1)].into(),
            restarts: 0,
            knows_clients: true,
            workers_of: None,
            spread: Some(0.987),
        };
        let child = ChildStatus {
            pid: 4712,
            slot: 0,
            endpoint: listener.endpoint.clone(),
            state: "serving".into(),
            serving: 1,
            threads: 1,
            peer: "127.0.0.1:50000".into(),
            age_s: 1.25,
            connections: 1,
            bytes_in: 5,
            bytes_out: 5,
            worker: None,
        };
        Status {
            pid: 4711,
            uptime_s: 61.5,
            phase: "running".into(),
            metrics_error: None,
            listeners: vec![listener],
            children: vec![child],
        }
    }

    #[test]
    fn the_table_shows_everything() {
        let text = status().to_string();
        for part in [
            "pid 4711, up 1m 1s, running",
            " 4/128 ",
            "dropped by the kernel: 2744",
            "workers: spread=0.99",
            "without a first exchange: connections=6",
            "limit=2",
            "timed out: idle=3",
            "SIGSEGV=1 done=15",
            "1 children: serving=1",
            "127.0.0.1:50000",
        ] {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
    }

    #[test]
    fn metrics_that_are_missing_have_a_line_with_the_reason() {
        let status = Status { metrics_error: Some("cannot serve systemd:m".into()), ..status() };
        let text = status.to_string();
        assert!(text.lines().any(|line| line == "no metrics: cannot serve systemd:m"), "{text}");
    }

    #[test]
    fn rates_stand_beside_the_counts_once_they_are_known() {
        let now = status();
        let text = |rates: Option<&Rates>| Watched { status: &now, rates, width: None }.to_string();
        let lines = |text: String| text.lines().filter(|line| line.contains("127.0.0.1:7007")).count();
        assert!(text(None).contains("FORKS/S  CONN/S  IN/S  OUT/S\n"), "{}", text(None));
        assert_eq!(lines(text(None)), lines(now.to_string()));
        let rate =
            Rate { connections: 2.5, forks: 1.25, bytes_in: 70.4, bytes_out: 80.0, dropped: 1.5, cpu: 0.0 };
        let known = text(Some(&Rates { listeners: vec![rate], children: vec![rate] }));
        let cells = |at: usize| {
            let line = known.lines().filter(|line| line.contains("127.0.0.1:7007")).nth(at).unwrap();
            line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(cells(0)[11..], ["1.2", "2.5", "70", "80"], "{known}");
        assert!(known.contains("dropped by the kernel: 2744 (1.5/s)"), "{known}");
        let child = known.lines().last().unwrap().split_whitespace().collect::<Vec<_>>();
        assert_eq!(child[9..], ["2.5", "70", "80", "127.0.0.1:50000", "tcp://127.0.0.1:7007"], "{known}");
    }

    #[test]
    fn workers_have_columns_of_their_own() {
        let worker = |number: u32, text: Option<&str>| ChildStatus {
            state: "ready".into(),
            connections: 0,
            worker: Some(WorkerStatus {
                number,
                generation: 3,
                status: text.map(str::to_owned),
                cpu_s: Some(1.5),
                rss_bytes: Some(5 << 20),
                pss_bytes: None,
            }),
            ..status().children[0].clone()
        };
        let mut now = Status { children: vec![worker(1, None), worker(0, None)], ..status() };
        let lines = |text: String| -> Vec<String> {
            let table = text.lines().skip_while(|line| !line.starts_with("WORKER"));
            table.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
        };
        assert_eq!(
            lines(now.to_string()),
            [
                "WORKER GEN PID STATE AGE CPU RSS LISTENER",
                "0 3 4712 ready 1.2s 1.50s 5.0M tcp://127.0.0.1:7007",
                "1 3 4712 ready 1.2s 1.50s 5.0M tcp://127.0.0.1:7007",
            ]
        );
        // what is known of one has a column for all
        now.children[0] = ChildStatus { connections: 4, ..worker(1, Some("a b")) };
        let rate = Rate { cpu: 0.25, ..Rate::default() };
        let rates = Rates { listeners: vec![Rate::default()], children: vec![rate, Rate::default()] };
        assert_eq!(
            lines(Watched { status: &now, rates: Some(&rates), width: None }.to_string()),
            [
                "WORKER GEN PID STATE AGE CPU %CPU RSS SERVING CONNECTIONS LISTENER STATUS",
                "0 3 4712 ready 1.2s 1.50s 0.0 5.0M 1 0 tcp://127.0.0.1:7007",
                "1 3 4712 ready 1.2s 1.50s 25.0 5.0M 1 4 tcp://127.0.0.1:7007 a b",
            ]
        );
    }

    #[test]
    fn columns_that_do_not_fit_are_left_out_as_a_whole() {
        let now = status();
        let all = Watched { status: &now, rates: None, width: None }.to_string();
        let known: Vec<&str> = all.split_whitespace().collect();
        for width in 12..200 {
            let text = Watched { status: &now, rates: None, width: Some(width) }.to_string();
            let tables =
                || text.lines().filter(|line| !line.contains([',', '=']) && !line.contains("kernel"));
            assert!(tables().all(|line| line.len() <= width.max(20)), "{width}:\n{text}");
            assert!(text.split_whitespace().all(|word| known.contains(&word)), "{width}:\n{text}");
        }
        let narrow = Watched { status: &now, rates: None, width: Some(80) }.to_string();
        for part in ["tcp://127.0.0.1:7007", "OUT/S", "FORKS/S", "127.0.0.1:50000", "4712"] {
            assert!(narrow.contains(part), "{part:?} in\n{narrow}");
        }
        assert_eq!(Watched { status: &now, rates: None, width: Some(300) }.to_string(), all);
    }

    #[test]
    fn json_comes_back_as_it_went() {
        let json = serde_json::to_string(&status()).expect("to JSON");
        assert_eq!(serde_json::from_str::<Status>(&json).expect("from JSON"), status());
    }
}
