//! The pool of prefork: its size, and the coming and going of workers.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::time::Duration;

use common::*;
use nix::sys::signal::Signal;

/// Runs `forkd check` where these files stand in the place of the system's: what the kernel says of the control group of the
/// process (cgroups(7)), and of quotas.
#[cfg(target_os = "linux")]
fn check_with_quota(group: &str, quotas: &[(&str, &str)]) -> String {
    let script = quotas.iter().fold(
        "set -e; mount --bind \"$1\" /proc/$$/cgroup; mount -t tmpfs none /sys/fs/cgroup".to_owned(),
        |script, (path, quota)| {
            format!(
                "{script}; mkdir -p /sys/fs/cgroup/{path}; for file in {quota}; do \
                 printf '%s\\n' \"${{file#*=}}\" | tr _ ' ' >/sys/fs/cgroup/{path}/${{file%%=*}}; done"
            )
        },
    );
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("cgroup");
    std::fs::write(&own, group).unwrap();
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "sh", "-c", &format!("{script}; shift; exec \"$@\""), "sh"]).arg(own);
    command.args([env!("CARGO_BIN_EXE_forkd"), "check", "-m", "event", "-w", "auto", "tcp://127.0.0.1:0"]);
    without_options(&mut command);
    let ended = forkd(&mut command);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("workers = \"auto\"\n"), "{}", ended.stdout);
    ended.stdout.lines().find(|line| line.starts_with("# workers auto: ")).unwrap().to_owned()
}

/// The processors that this process, and what it starts, may run on.
#[cfg(target_os = "linux")]
fn allowed() -> Vec<usize> {
    use nix::sched::{CpuSet, sched_getaffinity};
    let set = sched_getaffinity(nix::unistd::Pid::from_raw(0)).unwrap();
    (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap()).collect()
}

