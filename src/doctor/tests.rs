use std::fs;
use std::path::Path;

use super::facts::{Facts, Limit, Room};
use super::finding::{Finding, Verdict};
use super::group::{Ceiling, Group};
use super::kernel::Kernel;
use super::need::Need;
use super::{Diagnosis, diagnose, lacks};
use crate::config::{Config, Sources};
use forkd_server::sandbox::Level;

/// A machine as Debian installs it, and a session of a user.
fn debian() -> Facts {
    let room = |most, used| Ok(Room { most, used });
    Facts {
        system: "Linux 6.12".into(),
        open_files: Ok(Limit { soft: 1024, hard: 524_288 }),
        most_open_files: Ok(1_048_576),
        all_open_files: room(u64::MAX >> 1, 2000),
        processes: Ok(Limit { soft: 31_000, hard: 31_000 }),
        is_root: false,
        pid_max: room(4_194_304, 300),
        threads_max: room(62_000, 300),
        group: Group {
            path: Ok("/user.slice/user-1000.slice/session-2.scope".into()),
            tasks: Ok(Some(Ceiling {
                room: Room { most: 20_000, used: 100 },
                file: "/sys/fs/cgroup/user.slice/user-1000.slice/pids.max".into(),
            })),
            memory: Ok(None),
            pressure: Ok(0.0),
        },
        listen_queue: Ok(4096),
        half_open: Ok((1024, true)),
        receive_buffer: Ok((212_992, 212_992)),
        tracked: Ok(None),
        ports: Ok((32_768, 60_999)),
        reuses_ports: Ok(2),
        mappings: Ok(1_048_576),
        overcommit: Ok(0),
        huge_pages: Ok("always".into()),
        memory: Ok(8 << 30),
        processors: "4".into(),
        kernel: Kernel { landlock: Some(6), ..Kernel::default() },
    }
}

/// What this configuration needs, for so many connections.
fn need(toml: &str, connections: Option<u64>) -> Need {
    let config = Config::written(toml, Path::new("/"), |_| None).unwrap();
    Need::of(&config, !toml.is_empty(), connections, None)
}

fn with(model: &str) -> String {
    format!("[[listen]]\nendpoints = [\"tcp://127.0.0.1:7\"]\n{model}\n")
}

fn finding<'a>(diagnosis: &'a Diagnosis, limit: &str) -> &'a Finding {
    diagnosis.findings.iter().find(|finding| finding.limit == limit).unwrap_or_else(|| panic!("no {limit}"))
}

#[test]
fn a_usual_machine_raises_no_alarm() {
    let diagnosis = diagnose(&debian(), &need("", None));
    assert_eq!(diagnosis.limiting, 0);
    assert!(diagnosis.findings.iter().all(|it| it.verdict == Verdict::Ok), "{}", diagnosis.text());
    // and says what it allows
    let files = finding(&diagnosis, "open files (ulimit -n)");
    assert!(files.meaning.contains("at most 960 workers") && files.meaning.contains("524,224"), "{files:?}");
    assert!(diagnosis.text().ends_with("\nnothing limits what is asked\n"));
}

#[test]
fn without_a_question_nothing_is_a_failure() {
    let facts = Facts { listen_queue: Ok(16), pid_max: Ok(Room { most: 500, used: 300 }), ..debian() };
    let diagnosis = diagnose(&facts, &need("", None));
    assert_eq!(diagnosis.limiting, 0);
    for limit in ["net.core.somaxconn", "kernel.pid_max"] {
        assert_eq!(finding(&diagnosis, limit).verdict, Verdict::Tight);
    }
}

#[test]
fn what_leaves_no_room_for_clients_is_named_with_what_raises_it() {
    assert_eq!(lacks(&debian(), 900), None);
    let low = Facts { processes: Ok(Limit { soft: 100, hard: 200 }), ..debian() };
    let lack = lacks(&low, 200).unwrap();
    assert_eq!(lack, "processes (ulimit -u) is 100 (raise it: ulimit -u 301)");
    // a worker of thread has a descriptor for each
    assert!(lacks(&debian(), 2000).unwrap().starts_with("open files (ulimit -n) is 1,024, hard "));
}

