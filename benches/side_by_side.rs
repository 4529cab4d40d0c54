//! forkd beside the C reference of the same model, sample by sample in turn: `cargo bench`.
//!
//! Only the ratios mean something: rates move with the machine, and with whatever else runs on it.
//! Each round measures the reference and forkd within a second of each other; the table shows the
//! median of the rounds' ratios with the smallest and largest. Needs a C compiler (`cc`).

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const ROUNDS: usize = 7;
const SAMPLE: Duration = Duration::from_millis(500);
const MESSAGE: [u8; 64] = *b"sixty-four bytes, ends with a newline: a message of this bench.\n";

/// What one client does over and over; returns how much it got done (operations, or bytes).
type Client = fn(port: u16, until: &AtomicBool, done: &AtomicU64) -> io::Result<()>;

struct Case {
    name: &'static str,
    /// What the reference is told, and what forkd is told.
    reference: &'static str,
    forkd: &'static [&'static str],
    client: Client,
    clients: usize,
}

const FORK: &[&str] = &["--model", "fork"];
const PREFORK: &[&str] = &["--model", "prefork", "--workers", "8"];
const THREAD: &[&str] = &["--model", "thread"];
const EVENT: &[&str] = &["--model", "event"];
const COROUTINE: &[&str] = &["--model", "coroutine"];
const ONE_WORKER: &[&str] = &["--model", "prefork", "--workers", "1"];

const CASES: [Case; 21] = [
    Case {
        name: "fork: connections, 1 client",
        reference: "fork",
        forkd: FORK,
        client: connect_each,
        clients: 1,
    },
    Case {
        name: "fork: connections, 32 clients",
        reference: "fork",
        forkd: FORK,
        client: connect_each,
        clients: 32,
    },
    Case { name: "fork: ping-pong", reference: "fork", forkd: FORK, client: ping_pong, clients: 1 },
    Case { name: "fork: bulk, bytes", reference: "fork", forkd: FORK, client: bulk, clients: 1 },
    Case {
        name: "prefork: connections, 1 client",
        reference: "prefork",
        forkd: PREFORK,
        client: connect_each,
        clients: 1,
    },
    Case {
        name: "prefork: connections, 8 clients",
        reference: "prefork",
        forkd: PREFORK,
        client: connect_each,
        clients: 8,
    },
    Case {
        name: "thread: connections, 1 client",
        reference: "thread",
        forkd: THREAD,
        client: connect_each,
        clients: 1,
    },
    Case {
        name: "thread: connections, 8 clients",
        reference: "thread",
        forkd: THREAD,
        client: connect_each,
        clients: 8,
    },
    Case { name: "thread: ping-pong", reference: "thread", forkd: THREAD, client: ping_pong, clients: 1 },
    Case {
        name: "event: connections, 1 client",
        reference: "event",
        forkd: EVENT,
        client: connect_each,
        clients: 1,
    },
    Case {
        name: "event: connections, 8 clients",
        reference: "event",
        forkd: EVENT,
        client: connect_each,
        clients: 8,
    },
    Case {
        name: "event: ping-pong, 1 client",
        reference: "event",
        forkd: EVENT,
        client: ping_pong,
        clients: 1,
    },
    Case {
        name: "event: ping-pong, 32 clients",
        reference: "event",
        forkd: EVENT,
        client: ping_pong,
        clients: 32,
    },
    Case { name: "event: bulk, bytes", reference: "event", forkd: EVENT, client: bulk, clients: 1 },
    Case {
        name: "coroutine: connections, 1 client",
        reference: "event",
        forkd: COROUTINE,
        client: connect_each,
        clients: 1,
    },
    Case {
        name: "coroutine: connections, 8 clients",
        reference: "event",
        forkd: COROUTINE,
        client: connect_each,
        clients: 8,
    },
    Case {
        name: "coroutine: ping-pong, 1 client",
        reference: "event",
        forkd: COROUTINE,
        client: ping_pong,
        clients: 1,
    },
    Case {
        name: "coroutine: ping-pong, 32 clients",
        reference: "event",
        forkd: COROUTINE,
        client: ping_pong,
        clients: 32,
    },
    Case { name: "coroutine: bulk, bytes", reference: "event", forkd: COROUTINE, client: bulk, clients: 1 },
    Case { name: "udp: ping-pong", reference: "udp", forkd: ONE_WORKER, client: udp_ping_pong, clients: 1 },
    Case { name: "udp: 32 clients", reference: "udp", forkd: ONE_WORKER, client: udp_ping_pong, clients: 32 },
];

