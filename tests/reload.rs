//! A reload: what stays, what changes, and what is refused.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::*;
use nix::sys::signal::Signal;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

const FORK: &str = "model = 'fork'";
const POOL: &str = "model = 'prefork'\nworkers = 3";
const THREADS: &str = "model = 'thread'";

/// A daemon with a configuration file that can be written anew.
struct Reloadable {
    daemon: Daemon,
}

impl Reloadable {
    fn start(way: Way, toml: &str) -> Self {
        Self::launch(Forkd::new("--config {dir}/forkd.toml").way(way), toml)
    }

    fn launch(forkd: Forkd, toml: &str) -> Self {
        write(forkd.dir.path(), toml);
        Self { daemon: forkd.start() }
    }

    fn reload(&self) -> Ended {
        forkd(forkd_command().arg("reload").arg("--control").arg(self.daemon.control()))
    }

    /// Puts a configuration in force.
    #[track_caller]
    fn becomes(&self, toml: &str) {
        write(&self.daemon.path(""), toml);
        let ended = self.reload();
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{:?}", self.daemon.log());
    }

    /// Tries to, in vain; returns why.
    #[track_caller]
    fn refuses(&self, toml: &str, code: i32) -> String {
        write(&self.daemon.path(""), toml);
        let ended = self.reload();
        assert_eq!(ended.code, Some(code), "{}", ended.stderr);
        assert!(
            ended.stderr.starts_with("forkd: error: reload failed, the old configuration stays in force: "),
            "{}",
            ended.stderr
        );
        self.daemon.wait_for_line("reload failed, the old configuration stays in force: ");
        ended.stderr
    }

    /// Stops it while a reload can't get all its workers, which is refused for that reason.
    #[track_caller]
    fn stops_in_a_reload(&self) {
        std::thread::scope(|scope| {
            let reload = scope.spawn(|| self.reload());
            self.daemon.wait_for_line("cannot fork a worker");
            self.daemon.signal(Signal::SIGTERM);
            let ended = reload.join().unwrap();
            let why = "forkd: error: reload failed, the old configuration stays in force: the daemon stops\n";
            assert_eq!((ended.code, ended.stderr.as_str()), (Some(78), why));
        });
    }

    /// The socket that it listens on: its inode.
    fn socket(&self) -> String {
        let port = self.daemon.addr().port();
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let listens = |line: &&str| line.contains(&format!(":{port:04X} 00000000:0000 0A"));
        table.lines().find(listens).unwrap().split_whitespace().nth(9).unwrap().to_owned()
    }
}

fn write(dir: &Path, toml: &str) {
    std::fs::write(dir.join("forkd.toml"), toml).unwrap();
}

/// Whether the kernel keeps connections back that have brought nothing yet (tcp(7), TCP_DEFER_ACCEPT); `None` where the
/// daemon's descriptors can't be had.
fn defers_accept(daemon: &Daemon) -> Option<bool> {
    let pid = Pid::from_raw(daemon.pid()).unwrap();
    let process = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    for (number, _) in fds_of(daemon.pid()) {
        let socket = match pidfd_getfd(&process, number, PidfdGetfdFlags::empty()) {
            Err(Errno::BADF) => continue,
            Err(error) => {
                need(
                    false,
                    &format!("no descriptor of another process can be had (pidfd_getfd(2): {error})"),
                );
                return None;
            }
            Ok(socket) => socket,
        };
        let (mut limit, mut length) = (0_i32, size_of::<i32>() as libc::socklen_t);
        // SAFETY: the kernel writes at most `length` bytes to `limit`, and their number to `length`.
        let answer = unsafe {
            let (limit, length) = ((&raw mut limit).cast(), &raw mut length);
            libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, limit, length)
        };
        if answer == 0 {
            return Some(limit > 0);
        }
    }
    panic!("it has no socket of TCP");
}

/// One group on a port that the kernel chooses.
fn tcp(options: &str) -> String {
    format!("[[listen]]\nendpoints = ['tcp://127.0.0.1:0']\n{options}\n")
}