/// A limit that is too low for a configuration and so many connections, and what mends it.
struct Case {
    lower: fn(&mut Facts),
    config: &'static str,
    connections: Option<u64>,
    limit: &'static str,
    now: &'static str,
}

#[test]
fn each_limit_that_is_too_low_is_found_with_what_mends_it() {
    let fork = "max-children = 10000";
    let cases = [
        Case {
            lower: |it| it.listen_queue = Ok(128),
            config: "backlog = 512",
            connections: None,
            limit: "net.core.somaxconn",
            now: "sysctl -w net.core.somaxconn=\"512\"",
        },
        Case {
            lower: |it| it.tracked = Ok(Some(Room { most: 8192, used: 10 })),
            config: "model = \"event\"",
            connections: Some(10_000),
            limit: "nf_conntrack_max",
            now: "sysctl -w net.netfilter.nf_conntrack_max=\"20010\"",
        },
        Case {
            lower: |it| it.pid_max = Ok(Room { most: 8000, used: 100 }),
            config: fork,
            connections: Some(10_000),
            limit: "kernel.pid_max",
            now: "sysctl -w kernel.pid_max=\"16384\"",
        },
        Case {
            lower: |it| it.threads_max = Ok(Room { most: 8000, used: 100 }),
            config: fork,
            connections: Some(10_000),
            limit: "kernel.threads-max",
            now: "sysctl -w kernel.threads-max=\"16384\"",
        },
        Case {
            lower: |it| it.processes = Ok(Limit { soft: 100, hard: 200 }),
            config: fork,
            connections: Some(200),
            limit: "processes (ulimit -u)",
            now: "ulimit -u 301",
        },
        Case {
            lower: |it| {
                it.group.tasks = Ok(Some(Ceiling {
                    room: Room { most: 100, used: 10 },
                    file: "/sys/fs/cgroup/system.slice/forkd.service/pids.max".into(),
                }));
            },
            config: fork,
            connections: Some(200),
            limit: "pids.max",
            now: "systemctl set-property --runtime forkd.service TasksMax=240",
        },
        Case {
            lower: |it| {
                let room = Room { most: 100 << 20, used: 90 << 20 };
                it.group.memory = Ok(Some(Ceiling { room, file: "/sys/fs/cgroup/memory.max".into() }));
            },
            config: fork,
            connections: Some(1000),
            limit: "memory.max",
            now: "echo 299335680 > /sys/fs/cgroup/memory.max",
        },
        Case {
            lower: |it| it.memory = Ok(50 << 20),
            config: fork,
            connections: Some(1000),
            limit: "memory",
            now: "forkd serve --model event",
        },
        Case {
            lower: |it| it.open_files = Ok(Limit { soft: 1024, hard: 4096 }),
            config: "model = \"event\"",
            connections: Some(5000),
            limit: "open files (ulimit -n)",
            now: "ulimit -n 5842",
        },
        Case {
            lower: |_| {},
            config: "model = \"prefork\"\nworkers = 2000",
            connections: None,
            limit: "open files (ulimit -n)",
            now: "ulimit -n 2413",
        },
        Case {
            lower: |it| it.mappings = Ok(65_530),
            config: "model = \"coroutine\"",
            connections: Some(40_000),
            limit: "vm.max_map_count",
            now: "sysctl -w vm.max_map_count=\"120500\"",
        },
        Case {
            lower: |_| {},
            config: "max-children = 100",
            connections: Some(200),
            limit: "places for connections",
            now: "forkd serve --max-children 200",
        },
        Case {
            lower: |_| {},
            config: "model = \"prefork\"",
            connections: Some(200),
            limit: "places for connections",
            now: "forkd serve --workers 8..200",
        },
        Case {
            lower: |it| it.all_open_files = Ok(Room { most: 9000, used: 100 }),
            config: "model = \"event\"",
            connections: Some(9000),
            limit: "fs.file-max",
            now: "sysctl -w fs.file-max=\"18100\"",
        },
    ];
    for Case { lower, config, connections, limit, now } in cases {
        let need = need(&with(config), connections);
        let was = diagnose(&debian(), &need);
        let mut facts = debian();
        lower(&mut facts);
        let diagnosis = diagnose(&facts, &need);
        let found = finding(&diagnosis, limit);
        assert_eq!(found.verdict, Verdict::Limits, "{limit}: {found:?}");
        assert_eq!(found.mend.as_ref().map(|mend| mend.now.as_str()), Some(now), "{limit}");
        assert!(diagnosis.comments().contains(limit), "{limit}");
        // the worst comes first, and it is this limit that makes the difference
        assert_eq!(diagnosis.findings[0].verdict, Verdict::Limits);
        assert!(was.limiting < diagnosis.limiting || was.limiting == 1, "{limit}: {}", was.text());
    }
}

