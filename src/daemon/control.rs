//! The control socket: `forkd status` asks, the master answers.
//!
//! A request is one line, the answer one JSON text and the end of file. Clients are served inside
//! the master's loop and never waited for: what can't be written at once is kept, and a client
//! that dawdles is dropped. Only the owner can connect (mode 0600).

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use super::context::{ACCEPT_REST, Context};
use crate::transport::listener::{BindOptions, Listener, bind_all};
use crate::transport::{Endpoint, Inherited};
use crate::{Error, Failure, events};

const MAX_CLIENTS: usize = 16;
const TIME_LIMIT: Duration = Duration::from_secs(5);
const LONGEST_REQUEST: usize = 256;

/// The control socket and its clients.
#[derive(Debug)]
pub(super) struct Control {
    listener: Listener,
    clients: Vec<Client>,
    rest_until: Option<Instant>,
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    request: Vec<u8>,
    /// What is still to be written; `None` while the request is not complete.
    answer: Option<Vec<u8>>,
    until: Instant,
}

impl Control {
    /// Binds the socket, mode 0600.
    pub(super) fn bind(path: &Path) -> Result<Self, Error> {
        let options = BindOptions { backlog: 64, v6only: false, socket_mode: Some(0o600) };
        let cannot =
            |why: &str| Error::CannotCreate(Failure::from(format!("cannot make the control socket: {why}")));
        let path = std::path::absolute(path).map_err(|e| cannot(&e.to_string()))?;
        let listener = bind_all(&Endpoint::Unix(path), options, &Inherited::default())?
            .pop()
            .ok_or_else(|| cannot("nothing was bound"))?;
        crate::sys::fd::set_nonblocking(&listener, true).map_err(|e| cannot(&e.to_string()))?;
        Ok(Self { listener, clients: Vec::new(), rest_until: None })
    }

    pub(super) fn listener(&self) -> &Listener {
        &self.listener
    }

    /// The clients, each with whether it is written to.
    pub(super) fn clients(&self) -> impl Iterator<Item = (BorrowedFd<'_>, bool)> {
        self.clients.iter().map(|client| (client.stream.as_fd(), client.answer.is_some()))
    }

    /// Whether there is room for another client.
    pub(super) fn wants_clients(&self, now: Instant) -> bool {
        self.clients.len() < MAX_CLIENTS && self.rest_until.is_none_or(|then| then <= now)
    }

    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let rest = self.rest_until.filter(|&then| then > now);
        self.clients.iter().map(|client| client.until).chain(rest).min()
    }

    /// Takes new clients.
    pub(super) fn accept(&mut self, cx: &mut Context) {
        while self.clients.len() < MAX_CLIENTS {
            let socket = match self.listener.accept(&self.listener) {
                Ok((socket, _)) => socket,
                Err(rustix::io::Errno::AGAIN) => return,
                Err(error) => {
                    events::control_failed(&error);
                    self.rest_until = Some(cx.now + ACCEPT_REST);
                    return;
                }
            };
            let stream = UnixStream::from(socket);
            if stream.set_nonblocking(true).is_ok() {
                cx.descriptors.add([stream.as_raw_fd()]);
                self.clients.push(Client {
                    stream,
                    request: Vec::new(),
                    answer: None,
                    until: cx.now + TIME_LIMIT,
                });
            }
        }
    }

    /// Reads and writes as far as that goes; `answer` makes the answer to a complete request.
    pub(super) fn serve(&mut self, cx: &mut Context, answer: impl Fn(&Context, &str) -> String) {
        for client in &mut self.clients {
            if client.answer.is_none() && client.read_request() {
                let request = String::from_utf8_lossy(&client.request);
                client.answer = Some(answer(cx, request.trim()).into_bytes());
            }
            client.write_answer();
        }
        let now = cx.now;
        let gone =
            |client: &mut Client| client.answer.as_ref().is_some_and(Vec::is_empty) || now >= client.until;
        for client in self.clients.extract_if(.., gone) {
            cx.descriptors.remove(client.stream.as_raw_fd());
        }
    }
}

impl Client {
    /// Tells whether the request is complete.
    fn read_request(&mut self) -> bool {
        let mut chunk = [0; LONGEST_REQUEST];
        match self.stream.read(&mut chunk) {
            Ok(n) => {
                self.request.extend_from_slice(&chunk[..n]);
                n == 0 || chunk[..n].contains(&b'\n') || self.request.len() >= LONGEST_REQUEST
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) => {
                events::control_failed(&error);
                true
            }
        }
    }

    fn write_answer(&mut self) {
        let Some(answer) = &mut self.answer else { return };
        match self.stream.write(answer) {
            Ok(n) => _ = answer.drain(..n),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => {
                events::control_failed(&error);
                answer.clear();
            }
        }
    }
}
