//! A server that does as little as an echo server can, to see what the clients can do: one process, one
//! loop, no accounting.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, recvfrom, send, sendto};

use forkd_net::Error;
use forkd_sys::accept::accept;
use forkd_sys::poller::{Event, Interest, Poller};
use forkd_sys::socket::{Mode, NO_SIGNAL};

const BUFFER: usize = 64 * 1024;
/// What the poller knows the two sockets by; connections come after them.
const LISTENER: usize = 0;
const DATAGRAMS: usize = 1;
const FIRST: usize = 2;

/// Serves until it is killed. Standard input is a socket that listens, standard output may be one for
/// datagrams.
///
/// # Errors
///
/// [`Error::Os`] if the system refuses something that ought to work.
pub fn serve() -> Result<(), Error> {
    run().map_err(|cause| Error::os("cannot serve nothing", cause))
}

fn run() -> io::Result<()> {
    forkd_sys::limits::raise_open_files();
    let listener = io::stdin().as_fd().try_clone_to_owned()?;
    let datagrams = io::stdout().as_fd().try_clone_to_owned()?;
    let poller = Poller::new()?;
    for (socket, token) in [(&listener, LISTENER), (&datagrams, DATAGRAMS)] {
        forkd_sys::fd::set_nonblocking(socket, true)?;
        match poller.add(socket, token, Interest::READ) {
            // there are no datagrams
            Err(error) if token == DATAGRAMS && error.raw_os_error() == Some(libc::EPERM) => {}
            added => added?,
        }
    }
    let (mut events, mut buffer) = (Vec::new(), vec![0; BUFFER]);
    let mut connections: Vec<Option<OwnedFd>> = Vec::new();
    let mut free = Vec::new();
    loop {
        poller.wait(&mut events, None)?;
        for &Event { token, .. } in &events {
            match token {
                LISTENER => {
                    let Ok((connection, _)) = accept(&listener, Mode::NonBlocking) else {
                        continue;
                    };
                    let place = free.pop().unwrap_or_else(|| {
                        connections.push(None);
                        connections.len() - 1
                    });
                    poller.add(&connection, FIRST + place, Interest::READ)?;
                    connections[place] = Some(connection);
                }
                DATAGRAMS => bounce(&datagrams, &mut buffer),
                _ => {
                    let place = token - FIRST;
                    let is_over = connections[place].as_ref().is_some_and(|one| !echo(one, &mut buffer));
                    if is_over {
                        connections[place] = None;
                        free.push(place);
                    }
                }
            }
        }
    }
}

/// Sends back what has come; false at the end of the connection.
fn echo(connection: &OwnedFd, buffer: &mut [u8]) -> bool {
    let length = match rustix::io::read(connection, &mut *buffer) {
        Ok(0) => return false,
        Ok(length) => length,
        Err(Errno::AGAIN | Errno::INTR) => return true,
        Err(_) => return false,
    };
    let mut sent = 0;
    while sent < length {
        match send(connection, &buffer[sent..length], NO_SIGNAL) {
            Ok(more) => sent += more,
            Err(Errno::INTR) => {}
            // one client at a time is waited for: those here read what they get
            Err(Errno::AGAIN) => {
                _ = forkd_sys::fd::wait_writable(connection, std::time::Duration::from_secs(1))
            }
            Err(_) => return false,
        }
    }
    true
}

fn bounce(socket: &OwnedFd, buffer: &mut [u8]) {
    while let Ok((length, _, Some(from))) = recvfrom(socket, &mut *buffer, RecvFlags::empty()) {
        let _ = sendto(socket, &buffer[..length], NO_SIGNAL, &from);
    }
}