both_ways! {
    fn the_socket_and_its_connections_stay_and_workers_are_renewed(way: Way) {
        for (options, workers) in [(FORK, 0), (POOL, 3), (THREADS, 1), ("model = 'thread'\nthreads = 3", 1)] {
            let forkd = Reloadable::start(way, &tcp(options));
            let mut client = forkd.daemon.served();
            let (socket, before) = (forkd.socket(), forkd.daemon.children());
            forkd.becomes(&tcp(options));
            assert_eq!(forkd.socket(), socket);
            echoes(&mut client, b"still here");
            let server = forkd.daemon.server_of(&client);
            assert!(before.contains(&server));
            short_connection(forkd.daemon.addr(), b"x").unwrap();
            forkd.daemon.settles_at(workers + 1);
            drop(client);
            forkd.daemon.settles_at(workers);
            assert!(forkd.daemon.children().iter().all(|child| !before.contains(child)));
            let l = forkd.daemon.listener(0);
            assert_eq!((&l["alive"], &l["connections"]), (&workers.into(), &2.into()), "{l}");
        }
    }

    fn the_new_limits_are_in_force_when_it_returns(way: Way) {
        let forkd = Reloadable::start(way, &tcp("max-children = 1"));
        let mut first = forkd.daemon.served();
        let mut second = forkd.daemon.connect();
        echoes(&mut first, b"x");
        assert!(is_silent(&second, std::time::Duration::from_millis(200)));
        forkd.becomes(&tcp("max-children = 2"));
        echoes(&mut second, b"y");
        // and less again: no client is sent away for it
        forkd.becomes(&tcp("max-children = 1\noverflow = 'reject'"));
        echoes(&mut first, b"x");
        echoes(&mut second, b"y");
        assert!(short_connection(forkd.daemon.addr(), b"z").is_err());
    }

    fn new_connections_get_the_new_keepalive(way: Way) {
        for model in [FORK, POOL, THREADS] {
            let forkd = Reloadable::start(way, &tcp(&format!("{model}\nkeepalive = '10m'")));
            let due = || keepalive_due(&forkd.daemon.served()).map(|due| due.as_secs());
            assert!(due() > Some(200), "{:?}", due());
            forkd.becomes(&tcp(&format!("{model}\nkeepalive = '20s'")));
            assert!(due() <= Some(10) && due().is_some(), "{:?}", due());
            forkd.becomes(&tcp(&format!("{model}\nkeepalive = 'off'")));
            assert_eq!(due(), None);
            forkd.becomes(&tcp(model));
            assert!(due() > Some(10), "{:?}", due());
        }
    }

    /// A service that speaks first has its clients at once, wherever http has been before.
    fn clients_are_waited_for_as_the_new_service_needs(way: Way) {
        for model in [FORK, POOL, THREADS] {
            let forkd = Reloadable::start(way, &tcp(&format!("{model}\nservice = 'http'")));
            let Some(defers) = defers_accept(&forkd.daemon) else { return };
            assert!(defers, "{model}");
            for (service, expected) in [("daytime", false), ("http", true), ("echo", false)] {
                forkd.becomes(&tcp(&format!("{model}\nservice = '{service}'")));
                assert_eq!(defers_accept(&forkd.daemon), Some(expected), "{model}, {service}");
            }
        }
    }

    fn a_pool_takes_its_new_size(way: Way) {
        let forkd = Reloadable::start(way, &tcp(POOL));
        for workers in [5, 2] {
            forkd.becomes(&tcp(&format!("model = 'prefork'\nworkers = {workers}")));
            forkd.daemon.settles_at(workers);
            short_connection(forkd.daemon.addr(), b"x").unwrap();
        }
        forkd.becomes(&tcp("model = 'prefork'\nworkers = '1..8'\nmin-spare = 2"));
        let mut held: Vec<Client> = (0..5).map(|_| forkd.daemon.connect()).collect();
        held.iter_mut().for_each(|client| echoes(client, b"x"));
        eventually("the pool has grown", || forkd.daemon.children().len() >= 7);
    }

    fn the_model_changes_under_the_same_socket(way: Way) {
        let forkd = Reloadable::start(way, &tcp(FORK));
        let mut held = Vec::new();
        let event = "model = 'event'";
        for (options, model) in [
            (POOL, "prefork"),
            (event, "event"),
            (FORK, "fork"),
            (THREADS, "thread"),
            (event, "event"),
            (FORK, "fork"),
            (POOL, "prefork"),
        ] {
            held.push(forkd.daemon.served());
            forkd.becomes(&tcp(options));
            assert_eq!(forkd.daemon.listener(0)["model"], model);
            held.iter_mut().for_each(|client| echoes(client, b"x"));
            short_connection(forkd.daemon.addr(), b"y").unwrap();
        }
        drop(held);
        forkd.daemon.settles_at(3);
        // the last of the fork model's children have been noticed too
        eventually("all are reaped", || forkd.daemon.listener(0)["alive"] == 3);
    }

    fn endpoints_come_and_go(way: Way) {
        for options in [FORK, POOL] {
            let dir = tempfile::tempdir().unwrap();
            let unix = |name: &str| dir.path().join(name);
            let group = |name: &str| {
                format!("[[listen]]\nendpoints = ['unix://{}']\n{options}\n", unix(name).display())
            };
            let forkd = Reloadable::start(way, &(tcp(options) + &group("a")));
            let mut held = UnixStream::connect(unix("a")).unwrap();
            echoes(&mut held, b"x");
            forkd.becomes(&(tcp(options) + &group("b")));
            echoes(&mut UnixStream::connect(unix("b")).unwrap(), b"y");
            eventually("the old socket is gone", || !unix("a").exists());
            // the counters of a child that is left have their place still
            echoes(&mut held, b"x");
            let endpoints = |forkd: &Reloadable| forkd.daemon.status()["listeners"].as_array().unwrap().len();
            assert_eq!(endpoints(&forkd), 3);
            drop(held);
            eventually("it is forgotten", || endpoints(&forkd) == 2);
            // and may come again
            forkd.becomes(&(tcp(options) + &group("a")));
            echoes(&mut UnixStream::connect(unix("a")).unwrap(), b"z");
            forkd.becomes(&tcp(options));
            short_connection(forkd.daemon.addr(), b"x").unwrap();
        }
    }

    fn what_is_wrong_changes_nothing(way: Way) {
        for options in [FORK, POOL] {
            let forkd = Reloadable::start(way, &tcp(options));
            let mut client = forkd.daemon.served();
            let before = forkd.daemon.children();
            let why = forkd.refuses("[[listen]]\nmodel = 'green'\n", 78);
            assert!(why.contains("forkd.toml:2:9: unknown variant `green`"), "{why}");
            let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let endpoint = format!("tcp://{}", taken.local_addr().unwrap());
            let why = forkd.refuses(&format!("{}[[listen]]\nendpoints = ['{endpoint}']\n", tcp(options)), 69);
            assert!(why.contains(&format!("cannot bind {endpoint}")), "{why}");
            let why = forkd.refuses(&format!("[daemon]\nuser = 'nobody'\n{}", tcp(options)), 78);
            assert!(why.contains("user is another one") && why.contains("needs a restart"), "{why}");
            std::fs::remove_file(forkd.daemon.path("forkd.toml")).unwrap();
            assert!(forkd.reload().stderr.contains("No such file"));
            assert_eq!(forkd.daemon.children(), before);
            echoes(&mut client, b"all well");
            short_connection(forkd.daemon.addr(), b"x").unwrap();
            forkd.becomes(&tcp(options));
        }
    }

    fn sighup_asks_for_it_too(way: Way) {
        let forkd = Reloadable::start(way, &tcp(POOL));
        let mut client = forkd.daemon.served();
        write(&forkd.daemon.path(""), &format!("[daemon]\nlog-level = 'debug'\n{}", tcp("model = 'prefork'\nworkers = 1")));
        forkd.daemon.signal(Signal::SIGHUP);
        forkd.daemon.wait_for_line("the new configuration is in force");
        echoes(&mut client, b"x");
        drop(client);
        forkd.daemon.settles_at(1);
        // the level of the log is a new one, too
        short_connection(forkd.daemon.addr(), b"x").unwrap();
        forkd.daemon.wait_for_line("connection closed");
    }

    fn not_one_connection_is_lost_in_fifty_reloads(way: Way) {
        for models in [[FORK, FORK], [POOL, POOL], [FORK, POOL], [FORK, THREADS], [THREADS, POOL]] {
            let forkd = Reloadable::start(way, &tcp(models[0]));
            let (address, over, served) = (forkd.daemon.addr(), AtomicBool::new(false), AtomicU64::new(0));
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        while !over.load(Ordering::Relaxed) {
                            short_connection(address, b"hello").expect("a connection in the middle of a reload");
                            served.fetch_add(1, Ordering::Relaxed);
                        }
                    });
                }
                for turn in 0..50 {
                    let before = served.load(Ordering::Relaxed);
                    forkd.becomes(&tcp(models[turn % 2]));
                    eventually("a client is served", || served.load(Ordering::Relaxed) > before);
                }
                over.store(true, Ordering::Relaxed);
            });
            eventually("all is counted", || {
                forkd.daemon.listener(0)["connections"] == served.load(Ordering::Relaxed)
            });
            assert_eq!(forkd.daemon.count_lines("the new configuration is in force"), 50);
        }
    }

    fn a_stop_in_the_middle_of_reloads_is_a_stop(way: Way) {
        let forkd = Reloadable::start(way, &tcp(POOL));
        let _held = forkd.daemon.served();
        for _ in 0..5 {
            forkd.daemon.signal(Signal::SIGHUP);
        }
        forkd.daemon.signal(Signal::SIGQUIT);
        assert!(forkd.daemon.wait().success());
        eventually("no process is left", || forkd.daemon.is_gone());
    }

    fn workers_that_can_t_be_started_leave_the_old_ones_at_work(way: Way) {
        if !need_root() {
            return;
        }
        let forkd = few_processes(way, "", 3);
        let why = forkd.refuses(&pool(4), 71);
        assert!(why.contains("cannot fork the workers"), "{why}");
        short_connection(forkd.daemon.addr(), b"x").unwrap();
        forkd.daemon.settles_at(2);
    }

    fn a_reload_that_can_t_be_completed_ends_and_holds_up_no_client(way: Way) {
        if !need_root() {
            return;
        }
        // two more workers come up, a third does not
        let forkd = few_processes(way, "", 5);
        write(&forkd.daemon.path(""), &pool(4));
        let clients: Vec<UnixStream> = (0..20)
            .map(|_| {
                let mut client = UnixStream::connect(forkd.daemon.control()).unwrap();
                client.write_all(b"reload\n").unwrap();
                client
            })
            .collect();
        forkd.daemon.wait_for_line("cannot fork a worker");
        // those that wait, and those that have gone, leave room for others
        assert_eq!(forkd.daemon.listener(0)["model"], "prefork");
        drop(clients);
        assert_eq!(forkd.daemon.listener(0)["model"], "prefork");
        forkd.daemon.wait_for_line("reload failed, the old configuration stays in force: cannot fork the workers of");
        forkd.daemon.settles_at(2);
        forkd.becomes(&pool(1));
        forkd.daemon.settles_at(1);
    }

    fn a_stop_does_not_put_a_new_configuration_in_force(way: Way) {
        if !need_root() {
            return;
        }
        let forkd = few_processes(way, "", 5);
        let _held = forkd.daemon.served();
        write(&forkd.daemon.path(""), &format!("[daemon]\ngrace = '1h'\nlog-level = 'warn'\n{}", pool(4)));
        forkd.stops_in_a_reload();
        assert!(forkd.daemon.wait_for_line("stopping").contains("grace=10s"), "{:?}", forkd.daemon.log());
        assert_eq!(forkd.daemon.count_lines("the new configuration is in force"), 0);
    }

    fn a_drain_gives_up_a_reload_that_goes_on_and_serves_clients_until_its_delay_is_over(way: Way) {
        if !need_root() {
            return;
        }
        let forkd = few_processes(way, "--drain-delay 1h", 5);
        let mut held = forkd.daemon.served();
        write(&forkd.daemon.path(""), &pool(4));
        forkd.stops_in_a_reload();
        forkd.daemon.wait_for_line("draining");
        // those of the old configuration
        forkd.daemon.settles_at(2);
        short_connection(forkd.daemon.addr(), b"x").unwrap();
        // and the next one is refused as well
        assert!(forkd.refuses(&pool(1), 78).contains("the daemon stops"));
        short_connection(forkd.daemon.addr(), b"x").unwrap();
        echoes(&mut held, b"still here");
        forkd.daemon.signal(Signal::SIGTERM);
        forkd.daemon.wait_for_line("stopping");
        drop(held);
        assert!(forkd.daemon.wait().success());
    }

    fn an_endpoint_whose_workers_are_busy_is_given_up_after_the_grace_time(way: Way) {
        for options in [
            "model = 'fork'\nmax-children = 1",
            "model = 'prefork'\nworkers = 1",
            "model = 'thread'\nmax-threads = 1",
            "model = 'thread'\nthreads = 1",
        ] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("a");
            let daemon = "[daemon]\ngrace = '500ms'\n";
            let both = format!("{daemon}{}[[listen]]\nendpoints = ['unix://{}']\n{options}\n", tcp(FORK), path.display());
            let forkd = Reloadable::start(way, &both);
            let mut held = UnixStream::connect(&path).unwrap();
            echoes(&mut held, b"x");
            forkd.becomes(&(daemon.to_owned() + &tcp(FORK)));
            eventually("it is given up", || UnixStream::connect(&path).is_err());
            echoes(&mut held, b"still here");
            // and may come again, beside the one that is held
            forkd.becomes(&both);
            echoes(&mut UnixStream::connect(&path).unwrap(), b"y");
            echoes(&mut held, b"still here");
        }
    }

    fn what_does_not_concern_a_socket_does_not_keep_it_from_going_on(way: Way) {
        let forkd = Reloadable::start(way, &tcp(FORK));
        let socket = forkd.socket();
        let mixed = "[[listen]]\nendpoints = ['tcp://127.0.0.1:0', 'tcp://[::1]:0']\nv6only = true\nbacklog = 7\n";
        forkd.becomes(mixed);
        assert_eq!(forkd.socket(), socket);
        let overlap = format!("[[listen]]\nendpoints = ['tcp://0.0.0.0:{}']\n", forkd.daemon.addr().port());
        let why = forkd.refuses(&overlap, 69);
        assert!(why.contains("a reload can't take it from the old configuration, a restart can"), "{why}");
    }
}

