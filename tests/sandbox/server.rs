//! A server for `tests/sandbox.rs` that tries what its client names: `test-sandbox ENDPOINT MODEL LEVEL DIR`.
//!
//! It answers `refused` where the kernel says that this may not be done, and otherwise what came of it: some calls get
//! arguments of no use, so that nothing is done where they are let through.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Command;

use forkd::config::values::{LogFormat, LogLevel, LogSink};
use forkd_server::model::Model;
use forkd_server::sandbox::{Level, Sandbox};
use forkd_server::{Error, Protocol, Reply, Server, Service};

/// What another process is to change.
static TARGET: u8 = 7;

struct Attempts(String);

impl Protocol for Attempts {
    fn received<'a>(&'a mut self, input: &'a [u8]) -> Reply<'a> {
        let text = String::from_utf8_lossy(input);
        let (what, argument) = text.trim_end().split_once(' ').unwrap_or((text.trim_end(), ""));
        self.0 = match attempt(what, argument) {
            Ok(outcome) => outcome,
            Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES)) => {
                "refused".into()
            }
            Err(error) => format!("allowed, and then {error}"),
        } + "\n";
        Reply::Send(self.0.as_bytes())
    }
}

fn attempt(what: &str, argument: &str) -> io::Result<String> {
    let pid = || argument.parse::<i32>().map_err(io::Error::other);
    match what {
        "pid" => return Ok(std::process::id().to_string()),
        "works" => {
            // memory, threads, time, and a panic that is caught, with its message
            let sum: u64 = std::thread::spawn(|| vec![1_u64; 1 << 20].iter().sum())
                .join()
                .map_err(|_| io::ErrorKind::Other)?;
            let _ = std::backtrace::Backtrace::force_capture().to_string();
            let caught = std::panic::catch_unwind(|| panic!("as was wished")).is_err();
            return Ok(format!("{sum} {caught} {}", std::time::Instant::now().elapsed().as_secs()));
        }
        "read" => _ = fs::read(argument)?,
        "write" => fs::write(argument, "x")?,
        "remove" => fs::remove_file(argument)?,
        "chmod" => fs::set_permissions(argument, std::os::unix::fs::PermissionsExt::from_mode(0o600))?,
        "connect" => _ = TcpStream::connect(argument)?,
        "connect-at-once" => connect_at_once(argument)?,
        "many-paths" => call(libc::SYS_socket, [libc::AF_INET as usize, libc::SOCK_STREAM as usize, 262, 0])?,
        "limit" => call(libc::SYS_prlimit64, [pid()? as usize, libc::RLIMIT_NOFILE as usize, 0, 0])?,
        "schedule" => call(libc::SYS_sched_setscheduler, [pid()? as usize, usize::MAX, 0, 0])?,
        "bind" => _ = TcpListener::bind("127.0.0.1:0")?,
        "execute" => _ = Command::new("true").status()?,
        "program" => return execve(argument),
        "signal" => call(libc::SYS_kill, [pid()? as usize, 0, 0, 0])?,
        "trace" => trace(pid()?)?,
        "poke" => poke(pid()?)?,
        "open-memory" => _ = OpenOptions::new().write(true).open(format!("/proc/{}/mem", pid()?))?,
        "see-memory" => _ = File::open(format!("/proc/{}/maps", pid()?))?,
        // a datagram socket, and one of a family that no server has
        "socket" => call(libc::SYS_socket, [libc::AF_INET as usize, libc::SOCK_DGRAM as usize, 0, 0])?,
        "unix-socket" => _ = UnixStream::connect(argument)?,
        "listen" => listen()?,
        "fork" => fork()?,
        // of no use with this, so that there is none
        "user-namespace" => {
            call(libc::SYS_clone, [(libc::CLONE_NEWUSER | libc::CLONE_FS) as usize, 0, 0, 0])?
        }
        "make-executable" => make_executable()?,
        "odd-socket" => call(libc::SYS_socket, [libc::AF_ALG as usize, libc::SOCK_SEQPACKET as usize, 0, 0])?,
        "io_uring" => call(libc::SYS_io_uring_setup, [1, 0, 0, 0])?,
        "mount" => call(libc::SYS_mount, [0, c"/nowhere".as_ptr().addr(), 0, 0])?,
        "namespace" => call(libc::SYS_setns, [usize::MAX, 0, 0, 0])?,
        "bpf" => call(libc::SYS_bpf, [usize::MAX, 0, 0, 0])?,
        "userfaultfd" => call(libc::SYS_userfaultfd, [usize::MAX, 0, 0, 0])?,
        "keyctl" => call(libc::SYS_keyctl, [usize::MAX, 0, 0, 0])?,
        "module" => call(libc::SYS_delete_module, [0, 0, 0, 0])?,
        "become" => call(libc::SYS_setuid, [usize::MAX, 0, 0, 0])?,
        other => return Err(io::Error::other(format!("{other} is not known"))),
    }
    Ok("allowed".into())
}

