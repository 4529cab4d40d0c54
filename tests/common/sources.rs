//! Clients from several addresses of this machine.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect as connect_to, getsockname, socket,
};

use super::{Client, Daemon, LIMIT, eventually};

/// Connects from 127.0.0.N; reads and writes have time-outs.
#[track_caller]
pub fn from(n: u8, daemon: &Daemon) -> Client {
    tries(n, daemon).expect("connect")
}

/// The same where the server may be so quick to refuse the client that it does not see that it was connected.
pub fn tries(n: u8, daemon: &Daemon) -> io::Result<Client> {
    connected(bound(n).0, daemon)
}

/// A socket with an address from which it will connect.
pub fn bound(n: u8) -> (OwnedFd, SocketAddr) {
    let client = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(client.as_raw_fd(), &SockaddrIn::new(127, 0, 0, n, 0)).unwrap();
    let address: SockaddrIn = getsockname(client.as_raw_fd()).unwrap();
    (client, SocketAddr::new(address.ip().into(), address.port()))
}

pub fn connected(client: OwnedFd, daemon: &Daemon) -> io::Result<Client> {
    let SocketAddr::V4(address) = daemon.addr() else { panic!("no address of IPv4") };
    connect_to(client.as_raw_fd(), &SockaddrIn::from(address))?;
    let client = TcpStream::from(client);
    client.set_read_timeout(Some(LIMIT)).unwrap();
    client.set_write_timeout(Some(LIMIT)).unwrap();
    Ok(client)
}

/// Connects from 127.0.0.N again and again until it is served.
#[track_caller]
pub fn comes_in(n: u8, daemon: &Daemon) -> Client {
    let mut client = None;
    eventually("it is served", || {
        let echoed = |client: &mut Client| {
            client.write_all(b"hello").is_ok() && client.read_exact(&mut [0; 5]).is_ok()
        };
        client = tries(n, daemon).ok().and_then(|mut client| echoed(&mut client).then_some(client));
        client.is_some()
    });
    client.unwrap()
}

/// Whether the server resets the connection.
pub fn is_reset(client: io::Result<Client>) -> bool {
    let heard = client.and_then(|mut client| client.read(&mut [0]));
    matches!(heard, Err(error) if error.kind() == ErrorKind::ConnectionReset)
}
