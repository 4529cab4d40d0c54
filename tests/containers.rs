//! The image of `Containerfile`, run by podman and runc: forkd as process 1 of a container, without a shell, a name for its
//! user, a file that it may write, or a capability.
//!
//! Containers have no network but their own `lo`. Clients come from outside by a Unix socket in a directory that both see, or
//! are forkd's own, inside.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]
#![cfg(all(target_os = "linux", target_feature = "crt-static"))]

mod common;

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use common::*;

/// What a container may not do, and has no need of. The limits of podman's own would take CAP_SYS_RESOURCE.
const CONFINED: &str = "--network none --read-only --cap-drop all --security-opt no-new-privileges --ulimit nofile=1024:4096 \
     --ulimit nproc=1024:4096";

/// An engine with a storage of its own, which has the image.
struct Engine {
    dir: tempfile::TempDir,
}

/// A container, and the directory that it shares with the test.
struct Container<'a> {
    engine: &'a Engine,
    name: String,
}

impl Engine {
    /// None where there is no engine, or it can't run containers.
    fn new() -> Option<Self> {
        let tools = ["podman", "runc", "conmon"];
        if !need_root() || !tools.into_iter().all(need_tool) {
            return None;
        }
        let dir = tempfile::Builder::new().prefix("forkd-").tempdir().unwrap();
        std::fs::create_dir(dir.path().join("shared")).unwrap();
        std::fs::set_permissions(dir.path().join("shared"), PermissionsExt::from_mode(0o777)).unwrap();
        let engine = Self { dir };
        let context = engine.dir.path().join("context");
        std::fs::create_dir(&context).unwrap();
        std::fs::copy(env!("CARGO_BIN_EXE_forkd"), context.join("forkd")).unwrap();
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Containerfile");
        // The first podman of a machine makes the locks that all have; of two at once one fails.
        static LOCKS: std::sync::Once = std::sync::Once::new();
        LOCKS.call_once(|| drop(engine.podman(&["info"]).output()));
        // a health check is no part of OCI's own format
        let build = ["build", "--quiet", "--format", "docker", "--tag", "forkd", "--file", file];
        let built = engine.podman(&build).arg(&context).output().unwrap();
        assert!(built.status.success(), "{built:?}");
        let version = engine.run("--rm", "--version");
        let why = String::from_utf8_lossy(&version.stderr).into_owned();
        need(version.status.success(), &format!("podman runs no container here: {why}")).then_some(engine)
    }

    fn podman(&self, args: &[&str]) -> Command {
        let path = |name: &str| self.dir.path().join(name);
        let mut command = Command::new("podman");
        command
            .arg("--root")
            .arg(path("root"))
            .arg("--runroot")
            .arg(path("run"))
            .arg("--tmpdir")
            .arg(path("tmp"));
        command.args(["--runtime", "runc", "--cgroup-manager", "cgroupfs", "--storage-driver", "vfs"]);
        command.args(["--events-backend", "none"]).args(args).stdin(Stdio::null());
        command
    }

    /// The control group of its containers.
    fn group(&self) -> String {
        self.dir.path().file_name().unwrap().to_str().unwrap().to_owned()
    }

    /// Runs a container with these options, and forkd with these arguments, both split at spaces.
    fn run(&self, options: &str, args: &str) -> Output {
        let volume = format!("{}:/shared", self.dir.path().join("shared").display());
        let group = format!("--cgroup-parent=/{}", self.group());
        let mut command = self.podman(&["run", "--volume", &volume, &group]);
        command.args(CONFINED.split_whitespace().chain(options.split_whitespace()));
        command.arg("forkd").args(args.split_whitespace()).output().unwrap()
    }

    /// Starts a container, and waits until forkd is ready.
    #[track_caller]
    fn start(&self, options: &str, args: &str) -> Container<'_> {
        let output = self.run(&format!("--detach {options}"), args);
        assert!(output.status.success(), "{output:?}");
        let name = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        let container = Container { engine: self, name };
        container.says("ready pid=1 ");
        container
    }

    /// A client of a container.
    #[track_caller]
    fn client(&self) -> UnixStream {
        let client = UnixStream::connect(self.socket()).unwrap();
        client.set_read_timeout(Some(LIMIT)).unwrap();
        client
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("shared/s")
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.podman(&["rm", "--all", "--force", "--time", "0"]).output();
        // with version 2 there is one hierarchy, with version 1 one below this for each controller
        let root = Path::new("/sys/fs/cgroup");
        let hierarchies = std::fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
        for hierarchy in hierarchies.chain([root.to_owned()]) {
            becomes_true(LIMIT, || remove_groups(&hierarchy.join(self.group())));
        }
    }
}

