//! The attackers: processes of their own, each for a few seconds, and against loopback alone.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::sockopt::set_socket_linger;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

use crate::daemon::{Daemon, Service};

/// The first argument of an attacker.
pub(crate) const WORD: &str = "--attack";

/// How many clients stay: that do not read, that send bulk, that are slow.
const SILENT: usize = 200;
const BULK: usize = 50;
const SLOW: usize = 1000;
/// How often a slow client sends a byte.
const SLOW_PACE: Duration = Duration::from_millis(500);

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
}

impl Attack {
    pub(crate) const ALL: [Self; 5] = [Self::Resets, Self::Silent, Self::Bulk, Self::Slow, Self::Datagrams];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Resets => "resets",
            Self::Silent => "200-silent",
            Self::Bulk => "50-bulk",
            Self::Slow => "1000-slow-http",
            Self::Datagrams => "udp-flood",
        }
    }

    /// Whether its clients stay connected.
    pub(crate) fn stays(self) -> bool {
        matches!(self, Self::Silent | Self::Bulk | Self::Slow)
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
