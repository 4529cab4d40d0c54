//! How a daemon is started.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{fs, io};

use nix::fcntl::{FcntlArg, fcntl};

use super::filter::Filter;
use super::{Daemon, Ended, Way, forkd, proc_status, public_binary, without_options};

/// How to start a daemon.
pub struct Forkd {
    args: Vec<String>,
    env: Vec<(String, String)>,
    portable: bool,
    uid: Option<u32>,
    limits: Vec<(u32, u64)>,
    program: PathBuf,
    example: Option<PathBuf>,
    wrapper: Vec<String>,
    sockets: Vec<(String, OwnedFd)>,
    forbidden: Vec<(libc::c_long, i32)>,
    pub dir: tempfile::TempDir,
}

impl Forkd {
    /// `args` follow `forkd serve`, split at spaces; `{dir}` is the daemon's own directory. Without
    /// an endpoint it gets tcp://127.0.0.1:0.
    pub fn new(args: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("forkd-").tempdir().unwrap();
        let path = dir.path().to_str().unwrap();
        let mut args: Vec<String> = args.split_whitespace().map(|arg| arg.replace("{dir}", path)).collect();
        let names_one =
            |arg: &String| arg.contains("://") || arg.starts_with("systemd:") || arg == "--config";
        if !args.iter().any(names_one) {
            args.push("tcp://127.0.0.1:0".into());
        }
        let (env, limits, wrapper) = (Vec::new(), Vec::new(), Vec::new());
        let (sockets, forbidden) = (Vec::new(), Vec::new());
        Self {
            args,
            env,
            portable: false,
            uid: None,
            limits,
            program: env!("CARGO_BIN_EXE_forkd").into(),
            example: None,
            wrapper,
            sockets,
            forbidden,
            dir,
        }
    }

    /// `forkd serve` without any argument but `--control`: it listens at its default ports.
    pub fn bare() -> Self {
        Self { args: Vec::new(), ..Self::new("") }
    }

    /// An example of the library instead of the daemon; `args` follow its name.
    #[track_caller]
    pub fn example(name: &str, args: &str) -> Self {
        Self { example: Some(example(name)), ..Self::new(args) }
    }

    /// Another program instead of the daemon, which a [wrapper](Self::within) runs.
    pub fn script(path: PathBuf, args: &str) -> Self {
        Self { example: Some(path), ..Self::new(args) }
    }

    /// The program that `FORKD_BIN` names, such as a release build, if it names one.
    pub fn program_of_the_environment(mut self) -> Self {
        self.program = std::env::var_os("FORKD_BIN").map_or(self.program, PathBuf::from);
        self
    }

    /// With this file in its directory, in which `{dir}` is that.
    pub fn with_file(self, name: &str, text: &str) -> Self {
        let text = text.replace("{dir}", self.dir.path().to_str().unwrap());
        fs::write(self.dir.path().join(name), text).unwrap();
        self
    }

