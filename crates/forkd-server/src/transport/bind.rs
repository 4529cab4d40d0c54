//! Makes listening sockets.

mod advice;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{
    Backlog, SockaddrStorage, bind, getsockname, getsockopt, listen, setsockopt, sockopt,
};
use rustix::net::AddressFamily;

use advice::{advice, rival};

use super::listener::{Kind, ask_for_packet_information, ip_endpoint};
use super::socket_file::SocketFile;
use super::{Endpoint, Inherited, Listener, resolve};
use crate::sys::socket::{Mode, socket};
use crate::{Error, Failure};
use forkd_net::unit::{self, Attempt};

/// How to bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BindOptions {
    /// Connections that the kernel queues, at most `somaxconn`.
    pub backlog: u32,
    /// Whether `[::]` leaves IPv4 alone.
    pub v6only: bool,
    /// Permission bits of a socket file; `None` leaves it to the umask.
    pub socket_mode: Option<u32>,
    /// Whether a stream's port may have connections left of an earlier server (`SO_REUSEADDR`).
    pub reuse_address: bool,
    /// Whether other processes may bind the same port, and share its clients (`SO_REUSEPORT`).
    pub reuse_port: bool,
    /// How long a TCP peer may leave the kernel without an answer; `None`: for ever.
    pub keep_alive: Option<Duration>,
    /// Bytes of room for UDP datagrams not yet received, at most `rmem_max`; `None` leaves it to the system.
    pub receive_buffer: Option<u32>,
}

/// How long a TCP peer may be left: the kernel counts in seconds, and so far.
pub const KEEP_ALIVE_RANGE: RangeInclusive<Duration> =
    Duration::from_secs(2)..=Duration::from_secs(12 * 60 * 60);

/// When a TCP peer that has vanished is noticed, by default.
pub const KEEP_ALIVE: Duration = Duration::from_secs(120);

impl Default for BindOptions {
    fn default() -> Self {
        Self {
            backlog: 4096,
            v6only: false,
            socket_mode: None,
            reuse_address: true,
            reuse_port: false,
            keep_alive: Some(KEEP_ALIVE),
            receive_buffer: None,
        }
    }
}

/// Changes what can be changed of a socket that is bound: its queue or buffer, the mode of its file, and what its
/// connections get. One that was inherited is not ours to change.
///
/// # Errors
///
/// As listen(2), setsockopt(2) and chmod(2).
pub(crate) fn adapt(listener: &Listener, options: BindOptions) -> io::Result<()> {
    listener.keep_alive(options.keep_alive);
    if listener.is_inherited() {
        return Ok(());
    }
    if listener.kind() == Kind::Stream {
        start_listening(&listener.socket, options.backlog)?;
    }
    set_receive_buffer(listener, options.receive_buffer)?;
    if let (Some(file), Some(mode)) = (&*listener.file(), options.socket_mode) {
        file.set_mode(mode)?;
    }
    Ok(())
}

/// An endpoint of this daemon that is bound.
#[derive(Debug, Clone, Copy)]
pub struct Holder<'a> {
    /// Its endpoint.
    pub endpoint: &'a Endpoint,
    /// By the configuration that is in force while another is prepared.
    pub is_old: bool,
}

/// How many ports are tried that the kernel chooses, until one is free for all addresses.
const PORTS_TO_TRY: usize = 32;