/// Removes a control group with those in it: tells whether it is gone, which takes until their last process is.
fn remove_groups(group: &Path) -> bool {
    let within = std::fs::read_dir(group).into_iter().flatten().flatten();
    let groups = within.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    groups.for_each(|entry| _ = remove_groups(&entry.path()));
    std::fs::remove_dir(group).is_ok() || !group.exists()
}

impl Container<'_> {
    fn podman(&self, args: &[&str]) -> Output {
        self.engine.podman(args).arg(&self.name).output().unwrap()
    }

    fn log(&self) -> String {
        let output = self.podman(&["logs"]);
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }

    /// Waits for a line of its log.
    #[track_caller]
    fn says(&self, pattern: &str) {
        assert!(becomes_true(LIMIT, || self.log().contains(pattern)), "no {pattern:?} in:\n{}", self.log());
    }

    /// The exit code of forkd in the container with these arguments.
    fn exec(&self, args: &[&str]) -> Option<i32> {
        self.engine.podman(&["exec", &self.name, "/forkd"]).args(args).output().unwrap().status.code()
    }

    fn inspect(&self, what: &str) -> String {
        let output = self.podman(&["inspect", "--format", what]);
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Process 1, as this system numbers it.
    fn pid(&self) -> i32 {
        self.inspect("{{.State.Pid}}").parse().unwrap()
    }

    /// Waits for its end, and returns the exit code.
    fn wait(&self) -> String {
        String::from_utf8_lossy(&self.podman(&["wait"]).stdout).trim().to_owned()
    }
}

#[test]
fn it_serves_as_a_user_without_rights_and_is_healthy() {
    let Some(engine) = Engine::new() else { return };
    let container = engine.start("", "");
    for endpoint in ["tcp://127.0.0.1:7007", "udp://127.0.0.1:7007", "tcp://[::1]:7007", "udp://[::1]:7007"] {
        assert_eq!(container.exec(&["probe", "--timeout", "10s", endpoint]), Some(0), "{endpoint}");
    }
    assert_eq!(container.exec(&["probe", "tcp://127.0.0.1:7"]), Some(69));
    eventually("it is healthy", || container.podman(&["healthcheck", "run"]).status.code() == Some(0));

    let pid = container.pid();
    for (field, value) in [
        ("Uid", "65534\t65534\t65534\t65534"),
        ("Gid", "65534\t65534\t65534\t65534"),
        ("CapEff", "0000000000000000"),
        ("CapBnd", "0000000000000000"),
        ("NoNewPrivs", "1"),
    ] {
        assert_eq!(proc_status(pid, field), value, "{field}");
    }
    let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    let root = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/")).unwrap();
    assert!(root.split(' ').nth(5).unwrap().split(',').any(|option| option == "ro"), "{root}");
}

#[test]
fn a_stop_serves_those_that_are_there_and_exits_with_0() {
    let Some(engine) = Engine::new() else { return };
    for model in ["fork", "event"] {
        let container = engine.start("", &format!("serve --grace 1m -m {model} unix:///shared/s"));
        let mut client = engine.client();
        echoes(&mut client, b"before");
        let stopped = std::thread::scope(|scope| {
            let stop = scope.spawn(|| container.podman(&["stop", "--time", "60"]));
            container.says("stopping signal=SIGTERM");
            echoes(&mut client, b"after");
            drop(client);
            stop.join().unwrap()
        });
        assert!(stopped.status.success(), "{stopped:?}");
        assert_eq!(container.inspect("{{.State.ExitCode}}"), "0");
        container.says("cut=0");
    }
}

#[test]
fn exit_codes_come_through() {
    let Some(engine) = Engine::new() else { return };
    for (args, code) in [
        ("--version", 0),
        ("serve --colour", 64),
        ("probe tcp://127.0.0.1:7007", 69),
        ("serve tcp://192.0.2.1:7007", 69),
        ("serve --config /forkd.toml", 78),
        ("serve tcp://[::]:7", 77),
    ] {
        let output = engine.run("--rm", args);
        assert_eq!(output.status.code(), Some(code), "{args}: {output:?}");
    }
    // a crash of process 1 is one of the container
    let container = engine.start("", "");
    assert!(container.podman(&["kill", "--signal", "KILL"]).status.success());
    assert_eq!(container.wait(), "137");
}