    /// The daemon by this name, which leads to its program.
    pub fn called(self, name: PathBuf) -> Self {
        Self { program: name, ..self }
    }

    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.into());
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    pub fn portable(mut self, portable: bool) -> Self {
        self.portable = portable;
        self
    }

    pub fn way(self, way: Way) -> Self {
        self.portable(way == Way::Portable)
    }

    /// Runs as this user (and group) without privileges; the test must be root.
    pub fn uid(mut self, uid: u32) -> Self {
        fs::set_permissions(self.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        chown(self.dir.path(), Some(uid), Some(uid)).unwrap();
        self.uid = Some(uid);
        self
    }

    /// Starts it with this soft limit; `resource` is of libc, such as `RLIMIT_NPROC`.
    pub fn limit(mut self, resource: libc::__rlimit_resource_t, soft: u64) -> Self {
        self.limits.push((resource, soft));
        self
    }

    /// Has this system call, such as `SYS_clone3` of libc, fail with this error in all its processes.
    pub fn forbid(mut self, call: libc::c_long, errno: i32) -> Self {
        self.forbidden.push((call, errno));
        self
    }

    /// Has it executed by another program: these words (`{dir}` as above) come before the command.
    pub fn within(mut self, words: &[&str]) -> Self {
        let path = self.dir.path().to_str().unwrap();
        self.wrapper = words.iter().map(|word| word.replace("{dir}", path)).collect();
        self
    }

    /// Hands it a duplicate of this descriptor under this name, as systemd does for a .socket unit.
    pub fn handed(mut self, name: &str, socket: impl AsFd) -> Self {
        // above those that it will have in the daemon
        let copy = fcntl(socket, FcntlArg::F_DUPFD_CLOEXEC(100)).unwrap();
        // SAFETY: the number is new, and has no other owner.
        self.sockets.push((name.into(), unsafe { OwnedFd::from_raw_fd(copy) }));
        self
    }

    pub fn control(&self) -> PathBuf {
        self.dir.path().join("control.sock")
    }

    /// The command, with everything but its streams.
    pub fn command(&self) -> Command {
        let program = if self.uid.is_some() { public_binary(self.dir.path()) } else { self.program.clone() };
        let program = self.example.clone().unwrap_or(program);
        // the pid is known only when the process is there
        let activation = ["sh", "-c", "LISTEN_PID=$$ exec \"$0\" \"$@\""].map(OsStr::new);
        let activation = activation.into_iter().filter(|_| !self.sockets.is_empty());
        let wrapper = self.wrapper.iter().map(OsStr::new);
        let mut words = wrapper.chain(activation).chain([program.as_os_str()]);
        let mut command = Command::new(words.next().expect("a program"));
        command.args(words);
        if self.example.is_none() {
            command.arg("serve").arg("--control").arg(self.control());
        }
        command.args(&self.args);
        command.env_remove("JOURNAL_STREAM");
        without_options(&mut command);
        for name in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
            command.env_remove(name);
        }
        if !self.sockets.is_empty() {
            let names: Vec<&str> = self.sockets.iter().map(|(name, _)| name.as_str()).collect();
            command.env("LISTEN_FDS", names.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        if self.portable {
            command.env("FORKD_PORTABLE", "1");
        }
        if let Some(uid) = self.uid {
            command.uid(uid).gid(uid);
        }
        command.process_group(0);
        let limits = self.limits.clone();
        let filter = (!self.forbidden.is_empty()).then(|| Filter::new(&self.forbidden));
        let sockets: Vec<i32> = self.sockets.iter().map(|(_, socket)| socket.as_raw_fd()).collect();
        let prepare = move || {
            for &(resource, soft) in &limits {
                set_limit(0, resource, soft)?;
            }
            // SAFETY: prctl(2) is a plain system call. The test's own death ends the daemon, too.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            // what the test program inherited by accident is not for the daemon
            // SAFETY: close_range(2) only marks them to be closed at exec.
            unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
            for (number, &socket) in (3..).zip(&sockets) {
                // SAFETY: dup2(2) is a plain system call; whatever had the number is to be closed anyway.
                unsafe { libc::dup2(socket, number) };
            }
            filter.as_ref().map_or(Ok(()), Filter::put_on)
        };
        // SAFETY: between fork and exec it makes system calls only.
        unsafe { command.pre_exec(prepare) };
        command
    }

    /// Starts it and waits until it is ready.
    #[track_caller]
    pub fn start(self) -> Daemon {
        let sign = if self.example.is_some() { "listening on " } else { "ready pid=" };
        let daemon = self.launch();
        daemon.wait_for_line(sign);
        daemon
    }

    /// Runs it to its end, where it must not become a daemon that stays.
    #[track_caller]
    pub fn run(self) -> Ended {
        forkd(&mut self.command())
    }

    /// Starts it, and waits for nothing.
    pub fn launch(self) -> Daemon {
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Daemon::new(command.spawn().unwrap(), self.control(), self.dir)
    }
}

/// Has this system call fail with this error in what a command starts.
pub fn forbid(command: &mut Command, call: libc::c_long, errno: i32) {
    let filter = Filter::new(&[(call, errno)]);
    // SAFETY: between fork and exec it makes system calls only.
    unsafe { command.pre_exec(move || filter.put_on()) };
}

/// A user that no other test has: limits of processes are those of all processes of a user.
pub fn own_user() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let nth = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(nth < 32, "more users, please");
    // by the number of this program, as others may run at the same time; of users that have no name as a rule
    20_000 + std::process::id() % 1250 * 32 + nth
}

/// The program of an example.
#[track_caller]
pub fn example(name: &str) -> PathBuf {
    // `cargo test` builds the examples beside the binary
    let path = PathBuf::from(env!("CARGO_BIN_EXE_forkd")).with_file_name("examples").join(name);
    let hint = "`cargo test` alone, or `cargo build --examples`, makes it";
    assert!(path.exists(), "{} is missing: {hint}", path.display());
    path
}

/// Lets this process, and those it starts, open so many files; false where that can't be had.
pub fn may_open(files: u64) -> bool {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    soft >= files || setrlimit(Resource::RLIMIT_NOFILE, files, hard.max(files)).is_ok()
}

/// Sets a soft limit of a process; 0 is the caller. The hard one stays.
pub fn set_limit(pid: i32, resource: libc::__rlimit_resource_t, soft: u64) -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` lives through both calls of prlimit(2), which fills it and reads it.
    let result = unsafe {
        let result = libc::prlimit(pid, resource, std::ptr::null(), &raw mut limit);
        limit.rlim_cur = soft.min(limit.rlim_max);
        if result == 0 {
            libc::prlimit(pid, resource, &raw const limit, std::ptr::null_mut())
        } else {
            result
        }
    };
    match result {
        0 => Ok(()),
        _ if pid != 0 && nix::errno::Errno::last() == nix::errno::Errno::EPERM => {
            as_its_user(pid, resource, soft)
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// Even root needs CAP_SYS_RESOURCE for the limits of another user's process, and may lack it in a
/// container; the user does not.
fn as_its_user(pid: i32, resource: libc::__rlimit_resource_t, soft: u64) -> io::Result<()> {
    let uid = proc_status(pid, "Uid").split_whitespace().next().and_then(|uid| uid.parse().ok());
    let uid = uid.ok_or(io::ErrorKind::NotFound)?;
    let mut command = Command::new("true");
    command.uid(uid).gid(uid);
    let change = move || {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: as in `set_limit`.
        let result = unsafe {
            libc::prlimit(pid, resource, std::ptr::null(), &raw mut limit);
            limit.rlim_cur = soft.min(limit.rlim_max);
            libc::prlimit(pid, resource, &raw const limit, std::ptr::null_mut())
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: between fork and exec it makes system calls only.
    unsafe { command.pre_exec(change) };
    command.status().map(|_| ())
}