#[test]
fn a_receive_buffer_and_a_strict_sandbox_are_limited_by_the_kernel() {
    let toml = "[[listen]]\nendpoints = [\"udp://127.0.0.1:7\"]\nreceive-buffer = 1000000\n[daemon]\nsandbox = \"strict\"\n";
    let asked = need(toml, None);
    assert_eq!(asked.sandbox, Level::Strict);
    let mut facts = debian();
    facts.kernel.gap = Some("Landlock");
    let diagnosis = diagnose(&facts, &asked);
    assert_eq!(diagnosis.limiting, 2, "{}", diagnosis.text());
    let buffer = finding(&diagnosis, "net.core.rmem_max");
    assert_eq!(buffer.mend.as_ref().unwrap().now, "sysctl -w net.core.rmem_max=\"1000000\"");
    assert!(finding(&diagnosis, "sandbox").meaning.contains("no Landlock"));
    facts.kernel.gap = None;
    facts.receive_buffer = Ok((212_992, 1_000_000));
    assert_eq!(diagnose(&facts, &asked).limiting, 0);
}

#[test]
fn what_is_only_slower_or_of_the_moment_is_tight() {
    let mut facts = debian();
    facts.overcommit = Ok(2);
    facts.group.pressure = Ok(35.0);
    facts.kernel.missing = vec![("clone3", "Operation not permitted".into())];
    facts.half_open = Ok((128, false));
    facts.tracked = Ok(Some(Room { most: 10, used: 0 }));
    let asked = need(&with("model = \"fork\""), Some(500));
    let diagnosis = diagnose(&facts, &asked);
    for limit in [
        "vm.overcommit_memory",
        "memory pressure",
        "system calls",
        "net.ipv4.tcp_max_syn_backlog",
        "nf_conntrack_max",
    ] {
        assert_eq!(finding(&diagnosis, limit).verdict, Verdict::Tight, "{limit}");
    }
    let calls = &finding(&diagnosis, "system calls").meaning;
    assert!(calls.starts_with("clone3: Operation not permitted; forkd forks by fork(2)"), "{calls}");
    assert_eq!(diagnosis.limiting, 0);
}

#[test]
fn where_there_is_no_proc_it_says_so_and_fails_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let facts = Facts::read(dir.path(), Kernel::default());
    let diagnosis = diagnose(&facts, &need(&with("model = \"event\""), Some(10_000)));
    assert_eq!(diagnosis.limiting, 0, "{}", diagnosis.text());
    let queue = finding(&diagnosis, "net.core.somaxconn");
    assert_eq!(
        (queue.verdict, queue.meaning.as_str()),
        (Verdict::Unknown, "Because this system has no /proc.")
    );
    assert!(diagnosis.text().contains(" not known\n"));
}

/// A root directory with these files.
fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

