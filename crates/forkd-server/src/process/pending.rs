//! A client for which no child could be forked yet.
//!
//! The invariant: while a connection is pending, and only then, it is among those that children close.
//! Otherwise its client would wait for the end of another's child; and later, when the number is
//! another client's, a child would close what it was forked to serve.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;

use super::descriptors::Descriptors;
use crate::access::sources::Ticket;
use crate::transport::Peer;

/// A client that is to be served.
#[derive(Debug)]
pub(super) struct Client {
    /// `None`: the datagram in the batch.
    pub(super) connection: Option<OwnedFd>,
    pub(super) peer: Peer,
    pub(super) since: Instant,
    /// It counts as one of its source's.
    pub(super) ticket: Option<Ticket>,
}

/// At most one client, which waits until fork(2) works again.
#[derive(Debug, Default)]
pub(super) struct Pending(Option<Client>);

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(super) fn put(&mut self, client: Client, descriptors: &mut Descriptors) {
        descriptors.add(client.connection.as_ref().map(AsRawFd::as_raw_fd));
        self.0 = Some(client);
    }

    pub(super) fn take(&mut self, descriptors: &mut Descriptors) -> Option<Client> {
        let client = self.0.take()?;
        if let Some(connection) = &client.connection {
            descriptors.remove(connection.as_raw_fd());
        }
        Some(client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::descriptors::Closing;
    use crate::sys::fd::CloseSet;

    #[test]
    fn children_close_a_connection_while_it_is_pending_and_not_after() {
        let (mut pending, mut descriptors) = (Pending::default(), Descriptors::default());
        let mut closing = Closing::all_but(Vec::new());
        let connection: OwnedFd = std::fs::File::open("/dev/null").expect("open").into();
        let number = connection.as_raw_fd();
        let client =
            Client { connection: Some(connection), peer: Peer::None, since: Instant::now(), ticket: None };
        pending.put(client, &mut descriptors);
        assert_eq!(*closing.of(&descriptors), CloseSet::new([number]));
        let client = pending.take(&mut descriptors).expect("a client");
        assert_eq!(*closing.of(&descriptors), CloseSet::default());
        assert_eq!(client.connection.map(|connection| connection.as_raw_fd()), Some(number));
        assert!(pending.is_empty() && pending.take(&mut descriptors).is_none());
    }
}