#[test]
fn port_7_takes_a_setting_of_the_network_and_no_capability() {
    let Some(engine) = Engine::new() else { return };
    let options = "--sysctl net.ipv4.ip_unprivileged_port_start=7";
    let container = engine.start(options, "serve tcp://[::]:7 udp://[::]:7");
    for endpoint in ["tcp://127.0.0.1:7", "udp://127.0.0.1:7"] {
        assert_eq!(container.exec(&["probe", "--timeout", "10s", endpoint]), Some(0), "{endpoint}");
    }
    assert_eq!(proc_status(container.pid(), "CapEff"), "0000000000000000");
}

#[test]
fn process_1_is_upgraded_and_stays() {
    let Some(engine) = Engine::new() else { return };
    std::fs::copy(env!("CARGO_BIN_EXE_forkd"), engine.dir.path().join("shared/next")).unwrap();
    for model in ["fork", "prefork"] {
        let container = engine.start("", &format!("serve -m {model} --control /shared/c unix:///shared/s"));
        let (pid, mut client) = (container.pid(), engine.client());
        echoes(&mut client, b"before");
        // the image's own, and another one
        for program in ["/forkd", "/shared/next"] {
            let upgrade = ["upgrade", "--control", "/shared/c", "--program", program];
            assert_eq!(container.exec(&upgrade), Some(0), "{}", container.log());
            echoes(&mut client, b"after");
            echoes(&mut engine.client(), b"after");
        }
        assert_eq!(container.exec(&["upgrade", "--control", "/shared/c", "--program", "/shared"]), Some(77));
        assert_eq!(container.pid(), pid);
        drop(client);
        assert!(container.podman(&["stop", "--time", "60"]).status.success());
        assert_eq!(container.inspect("{{.State.ExitCode}}"), "0");
    }
}

/// The programs of this system, for the service exec.
const PROGRAMS: &str =
    "--volume /usr:/usr:ro --volume /bin:/bin:ro --volume /lib:/lib:ro --volume /lib64:/lib64:ro";

#[test]
fn process_1_reaps_what_its_programs_leave_behind() {
    let Some(engine) = Engine::new() else { return };
    // in a session of its own, and without the connection, so that it outlives the client
    let rest = "echo $$ >/shared/pid; while [ ! -e /shared/end ]; do sleep .05; done";
    let script = format!("setsid sh -c '{rest}' </dev/null >/dev/null 2>&1 &\nread line\n");
    std::fs::write(engine.dir.path().join("shared/script"), script).unwrap();
    let container = engine.start(PROGRAMS, "serve --umask 0 unix:///shared/s --exec sh /shared/script");
    let mut client = engine.client();
    let path = engine.dir.path().join("shared/pid");
    eventually("the program leaves a process behind", || {
        std::fs::read_to_string(&path).is_ok_and(|pid| pid.ends_with('\n'))
    });
    client.write_all(b"bye\n").unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    let master = container.pid();
    eventually("it is a child of process 1", || children_of(master).len() == 1);
    std::fs::write(engine.dir.path().join("shared/end"), "").unwrap();
    eventually("nothing is left of it", || children_of(master).is_empty());
}

#[test]
fn at_the_limit_of_processes_clients_wait_and_none_is_lost() {
    let Some(engine) = Engine::new() else { return };
    // the master and four children
    let container = engine.start("--pids-limit 5", "serve unix:///shared/s");
    let mut clients: Vec<UnixStream> = (0..10).map(|_| engine.client()).collect();
    clients[..4].iter_mut().for_each(|client| echoes(client, b"served"));
    container.says("cannot fork");
    for mut client in clients.drain(..) {
        echoes(&mut client, b"in its turn");
    }
    assert_eq!(container.inspect("{{.State.Running}}"), "true");
}

#[test]
fn at_the_limit_of_memory_a_program_dies_and_process_1_serves_on() {
    let Some(engine) = Engine::new() else { return };
    let options = format!("{PROGRAMS} --memory 64m --memory-swap 64m");
    let script = engine.dir.path().join("shared/script");
    // asked for it, the program keeps all that it reads
    std::fs::write(&script, "read line\n[ \"$line\" != eat ] || head -c 1G /dev/zero | tail\necho $line\n")
        .unwrap();
    let container = engine.start(&options, "serve unix:///shared/s --exec sh /shared/script");
    let ask = |line: &[u8]| {
        let mut client = engine.client();
        client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        client.write_all(line).unwrap();
        let mut answer = String::new();
        let _ = client.read_to_string(&mut answer);
        answer
    };
    assert_eq!(ask(b"hello\n"), "hello\n");
    // it ends before it has written anything of that
    assert!(ask(b"eat\n").len() < 64);
    assert_eq!(ask(b"hello again\n"), "hello again\n");
    assert_eq!(container.inspect("{{.State.Running}}"), "true");
}