#[cfg(target_os = "linux")]
#[test]
fn auto_is_what_the_smallest_quota_on_the_path_leaves() {
    let processors = allowed().len();
    if !need_root() || !need_tool("unshare") || !need(processors > 1, "two processors") {
        return;
    }
    let one = format!(
        "# workers auto: 1 of {processors} processors, which the quota of the control group leaves; for datagrams 1"
    );
    let all = format!("# workers auto: {processors}");
    let v2 = |quotas: &[(&str, &str)]| check_with_quota("0::/pod/container\n", quotas);
    let controllers = ("pod/container", "cgroup.controllers=cpu");
    assert_eq!(v2(&[controllers, ("pod/container", "cpu.max=100000_100000")]), one);
    assert_eq!(
        v2(&[controllers, ("pod", "cpu.max=150000_100000"), ("pod/container", "cpu.max=max_100000")]),
        one
    );
    // a container with a namespace for its control groups sees its own as the root
    assert_eq!(check_with_quota("0::/\n", &[("", "cgroup.controllers=cpu cpu.max=100000_100000")]), one);
    let v1 = |quotas: &[(&str, &str)]| check_with_quota("4:cpu,cpuacct:/pod/container\n0::/\n", quotas);
    let [pod, container] = ["cpu/pod", "cpu/pod/container"];
    let [limited, free] =
        ["100000", "-1"].map(|quota| format!("cpu.cfs_quota_us={quota} cpu.cfs_period_us=100000"));
    assert_eq!(v1(&[(pod, &free), (container, &limited)]), one);
    assert_eq!(v1(&[(pod, &limited), (container, &free)]), one);
    // less than one is one
    assert_eq!(v2(&[controllers, ("pod/container", "cpu.max=5000_100000")]), one);
    for quotas in [("pod/container", "cpu.max=max_100000"), ("pod", "cpu.max=99900000_100000")] {
        let said = v2(&[controllers, quotas]);
        assert!(said.starts_with(&all) && !said.contains("quota"), "{said}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn auto_is_what_affinity_leaves() {
    let online = nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_ONLN).unwrap().unwrap();
    if !need_tool("taskset") || !need(online > 1, "two processors") {
        return;
    }
    let first = allowed()[0].to_string();
    let daemon = Forkd::new("-m event -w auto tcp://127.0.0.1:0").within(&["taskset", "-c", &first]).start();
    assert_eq!(daemon.children().len(), 1);
    let mut command = std::process::Command::new("taskset");
    command.args(["-c", &first, env!("CARGO_BIN_EXE_forkd"), "check", "-m", "prefork", "-w", "auto"]);
    without_options(&mut command);
    let said = forkd(&mut command).stdout;
    let reason = format!(
        "# workers auto: 1 of {online} processors, which affinity leaves (sched_setaffinity, cpuset); for datagrams 1\n"
    );
    assert!(said.contains(&reason), "{said}");
}

both_ways! {
    fn auto_is_a_worker_for_each_processor_and_for_datagrams_one_fewer(way: Way) {
        let processors = std::thread::available_parallelism().unwrap().get();
        for (options, count) in [
            ("-m thread -w auto tcp://127.0.0.1:0", processors),
            ("-m prefork -w auto tcp://127.0.0.1:0", processors),
            ("-m event -w auto udp://127.0.0.1:0", (processors - 1).max(1)),
        ] {
            let daemon = Forkd::new(options).way(way).start();
            assert_eq!(daemon.children().len(), count, "{options}");
        }
    }

    fn one_worker_serves_one_after_the_other(way: Way) {
        let daemon = Forkd::new("-m iterative").way(way).start();
        assert_eq!((daemon.children().len(), &daemon.listener(0)["model"]), (1, &"iterative".into()));
        let mut slow = daemon.served();
        let mut quick = daemon.connect();
        std::io::Write::write_all(&mut quick, b"quick").unwrap();
        // that is what it costs: the quick one waits for the slow one
        assert!(is_silent(&quick, Duration::from_millis(300)));
        echoes(&mut slow, b"slow");
        drop(slow);
        let mut answer = [0; 5];
        std::io::Read::read_exact(&mut quick, &mut answer).unwrap();
        assert_eq!(&answer, b"quick");
        assert_eq!(daemon.children().len(), 1);
    }

    fn a_pool_for_datagrams_leaves_a_processor_to_the_kernel_unless_more_are_asked_for(way: Way) {
        let processors = std::thread::available_parallelism().unwrap().get();
        for (options, count) in [
            ("tcp://127.0.0.1:0", 8),
            ("udp://127.0.0.1:0", (processors - 1).clamp(1, 8)),
            ("-w 5 udp://127.0.0.1:0", 5),
            ("-w 3..5 udp://127.0.0.1:0", 3),
        ] {
            let daemon = Forkd::new(&format!("-m prefork {options}")).way(way).start();
            assert_eq!(daemon.children().len(), count, "{options}");
        }
    }

    fn an_elastic_pool_grows_and_shrinks(way: Way) {
        let daemon = Forkd::new("-m prefork -w 2..16 --min-spare 2 --max-spare 9").way(way).start();
        assert!((2..=4).contains(&daemon.children().len()));
        let mut held: Vec<Client> = (0..10).map(|_| daemon.connect()).collect();
        held.iter_mut().for_each(|client| echoes(client, b"x"));
        eventually("two are spare", || daemon.children().len() >= 12);
        // there is always a worker for one more
        echoes(&mut daemon.served(), b"y");
        assert!(daemon.children().len() <= 16);
        held.iter_mut().for_each(|client| echoes(client, b"z"));
        drop(held);
        daemon.settles_at(9);
        holds_for(Duration::from_millis(1500), "nine workers", || daemon.children().len() == 9);
        let l = daemon.listener(0);
        assert_eq!(l["deaths"].as_object().unwrap().keys().collect::<Vec<_>>(), ["retired"], "{l}");
        assert!(l["peak"].as_u64() <= Some(16), "{l}");
        // retired in the middle of nothing: no client has noticed
        short_connection(daemon.addr(), b"x").unwrap();
    }

    fn an_elastic_pool_stops_at_its_maximum(way: Way) {
        let daemon = Forkd::new("-m prefork -w 1..4").way(way).start();
        let mut held: Vec<Client> = (0..6).map(|_| daemon.connect()).collect();
        held[..4].iter_mut().for_each(|client| echoes(client, b"x"));
        assert!(is_silent(&held[4], Duration::from_millis(300)));
        assert_eq!(daemon.children().len(), 4);
        held.drain(..2);
        held[2..].iter_mut().for_each(|client| echoes(client, b"x"));
        assert!(daemon.children().len() <= 4);
    }

    fn signals_resize_the_pool(way: Way) {
        let daemon = Forkd::new("-m prefork -w 2").way(way).start();
        let resize = |signal: Signal, lines: usize, count: usize| {
            daemon.signal(signal);
            daemon.wait_for_lines(lines, "pool resized");
            daemon.settles_at(count);
        };
        let mut held = [daemon.served(), daemon.served()];
        resize(Signal::SIGTTIN, 1, 3);
        resize(Signal::SIGTTIN, 2, 4);
        // the idle ones leave first
        resize(Signal::SIGTTOU, 3, 3);
        resize(Signal::SIGTTOU, 4, 2);
        held.iter_mut().for_each(|client| echoes(client, b"x"));
        // a busy one leaves after its connection
        daemon.signal(Signal::SIGTTOU);
        daemon.wait_for_lines(5, "pool resized");
        held.iter_mut().for_each(|client| echoes(client, b"y"));
        let [first, second] = held;
        drop(first);
        drop(second);
        daemon.settles_at(1);
        resize(Signal::SIGTTOU, 6, 1);
        short_connection(daemon.addr(), b"x").unwrap();
        assert_eq!(daemon.listener(0)["deaths"], serde_json::json!({"retired": 3}));
    }

    fn recycling_loses_no_client(way: Way) {
        const CLIENTS: usize = 4;
        const CONNECTIONS: usize = 400;
        let daemon = Forkd::new("-m prefork -w 2 --max-connections-per-child 8").way(way).start();
        let (address, first) = (daemon.addr(), daemon.children());
        std::thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    (0..CONNECTIONS / CLIENTS).for_each(|_| short_connection(address, b"hello").unwrap());
                });
            }
        });
        eventually("all are counted", || daemon.listener(0)["connections"] == CONNECTIONS);
        daemon.settles_at(2);
        let l = daemon.listener(0);
        let recycled = l["deaths"]["recycled"].as_u64().unwrap() as usize;
        // after 7 or 8 each
        assert!((CONNECTIONS / 8 - 2..=CONNECTIONS / 7).contains(&recycled), "{l}");
        assert_eq!(l["deaths"].as_object().unwrap().len(), 1, "{l}");
        assert!(daemon.children().iter().all(|pid| !first.contains(pid)));
    }

    fn workers_that_die_at_once_end_the_daemon(way: Way) {
        let daemon = Forkd::new("-m prefork -w 2").way(way).launch();
        let status = {
            let mut status = None;
            within(Duration::from_secs(30), "the daemon gives up", || {
                // they may be gone before the signal comes
                daemon.children().into_iter().for_each(|pid| {
                    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
                });
                status = daemon.ended();
                status.is_some()
            });
            status.unwrap()
        };
        assert_eq!(status.code(), Some(70), "{status}");
        let line = daemon.wait_for_line("die before they have served a client");
        assert!(line.starts_with("forkd: error: ") && line.contains(&daemon.endpoint(0)), "{line}");
        // such lines are limited
        assert!(daemon.count_lines("worker was killed") >= 5);
        eventually("no process is left", || daemon.is_gone());
    }
}

