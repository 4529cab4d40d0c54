//! What a process can do that serves clients, tried from inside: with the sandbox, and without.
#![cfg(target_os = "linux")]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixListener;
use std::process::{Child, Command};

use common::*;

const MODELS: [&str; 7] = ["fork", "spare", "prefork", "iterative", "thread", "event", "coroutine"];

/// What is refused to each, whether strict or not; the argument is a number of a process, an address, or a file.
const ATTEMPTS: [(&str, Argument); 26] = [
    ("read", Argument::File),
    ("write", Argument::File),
    ("remove", Argument::Victim),
    ("connect", Argument::Server),
    ("connect-at-once", Argument::Server),
    ("many-paths", Argument::None),
    ("limit", Argument::Master),
    ("schedule", Argument::Sibling),
    ("bind", Argument::None),
    ("execute", Argument::None),
    ("program", Argument::File),
    ("signal", Argument::Master),
    ("signal", Argument::Sibling),
    ("signal", Argument::Other),
    ("trace", Argument::Other),
    ("poke", Argument::Master),
    ("open-memory", Argument::Master),
    ("see-memory", Argument::Sibling),
    ("odd-socket", Argument::None),
    ("io_uring", Argument::None),
    ("mount", Argument::None),
    ("namespace", Argument::None),
    ("userfaultfd", Argument::None),
    ("keyctl", Argument::None),
    ("module", Argument::None),
    ("become", Argument::None),
];

/// What is refused to a worker, and to a child under fork if its sandbox is strict.
const LEFT_TO_CHILDREN: [(&str, Argument); 7] = [
    ("socket", Argument::None),
    ("unix-socket", Argument::Control),
    ("listen", Argument::None),
    ("fork", Argument::None),
    ("user-namespace", Argument::None),
    ("chmod", Argument::File),
    ("make-executable", Argument::None),
];

#[derive(Debug, Clone, Copy)]
enum Argument {
    None,
    /// A Unix socket on which a process of this user listens.
    Control,
    /// A file that is no program, though it may be executed.
    File,
    /// Another one.
    Victim,
    Server,
    Master,
    /// A process that serves another client.
    Sibling,
    /// A process that is none of the server's.
    Other,
}

/// Whether the kernel can do all of it; a process has the rights that a test takes away.
fn can_confine() -> bool {
    // SAFETY: with this flag the call asks for a number, and touches no memory.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0, 0, 1) };
    need(version >= 6, "this kernel has no Landlock of version 6") && need_root()
}

/// One that asks a process of the server.
struct Asker(BufReader<Client>);

impl Asker {
    fn new(server: &Daemon) -> Self {
        Self(BufReader::new(server.connect()))
    }

    #[track_caller]
    fn ask(&mut self, what: &str) -> String {
        self.0.get_mut().write_all(what.as_bytes()).unwrap();
        let mut answer = String::new();
        self.0.read_line(&mut answer).unwrap();
        answer.trim_end().to_owned()
    }
}

/// A process of no interest, ended when it is dropped.
struct Bystander(Child);

