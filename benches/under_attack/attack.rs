//! The attackers: processes of their own, each for a few seconds, and against loopback alone.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::sockopt::set_socket_linger;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};

use crate::daemon::{Daemon, Service};

/// The first argument of an attacker.
pub(crate) const WORD: &str = "--attack";

/// How many clients stay: that do not read, that send bulk, that are slow.
const SILENT: usize = 200;
const BULK: usize = 50;
const SLOW: usize = 1000;
/// How often a slow client sends a byte.
const SLOW_PACE: Duration = Duration::from_millis(500);
/// How many clients one source has, and when one that was refused comes again.
const CROWD: usize = 1000;
/// How many of them the daemon serves.
const PER_SOURCE: usize = 4;
const CROWD_PAUSE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attack {
    /// Connections that are reset as soon as they are there, one after the other as fast as it goes.
    Resets,
    /// Clients that send all they can and read nothing.
    Silent,
    /// Clients that send all they can and read it, too.
    Bulk,
    /// http clients whose requests come byte by byte.
    Slow,
    /// Datagrams as fast as one sender can, to the same daemon.
    Datagrams,
    /// Clients of one source that stay and say nothing, or come again and again where they are refused.
    OneSource,
}

impl Attack {
    pub(crate) const ALL: [Self; 6] =
        [Self::Resets, Self::Silent, Self::Bulk, Self::Slow, Self::Datagrams, Self::OneSource];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Resets => "resets",
            Self::Silent => "200-silent",
            Self::Bulk => "50-bulk",
            Self::Slow => "1000-slow-http",
            Self::Datagrams => "udp-flood",
            Self::OneSource => "1000-one-source",
        }
    }

    /// How many of its clients stay connected.
    pub(crate) fn stays(self) -> usize {
        match self {
            Self::Resets | Self::Datagrams => 0,
            Self::Silent => SILENT,
            Self::Bulk => BULK,
            Self::Slow => SLOW,
            Self::OneSource => PER_SOURCE,
        }
    }

    /// What the daemons are started with besides.
    pub(crate) fn options(self) -> Vec<String> {
        match self {
            Self::OneSource => vec![format!("--max-per-source={PER_SOURCE}")],
            _ => Vec::new(),
        }
    }

    pub(crate) fn service(self) -> Service {
        match self {
            Self::Slow => Service::Http,
            Self::Datagrams => Service::EchoBoth,
            _ => Service::Echo,
        }
    }

    /// Starts an attacker, which ends by itself soon after `span`. Its clients that stay are connected when this
    /// returns, but have sent nothing yet.
    pub(crate) fn begin(self, daemon: &Daemon, span: Duration) -> io::Result<Attacker> {
        let mut process = Command::new(std::env::current_exe()?)
            .args([WORD, self.name(), &daemon.address.port().to_string(), &span.as_millis().to_string()])
            .stdout(Stdio::piped())
            .spawn()?;
        if let Some(mut ready) = process.stdout.take() {
            ready.read_exact(&mut [0])?;
        }
        Ok(Attacker(process))
    }
}

pub(crate) struct Attacker(Child);

impl Attacker {
    pub(crate) fn end(mut self) -> io::Result<()> {
        self.0.kill()?;
        self.0.wait().map(drop)
    }
}

/// An attacker's whole life.
pub(crate) fn run(arguments: &[String]) -> io::Result<()> {
    let wrong = || io::Error::from(io::ErrorKind::InvalidInput);
    let [name, port, span] = arguments else { return Err(wrong()) };
    let attack = Attack::ALL.into_iter().find(|attack| attack.name() == name).ok_or_else(wrong)?;
    let port: u16 = port.parse().map_err(|_| wrong())?;
    let span = Duration::from_millis(span.parse().map_err(|_| wrong())?);
    let target = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match attack {
        Attack::Resets => resets(target, begun(span)?),
        Attack::Silent => floods(&clients(target, SILENT)?, begun(span)?, false),
        Attack::Bulk => floods(&clients(target, BULK)?, begun(span)?, true),
        Attack::Slow => slow(&clients(target, SLOW)?, begun(span)?),
        Attack::Datagrams => datagrams(target, begun(span)?),
        Attack::OneSource => crowd(target, begun(span)?),
    }
}