#[test]
fn facts_are_what_the_files_say() {
    let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
        Max processes             unlimited            unlimited            processes \n\
        Max open files            1024                 524288               files     \n";
    let dir = root(&[
        ("proc/self/limits", limits),
        ("proc/loadavg", "0.10 0.20 0.30 2/345 6789\n"),
        ("proc/sys/kernel/pid_max", "32768\n"),
        ("proc/sys/fs/file-nr", "9652\t0\t2466170\n"),
        ("proc/sys/net/core/somaxconn", "many\n"),
        ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
        ("proc/meminfo", "MemTotal:  100 kB\nMemAvailable:     64 kB\n"),
        ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n"),
    ]);
    let facts = Facts::read(dir.path(), Kernel::default());
    assert_eq!(facts.open_files, Ok(Limit { soft: 1024, hard: 524_288 }));
    assert_eq!(facts.processes, Ok(Limit { soft: u64::MAX, hard: u64::MAX }));
    assert_eq!(facts.pid_max, Ok(Room { most: 32_768, used: 345 }));
    assert_eq!(facts.all_open_files, Ok(Room { most: 2_466_170, used: 9652 }));
    assert_eq!(facts.ports, Ok((32_768, 60_999)));
    assert_eq!(facts.memory, Ok(64 << 10));
    assert_eq!(facts.huge_pages.as_deref(), Ok("madvise"));
    assert_eq!(facts.tracked, Ok(None));
    assert_eq!(facts.listen_queue, Err("/proc/sys/net/core/somaxconn says something else than usual".into()));
    let absent = facts.mappings.unwrap_err();
    assert!(absent.starts_with("/proc/sys/vm/max_map_count cannot be read: "), "{absent}");
}

#[test]
fn the_narrowest_group_counts() {
    let unified = "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
    let dir = root(&[
        ("proc/self/cgroup", "0::/system.slice/forkd.service\n"),
        ("proc/self/mountinfo", unified),
        ("sys/fs/cgroup/system.slice/pids.max", "500\n"),
        ("sys/fs/cgroup/system.slice/pids.current", "480\n"),
        ("sys/fs/cgroup/system.slice/forkd.service/pids.max", "100\n"),
        ("sys/fs/cgroup/system.slice/forkd.service/pids.current", "10\n"),
        ("sys/fs/cgroup/system.slice/forkd.service/memory.max", "max\n"),
        ("sys/fs/cgroup/system.slice/forkd.service/memory.current", "4096\n"),
        (
            "sys/fs/cgroup/system.slice/forkd.service/memory.pressure",
            "some avg10=1.00 avg60=2.50 avg300=0.00 total=7\n",
        ),
    ]);
    let group = Facts::read(dir.path(), Kernel::default()).group;
    let tasks = group.tasks.clone().unwrap().unwrap();
    assert_eq!(tasks.room, Room { most: 500, used: 480 });
    assert_eq!(tasks.unit(), Some("system.slice"));
    assert_eq!((group.memory.clone(), group.pressure.clone()), (Ok(None), Ok(2.5)));
    assert_eq!(group.service(), Some("forkd.service"));

    let legacy = "39 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
    let dir = root(&[
        ("proc/self/cgroup", "8:pids:/a\n4:memory:/\n0::/\n"),
        ("proc/self/mountinfo", legacy),
        ("sys/fs/cgroup/pids/a/pids.max", "50\n"),
        ("sys/fs/cgroup/pids/a/pids.current", "3\n"),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ("sys/fs/cgroup/memory/memory.usage_in_bytes", "1000\n"),
    ]);
    let group = Facts::read(dir.path(), Kernel::default()).group;
    assert_eq!(group.tasks.unwrap().unwrap().room, Room { most: 50, used: 3 });
    assert_eq!(group.memory, Ok(None));
}

#[test]
fn text_has_eighty_columns_but_for_what_is_to_be_copied() {
    let facts = Facts { listen_queue: Ok(16), pid_max: Err("x".repeat(50)), ..debian() };
    let text = diagnose(&facts, &need(&with("model = \"event\""), Some(10_000))).text();
    let is_long = |line: &&str| line.chars().count() > 80;
    let long: Vec<&str> = text.lines().filter(is_long).collect();
    let is_command =
        |line: &&str| ["now: ", "for good: "].iter().any(|head| line.trim_start().starts_with(head));
    assert!(long.iter().all(is_command), "{long:#?}");
    assert!(text.contains("\n         now: sysctl -w net.core.somaxconn=\"4096\"\n"), "{text}");
}

#[test]
fn nothing_said_is_nothing_asked() {
    assert_eq!(Sources::default(), Sources::new(Default::default(), []).unwrap().0);
}
