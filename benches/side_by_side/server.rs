//! A server under measurement: a forkd, a reference in C, or another program; each in a control group of its own.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use forkd_load::{Reach, Target};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::page::forkd;

/// How to start one.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Program {
    /// `forkd serve` with these options.
    Forkd(&'static str),
    /// A mode of `reference.c`, and how many workers that has; linked as the distribution does.
    Reference(&'static str),
    /// The same, linked statically.
    Static(&'static str),
    /// `nolibc.c`.
    NoLibc,
    /// nginx, with two workers and no log.
    Nginx,
}

pub(crate) struct Server {
    process: Child,
    group: Option<Group>,
    pub(crate) port: u16,
    is_datagram: bool,
    pub(crate) control: PathBuf,
}

/// The programs, built once; `None` if this machine can't.
static REFERENCE: LazyLock<Option<PathBuf>> =
    LazyLock::new(|| build("reference", "reference.c", &["-pthread"]));
static STATIC: LazyLock<Option<PathBuf>> =
    LazyLock::new(|| build("reference-static", "reference.c", &["-pthread", "-static"]));
static NOLIBC: LazyLock<Option<PathBuf>> =
    LazyLock::new(|| build("nolibc", "nolibc.c", &["-static", "-nostdlib", "-fno-stack-protector"]));

pub(crate) fn build(name: &str, source: &str, options: &[&str]) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/side_by_side").join(source);
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let built = Command::new("cc").arg("-O2").args(options).arg("-o").arg(&program).arg(source).status();
    built.is_ok_and(|status| status.success()).then_some(program)
}

impl Server {
    /// Starts one, and waits until it answers; `None` where it can't be had.
    pub(crate) fn start(program: Program, is_datagram: bool) -> io::Result<Option<Self>> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let control = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("control-{port}"));
        let Some(words) = words(program, port, is_datagram, &control)? else { return Ok(None) };
        let group = Group::new(port);
        let mut command = Command::new("sh");
        let join = match &group {
            Some(group) => format!("echo $$ > {}/cgroup.procs; exec \"$0\" \"$@\"", group.0.display()),
            None => "exec \"$0\" \"$@\"".into(),
        };
        command
            .arg("-c")
            .arg(join)
            .args(&words)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0);
        let server = Self { process: command.spawn()?, group, port, is_datagram, control };
        server.ready(matches!(program, Program::Nginx)).map(Some)
    }

    fn ready(self, is_http: bool) -> io::Result<Self> {
        let give_up = Instant::now() + Duration::from_secs(5);
        while Instant::now() < give_up {
            let answers = match self.is_datagram {
                true => datagram(self.port),
                false if is_http => TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).map(drop),
                false => exchange(self.port),
            };
            if answers.is_ok() {
                return Ok(self);
            }
            sleep(Duration::from_millis(10));
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "a server does not answer"))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn target(&self) -> io::Result<Target> {
        let scheme = if self.is_datagram { "udp" } else { "tcp" };
        let endpoint = format!("{scheme}://127.0.0.1:{}", self.port).parse().map_err(io::Error::other)?;
        Target::new(&endpoint, Reach::Loopback).map_err(io::Error::other)
    }

    /// The processor time of all that ever ran in it.
    pub(crate) fn cpu(&self) -> Option<Duration> {
        self.group.as_ref()?.cpu()
    }

    /// Sends its process a signal, or SIGKILL to all of its processes; returns how long it is until all are gone: the last
    /// one closes the standard output that they have in common. To ask for them again and again would delay their ends.
    pub(crate) fn end_by(&mut self, signal: Signal) -> io::Result<Duration> {
        let begun = Instant::now();
        match signal {
            Signal::SIGKILL => self.kill(),
            _ => nix::sys::signal::kill(Pid::from_raw(self.pid() as i32), signal)?,
        }
        if let Some(output) = &mut self.process.stdout {
            io::copy(output, &mut io::sink())?;
        }
        self.process.wait()?;
        Ok(begun.elapsed())
    }

    fn kill(&self) {
        let _ = killpg(Pid::from_raw(self.pid() as i32), Signal::SIGKILL);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let _ = self.process.wait();
        let _ = fs::remove_file(&self.control);
    }
}