/// Tells the bench that it begins; returns when it is over.
fn begun(span: Duration) -> io::Result<Instant> {
    io::stdout().write_all(b".")?;
    io::stdout().flush()?;
    Ok(Instant::now() + span + Duration::from_secs(1))
}

fn clients(target: SocketAddr, count: usize) -> io::Result<Vec<TcpStream>> {
    let connect = |_| {
        let client = TcpStream::connect(target)?;
        client.set_nonblocking(true)?;
        Ok(client)
    };
    (0..count).map(connect).collect()
}

fn resets(target: SocketAddr, until: Instant) -> io::Result<()> {
    while Instant::now() < until {
        let client = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::NONBLOCK, None)?;
        // where the queue is full it does not wait, and the next one tries
        let _ = connect(&client, &target);
        set_socket_linger(&client, Some(Duration::ZERO))?;
    }
    Ok(())
}

fn floods(clients: &[TcpStream], until: Instant, reads: bool) -> io::Result<()> {
    let piece = vec![7; 256 * 1024];
    let mut heard = vec![0; 256 * 1024];
    let flags = if reads { PollFlags::IN | PollFlags::OUT } else { PollFlags::OUT };
    while Instant::now() < until {
        let mut ready: Vec<_> = clients.iter().map(|client| PollFd::new(client, flags)).collect();
        poll(&mut ready, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 50_000_000 }))?;
        for (mut client, ready) in clients.iter().zip(&ready) {
            if ready.revents().contains(PollFlags::OUT) {
                let _ = client.write(&piece);
            }
            if ready.revents().contains(PollFlags::IN) {
                let _ = client.read(&mut heard);
            }
        }
    }
    Ok(())
}

fn slow(clients: &[TcpStream], until: Instant) -> io::Result<()> {
    let head = b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Padding: ".iter().chain(std::iter::repeat(&b'a'));
    let pause = SLOW_PACE / clients.len() as u32;
    let mut next = Instant::now();
    for byte in head {
        for mut client in clients {
            let now = Instant::now();
            if now >= until {
                return Ok(());
            }
            thread::sleep(next.saturating_duration_since(now));
            next += pause;
            let _ = client.write(&[*byte]);
        }
    }
    Ok(())
}

fn datagrams(target: SocketAddr, until: Instant) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(target)?;
    while Instant::now() < until {
        for _ in 0..64 {
            let _ = socket.send(&[7; 32]);
        }
    }
    Ok(())
}

fn crowd(target: SocketAddr, until: Instant) -> io::Result<()> {
    let source = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), 0));
    let begin = Instant::now();
    // when one comes, or comes again
    let mut outside: VecDeque<Instant> =
        (0..CROWD as u32).map(|i| begin + CROWD_PAUSE * i / CROWD as u32).collect();
    let mut clients = Vec::new();
    while Instant::now() < until {
        while outside.front().is_some_and(|then| *then <= Instant::now()) {
            outside.pop_front();
            let client = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::NONBLOCK, None)?;
            bind(&client, &source)?;
            let _ = connect(&client, &target);
            clients.push(client);
        }
        let mut ready: Vec<_> = clients.iter().map(|client| PollFd::new(client, PollFlags::IN)).collect();
        poll(&mut ready, Some(&rustix::event::Timespec::default()))?;
        let refused: Vec<_> = ready.iter().map(|ready| !ready.revents().is_empty()).collect();
        let mut each = refused.iter();
        clients.retain(|_| each.next() != Some(&true));
        let again = Instant::now() + CROWD_PAUSE;
        outside.extend(refused.iter().filter(|refused| **refused).map(|_| again));
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
