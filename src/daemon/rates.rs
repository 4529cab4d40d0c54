//! What has happened per second, from two looks at a daemon.

use std::collections::HashMap;

use super::status::{ChildStatus, ListenerStatus, Status};

/// What happens per second, from one look at a daemon to the next.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rates {
    /// Of each listener, in the order of the later [`Status`].
    pub listeners: Vec<Rate>,
    /// Of each child, in the order of the later [`Status`].
    pub children: Vec<Rate>,
}

/// What happens per second at one listening socket, or in one child.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Rate {
    /// Connections, or datagrams, that were taken.
    pub connections: f64,
    /// Children that were forked; of a child 0.
    pub forks: f64,
    /// Bytes received from clients.
    pub bytes_in: f64,
    /// Bytes sent to clients.
    pub bytes_out: f64,
    /// What the kernel has dropped at the socket; of a child 0.
    pub dropped: f64,
    /// How much of a processor a worker uses that accepts by itself, 1 being all of one; of others 0.
    pub cpu: f64,
}

impl Rates {
    /// Compares two looks at a daemon; `None` if it is not the same one, or no time has passed.
    ///
    /// Time is the daemon's own. What was not there before has begun at 0.
    #[must_use]
    pub fn between(before: &Status, now: &Status) -> Option<Self> {
        let seconds = now.uptime_s - before.uptime_s;
        if before.pid != now.pid || seconds <= 0.0 {
            return None;
        }
        let listeners: HashMap<&str, [u64; 5]> =
            before.listeners.iter().map(|l| (&*l.endpoint, counts_of_listener(l))).collect();
        let children: HashMap<(u32, u32), &ChildStatus> =
            before.children.iter().map(|c| ((c.pid, c.slot), c)).collect();
        let rate = |now: [u64; 5], before: Option<&[u64; 5]>| {
            let before = before.copied().unwrap_or_default();
            let per_second = |i: usize| now[i].saturating_sub(before[i]) as f64 / seconds;
            Rate {
                connections: per_second(0),
                forks: per_second(1),
                bytes_in: per_second(2),
                bytes_out: per_second(3),
                dropped: per_second(4),
                cpu: 0.0,
            }
        };
        let of_listener = |l: &ListenerStatus| rate(counts_of_listener(l), listeners.get(&*l.endpoint));
        let of_child = |c: &ChildStatus| {
            let before = children.get(&(c.pid, c.slot)).copied();
            let used = (cpu_of(c) - before.map_or(0.0, cpu_of)).max(0.0);
            Rate { cpu: used / seconds, ..rate(counts_of_child(c), before.map(counts_of_child).as_ref()) }
        };
        Some(Self {
            listeners: now.listeners.iter().map(of_listener).collect(),
            children: now.children.iter().map(of_child).collect(),
        })
    }

    /// What happens at all listening sockets together.
    #[must_use]
    pub fn total(&self) -> Rate {
        self.listeners.iter().fold(Rate::default(), |sum, rate| Rate {
            connections: sum.connections + rate.connections,
            forks: sum.forks + rate.forks,
            bytes_in: sum.bytes_in + rate.bytes_in,
            bytes_out: sum.bytes_out + rate.bytes_out,
            dropped: sum.dropped + rate.dropped,
            cpu: sum.cpu + rate.cpu,
        })
    }
}

fn counts_of_listener(l: &ListenerStatus) -> [u64; 5] {
    [l.connections, l.forked, l.bytes_in, l.bytes_out, l.dropped.unwrap_or_default().into()]
}

fn counts_of_child(c: &ChildStatus) -> [u64; 5] {
    [c.connections, 0, c.bytes_in, c.bytes_out, 0]
}

/// The processor time that is known of it, in seconds.
fn cpu_of(c: &ChildStatus) -> f64 {
    c.worker.as_ref().and_then(|worker| worker.cpu_s).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn child(pid: u32, bytes_in: u64) -> serde_json::Value {
        serde_json::json!({
            "pid": pid, "slot": 0, "endpoint": "tcp://a:1", "state": "serving", "serving": 1, "threads": 1, "peer": "",
            "age_s": 1.0, "connections": 1, "bytes_in": bytes_in, "bytes_out": 0,
        })
    }

    fn status(pid: u32, uptime_s: f64, connections: u64, children: &[serde_json::Value]) -> Status {
        let listener = serde_json::json!({
            "endpoint": "tcp://a:1", "service": "echo", "model": "fork", "alive": 1, "peak": 1,
            "forked": connections, "connections": connections, "failed": 0, "bytes_in": 0, "bytes_out": 1000,
            "refused": {}, "deaths": {},
        });
        let status = serde_json::json!({
            "pid": pid, "uptime_s": uptime_s, "listeners": [listener], "children": children,
        });
        serde_json::from_value(status).unwrap()
    }

    #[test]
    fn differences_are_divided_by_the_daemons_time() {
        let before = status(1, 10.0, 100, &[child(7, 50)]);
        let now = status(1, 12.0, 110, &[child(8, 40), child(7, 150)]);
        let rates = Rates::between(&before, &now).unwrap();
        assert_eq!(rates.listeners, [Rate { connections: 5.0, forks: 5.0, ..Rate::default() }]);
        let children: Vec<f64> = rates.children.iter().map(|rate| rate.bytes_in).collect();
        // the first one is new
        assert_eq!(children, [20.0, 50.0]);
        assert_eq!(rates.total(), rates.listeners[0]);
    }

    #[test]
    fn processor_time_is_a_share_of_a_processor() {
        let worker = |cpu_s: serde_json::Value| {
            let mut worker = child(7, 0);
            worker["worker"] = serde_json::json!({
                "number": 0, "generation": 1, "status": null, "cpu_s": cpu_s, "rss_bytes": null,
            });
            worker
        };
        let at = |uptime_s: f64, cpu_s| status(1, uptime_s, 0, &[worker(cpu_s)]);
        let share = |before, now| Rates::between(&at(10.0, before), &at(12.0, now)).unwrap().children[0].cpu;
        assert_eq!(share(4.0.into(), 5.0.into()), 0.5);
        assert_eq!(share(4.0.into(), serde_json::Value::Null), 0.0);
    }

    #[test]
    fn another_daemon_is_not_compared() {
        let now = status(1, 12.0, 110, &[]);
        assert_eq!(Rates::between(&status(2, 10.0, 0, &[]), &now), None);
        assert_eq!(Rates::between(&status(1, 12.0, 0, &[]), &now), None);
        assert_eq!(Rates::between(&status(1, 99.0, 0, &[]), &now), None);
        // a pid that came again
        assert_eq!(Rates::between(&status(1, 1.0, 500, &[]), &now).unwrap().total().connections, 0.0);
    }
}