impl Bystander {
    fn new() -> Self {
        Self(Command::new("sleep").arg("1000").spawn().unwrap())
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn server(model: &str, level: &str) -> Daemon {
    let forkd = Forkd::example("test-sandbox", &format!("tcp://127.0.0.1:0 {model} {level} {{dir}}"));
    let file = forkd.dir.path().join("file");
    fs::write(&file, "no program").unwrap();
    fs::write(file.with_file_name("victim"), "").unwrap();
    fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    forkd.start()
}

/// Has a process of the server try it; returns what was refused, with what came of the others.
fn tried(server: &Daemon, attempts: &[(&str, Argument)]) -> (Vec<String>, Vec<String>) {
    let control = server.path("control");
    let _listens = UnixListener::bind(&control).unwrap();
    let (mut one, mut other, bystander) = (Asker::new(server), Asker::new(server), Bystander::new());
    let (own, sibling) = (one.ask("pid"), other.ask("pid"));
    let (mut refused, mut allowed) = (Vec::new(), Vec::new());
    for &(what, argument) in attempts {
        if matches!(argument, Argument::Sibling) && own == sibling {
            // one process serves both, and may signal itself
            continue;
        }
        let argument = match argument {
            Argument::None => String::new(),
            Argument::Control => control.display().to_string(),
            Argument::File => server.path("file").display().to_string(),
            Argument::Victim => server.path("victim").display().to_string(),
            Argument::Server => server.addr().to_string(),
            Argument::Master => server.pid().to_string(),
            Argument::Sibling => sibling.clone(),
            Argument::Other => bystander.0.id().to_string(),
        };
        match one.ask(format!("{what} {argument}").trim_end()) {
            answer if answer == "refused" => refused.push(what.to_owned()),
            answer => allowed.push(format!("{what} {argument}: {answer}")),
        }
    }
    fs::remove_file(control).unwrap();
    (refused, allowed)
}

#[track_caller]
fn is_refused_all(model: &str, server: &Daemon, attempts: &[(&str, Argument)]) {
    let (refused, allowed) = tried(server, attempts);
    assert!(allowed.is_empty(), "{model}: {allowed:?}, and refused: {refused:?}");
}

#[track_caller]
fn is_allowed_all(model: &str, server: &Daemon, attempts: &[(&str, Argument)]) {
    let (refused, allowed) = tried(server, attempts);
    assert!(refused.is_empty(), "{model}: {refused:?}, and allowed: {allowed:?}");
}

#[track_caller]
fn goes_on(model: &str, server: &Daemon) {
    assert!(Asker::new(server).ask("works").starts_with("1048576 true"), "{model}");
    assert!(server.ended().is_none(), "{model}");
}

#[test]
fn a_process_that_serves_clients_can_do_nothing_else() {
    if !can_confine() {
        return;
    }
    for model in MODELS {
        let server = server(model, "strict");
        is_refused_all(model, &server, &ATTEMPTS);
        is_refused_all(model, &server, &LEFT_TO_CHILDREN);
        goes_on(model, &server);
    }
}

#[test]
fn a_child_under_fork_has_no_filter_of_its_own_unless_it_is_strict() {
    if !can_confine() {
        return;
    }
    for model in MODELS {
        let server = server(model, "on");
        is_refused_all(model, &server, &ATTEMPTS);
        match model {
            "fork" | "spare" => is_allowed_all(model, &server, &LEFT_TO_CHILDREN),
            _ => is_refused_all(model, &server, &LEFT_TO_CHILDREN),
        }
        goes_on(model, &server);
    }
}

#[test]
fn without_a_sandbox_it_can_do_all_of_it() {
    if !can_confine() {
        return;
    }
    for model in MODELS {
        let server = server(model, "off");
        is_allowed_all(model, &server, &ATTEMPTS);
        is_allowed_all(model, &server, &LEFT_TO_CHILDREN);
        goes_on(model, &server);
    }
}

#[test]
fn a_handler_has_what_it_was_given() {
    if !can_confine() {
        return;
    }
    for model in ["fork", "prefork"] {
        let (reads, writes, connects) =
            (server(model, "reads"), server(model, "writes"), server(model, "connects"));
        let ask = |server: &Daemon, what: &str, name: &str| {
            Asker::new(server).ask(&format!("{what} {}", server.path(name).display()))
        };
        assert_eq!(ask(&reads, "read", "file"), "allowed", "{model}");
        assert_eq!(Asker::new(&reads).ask("read /etc/passwd"), "refused", "{model}");
        assert_eq!(ask(&reads, "write", "file"), "refused", "{model}");
        assert_eq!(
            (ask(&writes, "write", "new"), ask(&writes, "read", "new")),
            ("allowed".into(), "allowed".into())
        );
        assert_eq!(
            (ask(&writes, "chmod", "new"), ask(&writes, "remove", "new")),
            ("allowed".into(), "allowed".into())
        );
        assert_eq!(Asker::new(&writes).ask("read /etc/passwd"), "refused", "{model}");
        assert_eq!(Asker::new(&connects).ask(&format!("connect {}", connects.addr())), "allowed", "{model}");
        assert_eq!(ask(&connects, "read", "file"), "refused", "{model}");
    }
}

under_models! {
    [fork spare prefork iterative thread event coroutine]

    fn processes_of_the_daemon_are_confined_by_default(model) {
        if !can_confine() {
            return;
        }
        let daemon = Daemon::start(model);
        let client = daemon.served();
        let processes = [daemon.pid(), daemon.server_of(&client)];
        for pid in processes {
            assert_eq!((proc_status(pid, "NoNewPrivs"), proc_status(pid, "Seccomp")), ("1".into(), "2".into()));
            let file = fs::metadata(format!("/proc/{pid}/mem")).unwrap();
            assert_eq!(std::os::unix::fs::MetadataExt::uid(&file), 0);
            let capabilities = u64::from_str_radix(&proc_status(pid, "CapPrm"), 16).unwrap();
            // CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER, CAP_NET_BIND_SERVICE, CAP_NET_ADMIN
            assert_eq!(capabilities & !0b1_0100_0000_1111, 0, "{capabilities:x}");
        }
        let is_fork = model.starts_with("-m fork");
        assert_eq!(proc_status(processes[1], "Seccomp_filters"), if is_fork { "1" } else { "3" });
        drop(client);
        let daemon = Forkd::new(&format!("{model} --sandbox strict")).start();
        let client = daemon.served();
        let child = daemon.server_of(&client);
        assert_eq!(proc_status(child, "Seccomp_filters"), if is_fork { "2" } else { "3" });
        assert_eq!(u64::from_str_radix(&proc_status(child, "CapPrm"), 16).unwrap(), 0);
        drop(client);
        let daemon = Forkd::new(&format!("{model} --sandbox off")).start();
        let client = daemon.served();
        for pid in [daemon.pid(), daemon.server_of(&client)] {
            assert_eq!((proc_status(pid, "NoNewPrivs"), proc_status(pid, "Seccomp")), ("0".into(), "0".into()));
        }
    }
}

#[test]
fn no_other_process_of_the_user_can_look_into_the_daemon() {
    if !can_confine() {
        return;
    }
    let uid = 61_290;
    for model in ["-m fork", "-m prefork -w 1"] {
        let daemon = Forkd::new(model).uid(uid).start();
        let client = daemon.served();
        let mut command = Command::new("sh");
        std::os::unix::process::CommandExt::uid(&mut command, uid);
        let opens = |command: &mut Command, pid: i32| {
            let line = format!("exec 3<>/proc/{pid}/mem");
            command.args(["-c", &line]).stderr(std::process::Stdio::null()).status().unwrap().success()
        };
        assert!(!opens(&mut command, daemon.pid()), "{model}");
        drop(client);
    }
}

#[test]
fn the_root_of_http_is_all_that_a_strict_sandbox_has_of_the_files() {
    if !can_confine() {
        return;
    }
    for model in ["-m fork", "-m prefork -w 1"] {
        let forkd = Forkd::new(&format!("{model} --sandbox strict --service http --root {{dir}}/root"));
        let dir = forkd.dir.path().to_owned();
        fs::create_dir(dir.join("root")).unwrap();
        fs::write(dir.join("root/a"), "one").unwrap();
        let daemon = forkd.start();
        let get = || {
            let mut client = daemon.connect();
            client.write_all(b"GET /a HTTP/1.0\r\n\r\n").unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            answer
        };
        assert!(get().ends_with("one"), "{model}");
        // a directory that takes its place is beyond it, until a restart
        fs::rename(dir.join("root"), dir.join("old")).unwrap();
        fs::create_dir(dir.join("root")).unwrap();
        fs::write(dir.join("root/a"), "two").unwrap();
        assert!(!get().contains("two"), "{model}");
    }
}

#[test]
fn a_strict_sandbox_needs_all_of_it() {
    for (call, what) in [(libc::SYS_seccomp, "seccomp"), (libc::SYS_landlock_create_ruleset, "Landlock")] {
        for model in ["-m fork", "-m prefork"] {
            let ended = Forkd::new(&format!("{model} --sandbox strict")).forbid(call, libc::ENOSYS).run();
            assert!(ended.code == Some(69) && ended.stderr.contains(what), "{}", ended.stderr);
            let daemon = Forkd::new(model).forbid(call, libc::ENOSYS).start();
            assert_eq!(daemon.count_lines("the sandbox does without what this kernel lacks"), 1);
            assert_eq!(daemon.count_lines(what), 1);
            drop(daemon.served());
        }
    }
}

/// A daemon whose program tells of itself.
fn tells(options: &str) -> (String, String) {
    let words = ["--exec", "grep", "-E", "NoNewPrivs|Seccomp:", "/proc/self/status"];
    let daemon = words.iter().fold(Forkd::new(options), |forkd, word| forkd.arg(word)).start();
    let mut answer = String::new();
    daemon.connect().read_to_string(&mut answer).unwrap();
    let mut values = answer.lines().filter_map(|line| Some(line.split_once(':')?.1.trim().to_owned()));
    (values.next().unwrap(), values.next().unwrap())
}

#[test]
fn programs_gain_no_privileges_and_have_nothing_else_of_the_sandbox() {
    let own = proc_status(std::process::id() as i32, "NoNewPrivs");
    for model in ["-m fork", "-m prefork", "-m thread"] {
        assert_eq!(tells(model), ("1".into(), "0".into()), "{model}");
        let keep = format!("{model} --exec-privileges keep");
        assert_eq!(tells(&keep), (own.clone(), "0".into()), "{model}");
        assert_eq!(tells(&format!("{model} --sandbox off")), ("1".into(), "0".into()), "{model}");
    }
}

#[test]
fn a_reload_brings_no_program_to_a_master_that_is_confined() {
    let forkd = Forkd::new("--config {dir}/f.toml");
    let file = forkd.dir.path().join("f.toml");
    let write = |more: &str| {
        fs::write(&file, format!("[[listen]]\nendpoints = ['tcp://127.0.0.1:0']\n{more}")).unwrap();
    };
    write("");
    let daemon = forkd.start();
    let reload = || forkd_command().arg("reload").arg("--control").arg(daemon.control()).output().unwrap();
    write("exec = ['cat']\n");
    let refused = reload();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(78) && said.contains("needs a restart"), "{said}");
    drop(daemon.served());
    // new sockets can be bound
    write("[[listen]]\nendpoints = ['tcp://127.0.0.1:0', 'udp://127.0.0.1:0']\nmodel = 'prefork'\n");
    assert_eq!(reload().status.code(), Some(0));
    daemon.wait_for_line("listening on udp://");
}