fn pool(workers: u32) -> String {
    tcp(&format!("model = 'prefork'\nworkers = {workers}"))
}

/// A pool of two whose user may have so many processes.
fn few_processes(way: Way, args: &str, processes: u64) -> Reloadable {
    let base = Forkd::new(&format!("--config {{dir}}/forkd.toml {args}")).way(way).uid(own_user());
    let forkd = Reloadable::launch(base, &pool(2));
    forkd.daemon.set_limit(libc::RLIMIT_NPROC, processes);
    forkd
}

#[test]
fn under_another_root_the_file_is_looked_for_there() {
    if !need_root() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let forkd = Forkd::new("--config {dir}/forkd.toml").arg("--chroot").arg(root.path().to_str().unwrap());
    let toml = tcp(FORK);
    let forkd = Reloadable::launch(forkd, &toml);
    let why = forkd.refuses(&toml, 78);
    let expected = format!("(looked for below the root directory {})", root.path().display());
    assert!(why.contains("No such file") && why.contains(&expected), "{why}");
    let dir = forkd.daemon.path("");
    let inside = root.path().join(dir.strip_prefix("/").unwrap());
    std::fs::create_dir_all(&inside).unwrap();
    write(&inside, "[[listen]]\nmodel = 'green'\n");
    let why = forkd.refuses(&toml, 78);
    assert!(why.contains("unknown variant `green`") && !why.contains("below"), "{why}");
    write(&inside, &toml);
    forkd.becomes(&toml);
}