fn words(program: Program, port: u16, is_datagram: bool, control: &Path) -> io::Result<Option<Vec<String>>> {
    let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let reference = |built: Option<String>, mode: &str| {
        let (mode, count) = mode.split_once(' ').unwrap_or((mode, "0"));
        built.map(|program| vec![program, mode.into(), port.to_string(), count.into()])
    };
    Ok(match program {
        Program::Forkd(options) => {
            let scheme = if is_datagram { "udp" } else { "tcp" };
            let mut words = vec![forkd().display().to_string(), "serve".into()];
            words.extend(options.split_whitespace().map(ToOwned::to_owned));
            if !options.contains("--sandbox") {
                // the references have none
                words.extend(["--sandbox", "off"].map(ToOwned::to_owned));
            }
            words.extend(["--control".into(), control.display().to_string()]);
            words.push(format!("{scheme}://127.0.0.1:{port}"));
            Some(words)
        }
        Program::Reference(mode) => reference(path(&REFERENCE), mode),
        Program::Static(mode) => reference(path(&STATIC), mode),
        Program::NoLibc if cfg!(target_arch = "x86_64") => {
            path(&NOLIBC).map(|program| vec![program, port.to_string()])
        }
        Program::NoLibc => None,
        Program::Nginx => nginx(port)?,
    })
}

/// The file that http serves, of ten megabytes, beside one of a kilobyte.
pub(crate) fn documents() -> io::Result<PathBuf> {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("documents");
    fs::create_dir_all(&root)?;
    for (name, size) in [("small", 1024), ("large", 10 << 20)] {
        if root.join(name).metadata().map_or(0, |meta| meta.len()) != size {
            fs::write(root.join(name), vec![b'x'; size as usize])?;
        }
    }
    Ok(root)
}

fn nginx(port: u16) -> io::Result<Option<Vec<String>>> {
    let Some(program) =
        ["/usr/sbin/nginx", "/usr/bin/nginx"].into_iter().find(|path| Path::new(path).exists())
    else {
        return Ok(None);
    };
    let (root, dir) = (documents()?, env!("CARGO_TARGET_TMPDIR"));
    let config = format!("{dir}/nginx-{port}.conf");
    let text = format!(
        "daemon off; worker_processes 2; pid {dir}/nginx-{port}.pid; error_log /dev/null; user root;\n\
         events {{ worker_connections 4096; }}\n\
         http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000; client_body_temp_path {dir};\n\
         server {{ listen 127.0.0.1:{port} backlog=4096; root {}; }} }}\n",
        root.display()
    );
    fs::write(&config, text)?;
    Ok(Some(vec![program.into(), "-c".into(), config]))
}

fn exchange(port: u16) -> io::Result<()> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    // a server of http answers that it can't read it
    stream.write_all(b"?\r\n\r\n")?;
    stream.read_exact(&mut [0])
}

fn datagram(port: u16) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect((Ipv4Addr::LOCALHOST, port))?;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    socket.send(b"?")?;
    socket.recv(&mut [0]).map(drop)
}

/// A control group, which knows the processor time of children that are gone.
struct Group(PathBuf);

impl Group {
    /// `None` where none may be made.
    fn new(number: u16) -> Option<Self> {
        let roots = ["/sys/fs/cgroup/cpuacct", "/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup"];
        roots.into_iter().find_map(|root| {
            let path = Path::new(root).join(format!("forkd-bench-{}-{number}", std::process::id()));
            fs::create_dir(&path).ok()?;
            Some(Self(path)).filter(|group| group.cpu().is_some())
        })
    }

    fn cpu(&self) -> Option<Duration> {
        if let Ok(nanos) = fs::read_to_string(self.0.join("cpuacct.usage")) {
            return nanos.trim().parse().ok().map(Duration::from_nanos);
        }
        let text = fs::read_to_string(self.0.join("cpu.stat")).ok()?;
        let micros = text.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
        micros.trim().parse().ok().map(Duration::from_micros)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let give_up = Instant::now() + Duration::from_secs(5);
        while fs::remove_dir(&self.0).is_err() && Instant::now() < give_up {
            sleep(Duration::from_millis(5));
        }
    }
}