/// Binds every address that an endpoint stands for, or takes what was `inherited` for it. Port 0 is one port for all of
/// them.
///
/// # Errors
///
/// A sentence that names the endpoint, and if one of the `holders` has the address, which. Of several addresses, those of a family that this machine lacks are left out as
/// long as one can be bound.
pub fn bind_all(
    endpoint: &Endpoint,
    options: BindOptions,
    holders: &[Holder<'_>],
    inherited: &Inherited,
) -> Result<Vec<Listener>, Error> {
    match endpoint {
        Endpoint::Unix(path) => Ok(vec![bind_unix(endpoint, path, Kind::Stream, options)?]),
        Endpoint::Unixgram(path) => Ok(vec![bind_unix(endpoint, path, Kind::Datagram, options)?]),
        Endpoint::Systemd(name) => {
            let listeners = inherited.adopt(name.as_deref())?;
            listeners.iter().for_each(|listener| listener.keep_alive(options.keep_alive));
            Ok(listeners)
        }
        Endpoint::Tcp { .. } | Endpoint::Udp { .. } => {
            Ok(bind_at_one_port(&[endpoint], None, options, holders)?.remove(0))
        }
    }
}

/// Binds every address that these endpoints of TCP and UDP stand for, and returns the listeners of each. Where they have
/// port 0, all get the same one: this, or one that the kernel chooses.
///
/// # Errors
///
/// As [`bind_all`].
pub(crate) fn bind_at_one_port(
    endpoints: &[&Endpoint],
    port: Option<u16>,
    options: BindOptions,
    holders: &[Holder<'_>],
) -> Result<Vec<Vec<Listener>>, Error> {
    let targets: Vec<Target> =
        endpoints.iter().map(|endpoint| Target::of(endpoint)).collect::<Result<_, _>>()?;
    let is_chosen = port.is_none() && endpoints.iter().all(|endpoint| endpoint.port() == Some(0));
    // They are kept meanwhile, so that the kernel chooses other ports.
    let mut in_vain = Vec::new();
    loop {
        let mut bound = Vec::new();
        let Err(Failed { address, kind, error }) = bind_targets(&targets, port, options, &mut bound) else {
            return Ok(bound);
        };
        let is_taken =
            error.kind() == io::ErrorKind::AddrInUse && bound.iter().any(|bound| !bound.is_empty());
        if is_chosen && is_taken && in_vain.len() < PORTS_TO_TRY {
            in_vain.push(bound);
            continue;
        }
        let hint = unit::hint(Attempt::Bind { address, datagrams: kind == Kind::Datagram }, &error);
        let advice = match &hint {
            // a unit's settings are nearer than what holds for the machine
            Some(_) => String::new(),
            None => advice(&error, address, rival(address, kind, holders)),
        };
        let what = format!("cannot bind {}{advice}", ip_endpoint(address, kind));
        return Err(Error::from_io(what, error).advising(hint));
    }
}

/// What an endpoint stands for.
struct Target {
    kind: Kind,
    addresses: Vec<SocketAddr>,
}

impl Target {
    fn of(endpoint: &Endpoint) -> Result<Self, Error> {
        let (host, port, kind) = match endpoint {
            Endpoint::Tcp { host, port } => (host, *port, Kind::Stream),
            Endpoint::Udp { host, port } => (host, *port, Kind::Datagram),
            other => return Err(Error::Internal(format!("{other} has no port"))),
        };
        let addresses = resolve::resolve(host, port)
            .map_err(|e| Error::Unavailable(Failure::new(format!("cannot bind {endpoint}"), e)))?;
        Ok(Self { kind, addresses })
    }
}

/// Which address can't be bound, and why.
struct Failed {
    address: SocketAddr,
    kind: Kind,
    error: io::Error,
}

/// Binds the addresses of each target, and adds its listeners to those that are bound. Port 0 is the same for all.
fn bind_targets(
    targets: &[Target],
    mut port: Option<u16>,
    options: BindOptions,
    bound: &mut Vec<Vec<Listener>>,
) -> Result<(), Failed> {
    for Target { kind, addresses } in targets {
        let (kind, mut listeners, mut absent) = (*kind, Vec::new(), None);
        let mut outcome = Ok(());
        for &(mut address) in addresses {
            if address.port() == 0 {
                address.set_port(port.unwrap_or(0));
            }
            match bind_ip(address, kind, options) {
                Ok(listener) => {
                    port = port.or(listener.endpoint().port());
                    listeners.push(listener);
                }
                Err(error) if is_absent(&error) => absent = Some(Failed { address, kind, error }),
                Err(error) => {
                    outcome = Err(Failed { address, kind, error });
                    break;
                }
            }
        }
        let is_absent = listeners.is_empty();
        bound.push(listeners);
        outcome?;
        if let (true, Some(absent)) = (is_absent, absent) {
            return Err(absent);
        }
    }
    Ok(())
}

/// The machine has no such address, or no such family.
fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(libc::EAFNOSUPPORT)
}

fn bind_ip(address: SocketAddr, kind: Kind, options: BindOptions) -> io::Result<Listener> {
    let sockaddr = SockaddrStorage::from(address);
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = socket(family, kind.socket_type(), Mode::Blocking)?;
    if address.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6V6Only, &options.v6only)?;
    }
    if kind == Kind::Stream {
        // not with UDP, where it would let a second daemon share the port unnoticed
        setsockopt(&socket, sockopt::ReuseAddr, &options.reuse_address)?;
    }
    if options.reuse_port {
        share_port(&socket)?;
    }
    match kind {
        // accepted sockets inherit it
        Kind::Stream => setsockopt(&socket, sockopt::TcpNoDelay, &true)?,
        Kind::Datagram => ask_for_packet_information(&socket, address)?,
    }
    bind(socket.as_raw_fd(), &sockaddr)?;
    if kind == Kind::Stream {
        start_listening(&socket, options.backlog)?;
    }
    let local: SockaddrStorage = getsockname(socket.as_raw_fd())?;
    let port = local.as_sockaddr_in().map(|a| a.port()).or(local.as_sockaddr_in6().map(|a| a.port()));
    let mut bound = address;
    bound.set_port(port.unwrap_or(address.port()));
    let listener = Listener::ours(socket, kind, ip_endpoint(bound, kind), None);
    listener.keep_alive(options.keep_alive);
    set_receive_buffer(&listener, options.receive_buffer)?;
    Ok(listener)
}