/// On a port of the kernel's choice, without bind(2).
fn listen() -> io::Result<()> {
    // SAFETY: the descriptor is closed by its owner.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        let socket = OwnedFd::from_raw_fd(socket);
        match libc::listen(socket.as_raw_fd(), 1) {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }
}

fn fork() -> io::Result<()> {
    // SAFETY: the child does nothing but end.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: the call runs no code of this process.
        0 => unsafe { libc::_exit(0) },
        child => {
            // SAFETY: the call touches no memory. Where SIGCHLD is ignored it waits, and has nothing to say.
            unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
            Ok(())
        }
    }
}

/// Memory that is written to and executed.
fn make_executable() -> io::Result<()> {
    let access = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
    // SAFETY: a new mapping is no other memory's, and unmapped again.
    unsafe {
        let memory =
            libc::mmap(std::ptr::null_mut(), 4096, access, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0);
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        libc::munmap(memory, 4096);
    }
    Ok(())
}

/// By the first bytes, without connect(2).
fn connect_at_once(address: &str) -> io::Result<()> {
    let address: SocketAddrV4 = address.parse().map_err(io::Error::other)?;
    let name = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(*address.ip()).to_be() },
        sin_zero: [0; 8],
    };
    // SAFETY: the descriptor is closed by its owner, and the kernel reads the byte and the name, which live.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        let socket = OwnedFd::from_raw_fd(socket);
        let (byte, length) = ((&raw const TARGET).cast(), size_of_val(&name) as u32);
        match libc::sendto(socket.as_raw_fd(), byte, 1, libc::MSG_FASTOPEN, (&raw const name).cast(), length)
        {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }
}

fn call(number: libc::c_long, [a, b, c, d]: [usize; 4]) -> io::Result<()> {
    // SAFETY: the calls above get numbers, null, or a string that lives.
    match unsafe { libc::syscall(number, a, b, c, d) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Executes a program in this very process, if it can; one that is there and is none fails otherwise.
fn execve(path: &str) -> io::Result<String> {
    let path = std::ffi::CString::new(path).map_err(io::Error::other)?;
    let none = [std::ptr::null()];
    // SAFETY: the path is a C string, and the lists end with null; the file is no program, so it returns.
    unsafe { libc::execve(path.as_ptr(), none.as_ptr(), none.as_ptr()) };
    Err(io::Error::last_os_error())
}

/// In a thread, with whose end the tracing ends.
fn trace(pid: i32) -> io::Result<()> {
    let seize = move || call(libc::SYS_ptrace, [libc::PTRACE_SEIZE as usize, pid as usize, 0, 0]);
    std::thread::spawn(seize).join().map_err(|_| io::ErrorKind::Other)?
}

/// Writes to another process of this program what it has there already.
fn poke(pid: i32) -> io::Result<()> {
    let mut byte = TARGET;
    let own = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let theirs = libc::iovec { iov_base: (&raw const TARGET).cast_mut().cast(), iov_len: 1 };
    // SAFETY: the kernel reads one byte of ours; what it does to another process is not this one's memory.
    match unsafe { libc::process_vm_writev(pid, &raw const own, 1, &raw const theirs, 1, 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn main() -> Result<(), Error> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [endpoint, model, level, dir] = args.as_slice() else { panic!("ENDPOINT MODEL LEVEL DIR") };
    let sandbox = match level.as_str() {
        "off" => Sandbox::default(),
        "on" => Level::On.into(),
        "strict" => Level::Strict.into(),
        "reads" => Sandbox::from(Level::Strict).reads(dir),
        "writes" => Sandbox::from(Level::Strict).writes(dir),
        "connects" => Sandbox::from(Level::Strict).connects(),
        other => panic!("no level {other}"),
    };
    forkd::log::init(LogSink::Stderr, LogLevel::Info, LogFormat::Text)?;
    let (model, spare) = match model.as_str() {
        "spare" => (Model::Fork, 3),
        name => (name.parse().unwrap_or_else(|why| panic!("{why}")), 0),
    };
    let mut server = Server::bind(endpoint)?.model(model).spare_children(spare).sandbox(sandbox);
    if model != Model::Fork {
        server = server.workers(2);
    }
    for endpoint in server.endpoints() {
        eprintln!("listening on {endpoint}");
    }
    server.serve_forever(Service::protocol("attempts", || Attempts(String::new())))
}