#[test]
fn a_dead_worker_is_replaced_soon_and_often() {
    let daemon = Daemon::start("-m prefork -w 3");
    for round in 1..=20 {
        // having served, it is no failed start
        let client = daemon.served();
        let pid = daemon.server_of(&client);
        signal(pid, Signal::SIGKILL);
        eventually("another takes its place", || {
            let children = daemon.children();
            children.len() == 3 && !children.contains(&pid)
        });
        eventually("it is counted", || daemon.deaths(0, "SIGKILL") == round);
    }
    short_connection(daemon.addr(), b"x").unwrap();
}

/// Or clients that stay could have as many processes as they like.
#[test]
fn only_so_many_workers_are_at_their_limit_and_serve_those_that_stay() {
    for model in ["thread", "thread --threads 30", "event", "coroutine"] {
        let daemon = Daemon::start(&format!("-m {model} -w 2 --max-connections-per-child 2"));
        let mut clients: Vec<Client> = (0..60).map(|_| daemon.served()).collect();
        // 16 that leave, and two that don't; some more while the master counts
        assert!(daemon.children().len() <= 22, "{model}: {:?}", daemon.children());
        clients.iter_mut().for_each(|client| echoes(client, b"still there?"));
        drop(clients);
        eventually(&format!("{model}: those at their limit are replaced"), || {
            daemon.deaths(0, "recycled") >= 2
        });
        echoes(&mut daemon.connect(), b"and it goes on");
    }
}