fn main() -> io::Result<()> {
    // `cargo test --benches` and the like only want to know that it builds
    if !std::env::args().any(|arg| arg == "--bench") {
        return Ok(());
    }
    let reference = build_reference()?;
    println!("{:<34} {:>12} {:>12} {:>8} {:>15}", "case", "reference/s", "forkd/s", "ratio", "min-max");
    for case in &CASES {
        let (mut a, mut b) = (Server::reference(&reference, case)?, Server::forkd(case)?);
        let mut rates = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            rates.0.push(sample(case, a.port)?);
            rates.1.push(sample(case, b.port)?);
        }
        a.stop()?;
        b.stop()?;
        let mut ratios: Vec<f64> = rates.0.iter().zip(&rates.1).map(|(a, b)| b / a).collect();
        let (reference, forkd, ratio) = (median(&mut rates.0), median(&mut rates.1), median(&mut ratios));
        let range = format!("{:.2}-{:.2}", ratios[0], ratios[ROUNDS - 1]);
        println!("{:<34} {reference:>12.0} {forkd:>12.0} {ratio:>8.2} {range:>15}", case.name);
    }
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn build_reference() -> io::Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/reference.c");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("reference");
    let built = Command::new("cc").args(["-O2", "-pthread", "-o"]).arg(&program).arg(source).status()?;
    if built.success() { Ok(program) } else { Err(io::Error::other("cc failed")) }
}

struct Server {
    process: Child,
    port: u16,
}

impl Server {
    fn reference(program: &Path, case: &Case) -> io::Result<Self> {
        let port = free_port()?;
        let process = Command::new(program).args([case.reference, &port.to_string()]).spawn()?;
        Self { process, port }.ready(case)
    }

    fn forkd(case: &Case) -> io::Result<Self> {
        let port = free_port()?;
        let scheme = if case.reference == "udp" { "udp" } else { "tcp" };
        let endpoint = format!("{scheme}://127.0.0.1:{port}");
        let mut command = Command::new(env!("CARGO_BIN_EXE_forkd"));
        command.arg("serve").args(case.forkd).arg(endpoint).stderr(Stdio::null());
        Self { process: command.spawn()?, port }.ready(case)
    }

    /// Waits until it echoes.
    fn ready(self, case: &Case) -> io::Result<Self> {
        let give_up = Instant::now() + Duration::from_secs(5);
        while Instant::now() < give_up {
            let (until, done) = (AtomicBool::new(true), AtomicU64::new(0));
            if (case.client)(self.port, &until, &done).is_ok() && done.into_inner() > 0 {
                return Ok(self);
            }
            thread::sleep(Duration::from_millis(10));
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("{}: the server does not echo", case.name)))
    }

    fn stop(&mut self) -> io::Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

/// Free for both protocols a moment ago, which is good enough on a machine of one's own.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// How much gets done in a second.
fn sample(case: &Case, port: u16) -> io::Result<f64> {
    let (over, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let start = Instant::now();
    thread::scope(|scope| {
        let run = || (case.client)(port, &over, &done);
        let clients: Vec<_> = (0..case.clients).map(|_| scope.spawn(run)).collect();
        thread::sleep(SAMPLE);
        over.store(true, Ordering::Relaxed);
        clients.into_iter().try_for_each(|client| {
            client.join().unwrap_or_else(|_| Err(io::Error::other("a client panicked")))
        })
    })?;
    Ok(done.into_inner() as f64 / start.elapsed().as_secs_f64())
}

/// Repeats `turn` until it is over, but at least once; counts what it returns.
fn repeat(over: &AtomicBool, done: &AtomicU64, mut turn: impl FnMut() -> io::Result<u64>) -> io::Result<()> {
    loop {
        done.fetch_add(turn()?, Ordering::Relaxed);
        if over.load(Ordering::Relaxed) {
            return Ok(());
        }
    }
}

fn open(port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    Ok(stream)
}

fn exchange(stream: &mut TcpStream) -> io::Result<u64> {
    let mut answer = [0; MESSAGE.len()];
    stream.write_all(&MESSAGE)?;
    stream.read_exact(&mut answer)?;
    if answer == MESSAGE { Ok(1) } else { Err(io::Error::other("not an echo")) }
}

fn connect_each(port: u16, over: &AtomicBool, done: &AtomicU64) -> io::Result<()> {
    repeat(over, done, || exchange(&mut open(port)?))
}

fn ping_pong(port: u16, over: &AtomicBool, done: &AtomicU64) -> io::Result<()> {
    let mut stream = open(port)?;
    repeat(over, done, || exchange(&mut stream))
}

/// Writes and reads at the same time; counts bytes that came back.
fn bulk(port: u16, over: &AtomicBool, done: &AtomicU64) -> io::Result<()> {
    let mut reader = open(port)?;
    let mut writer = reader.try_clone()?;
    thread::scope(|scope| {
        let sender = scope.spawn(move || {
            let piece = [7; 65_536];
            while !over.load(Ordering::Relaxed) {
                writer.write_all(&piece)?;
            }
            writer.write_all(&piece)?;
            writer.shutdown(std::net::Shutdown::Write)
        });
        let mut piece = [0; 65_536];
        loop {
            match reader.read(&mut piece)? {
                0 => break,
                n => done.fetch_add(n as u64, Ordering::Relaxed),
            };
        }
        sender.join().unwrap_or_else(|_| Err(io::Error::other("the sender panicked")))
    })
}

fn udp_ping_pong(port: u16, over: &AtomicBool, done: &AtomicU64) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect((Ipv4Addr::LOCALHOST, port))?;
    socket.set_read_timeout(Some(Duration::from_millis(250)))?;
    repeat(over, done, || {
        let mut answer = [0; MESSAGE.len()];
        socket.send(&MESSAGE)?;
        match socket.recv(&mut answer) {
            Ok(_) => Ok(1),
            // lost: the next one will do
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(error),
        }
    })
}