#[cfg(not(any(target_os = "illumos", target_os = "solaris")))]
fn share_port(socket: &OwnedFd) -> io::Result<()> {
    Ok(setsockopt(socket, sockopt::ReusePort, &true)?)
}

#[cfg(any(target_os = "illumos", target_os = "solaris"))]
fn share_port(_: &OwnedFd) -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no SO_REUSEPORT"))
}

fn start_listening(socket: &OwnedFd, backlog: u32) -> io::Result<()> {
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    listen(socket, Backlog::new(backlog).unwrap_or(Backlog::MAXCONN))?;
    Ok(())
}

/// Gives datagrams of UDP so much room, or as much as the kernel allows.
fn set_receive_buffer(listener: &Listener, bytes: Option<u32>) -> io::Result<()> {
    match bytes.filter(|_| listener.udp_port().is_some()) {
        Some(bytes) => Ok(setsockopt(&listener.socket, sockopt::RcvBuf, &(bytes as usize))?),
        None => Ok(()),
    }
}

/// What the receive buffer was asked to be, and what the kernel has made it, if that is less.
pub(crate) fn receive_buffer_cap(listener: &Listener, options: BindOptions) -> Option<(u32, u32)> {
    let asked =
        options.receive_buffer.filter(|_| listener.udp_port().is_some() && !listener.is_inherited())?;
    let size = u32::try_from(getsockopt(&listener.socket, sockopt::RcvBuf).ok()?).ok()?;
    // Linux tells of the double
    let cap = if cfg!(target_os = "linux") { size / 2 } else { size };
    (cap < asked).then_some((asked, cap))
}

fn bind_unix(endpoint: &Endpoint, path: &Path, kind: Kind, options: BindOptions) -> Result<Listener, Error> {
    let bind_and_listen = || -> io::Result<(OwnedFd, SocketFile)> {
        let socket = socket(AddressFamily::UNIX, kind.socket_type(), Mode::Blocking)?;
        let file = SocketFile::bind(&socket, path, options.socket_mode)?;
        if kind == Kind::Stream
            && let Err(error) = start_listening(&socket, options.backlog)
        {
            // the first error says more
            let _ = file.remove();
            return Err(error);
        }
        Ok((socket, file))
    };
    let (socket, file) = bind_and_listen().map_err(|error| cannot_bind_unix(endpoint, path, error))?;
    Ok(Listener::ours(socket, kind, endpoint.clone(), Some(file)))
}

/// Says why there is no socket file at the path of an endpoint.
pub fn cannot_bind_unix(endpoint: &Endpoint, path: &Path, error: io::Error) -> Error {
    let what = format!("cannot bind {endpoint}");
    let hint = unit::hint(Attempt::Make(path), &error);
    let error = match error.kind() {
        io::ErrorKind::PermissionDenied => Error::Permission(Failure::new(what, error)),
        io::ErrorKind::AddrInUse => Error::Unavailable(Failure::new(
            format!("{what} (another program, or another forkd, listens there)"),
            error,
        )),
        _ => Error::CannotCreate(Failure::new(what, error)),
    };
    error.advising(hint)
}

/// The most that listen(2) queues on this system, where it says so.
pub(crate) fn kernel_backlog_limit() -> Option<u32> {
    fs::read_to_string("/proc/sys/net/core/somaxconn").ok()?.trim().parse().ok()
}
