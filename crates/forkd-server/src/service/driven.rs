//! Runs a [`Protocol`] on a blocking connection: the adapter between the two ways to be called.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::duplex::Duplex;
use super::{CloseReason, Opening, Protocol, Reply};
use crate::sys::buffer::Buffer;
use crate::transport::{Connection, Outbox};

/// Serves a connection until one side ends it, and tells the protocol why it is over.
pub(super) fn drive(protocol: &mut dyn Protocol, connection: &mut Connection<'_>) -> io::Result<()> {
    let opening = Opening::new(connection.peer());
    protocol.opened(&opening);
    let outcome = match opening.into_outbox() {
        None => converse(protocol, connection),
        Some(outbox) => converse_at_any_time(protocol, connection, outbox),
    };
    protocol.closed(match &outcome {
        Ok(reason) => *reason,
        Err(error) => CloseReason::of(error),
    });
    outcome.map(drop)
}

// no part of what children of other protocols run
#[cold]
#[inline(never)]
fn converse_at_any_time(
    protocol: &mut dyn Protocol,
    connection: &Connection<'_>,
    outbox: Arc<Outbox>,
) -> io::Result<CloseReason<'static>> {
    Duplex::new(connection, outbox)?.converse(protocol)
}

/// Reads, asks, writes, until one side ends.
///
/// Each reply is written out before more is read: that is all the back-pressure there is.
fn converse(
    protocol: &mut dyn Protocol,
    connection: &mut Connection<'_>,
) -> io::Result<CloseReason<'static>> {
    let mut buffer = Buffer::default();
    let mut next = dispose(protocol.connected(connection.peer()), connection)?;
    let mut has_ended = false;
    loop {
        match next {
            Next::End => {
                part(protocol, connection, &mut buffer);
                return Ok(CloseReason::Finished);
            }
            Next::Input => {
                let now = Instant::now();
                let chunk = match protocol.deadline(now) {
                    None => Some(connection.chunk(&mut buffer)?),
                    // a wait that begins now has the limit of the one before, which the kernel knows already
                    Some(then) => {
                        connection.chunk_within(&mut buffer, then.saturating_duration_since(now))?
                    }
                };
                next = match chunk {
                    None => dispose(protocol.timed_out(), connection)?,
                    Some([]) => return finish(protocol, connection),
                    Some(chunk) => {
                        connection.took_some();
                        dispose(protocol.received(chunk), connection)?
                    }
                };
            }
            Next::InputAfter(other) => return go_on_after(&other, protocol, connection),
            Next::Produce => {
                // what comes meanwhile is not left lying about
                if protocol.listens()
                    && !has_ended
                    && let Some(chunk) = connection.chunk_within(&mut buffer, Duration::ZERO)?
                {
                    has_ended = chunk.is_empty();
                    if !has_ended && matches!(dispose(protocol.received(chunk), connection)?, Next::End) {
                        next = Next::End;
                        continue;
                    }
                }
                next = dispose(protocol.resume(), connection)?;
            }
        }
    }
}

/// Goes on when another client has taken most of what waits for it.
#[cold]
#[inline(never)]
fn go_on_after(
    other: &Arc<Outbox>,
    protocol: &mut dyn Protocol,
    connection: &Connection<'_>,
) -> io::Result<CloseReason<'static>> {
    let mut duplex = Duplex::new(connection, Arc::default())?;
    duplex.hold(other);
    duplex.go_on(protocol, Next::Input)
}

/// The protocol has ended the connection: lets the client hear the end.
pub(super) fn part(protocol: &mut dyn Protocol, connection: &Connection<'_>, buffer: &mut Buffer) {
    if protocol.client_is_done() {
        connection.end();
    } else {
        connection.linger(buffer);
    }
}

/// The client's bytes have ended.
fn finish(protocol: &mut dyn Protocol, connection: &mut Connection<'_>) -> io::Result<CloseReason<'static>> {
    let mut next = dispose(protocol.ended(), connection)?;
    while matches!(next, Next::Produce) {
        next = dispose(protocol.resume(), connection)?;
    }
    Ok(CloseReason::Ended)
}

/// What a reply asks for, once it is on its way.
pub(super) enum Next {
    Input,
    /// Input, when another client has taken most of this.
    InputAfter(Arc<Outbox>),
    Produce,
    End,
}

pub(super) fn dispose(reply: Reply<'_>, mut connection: &Connection<'_>) -> io::Result<Next> {
    match reply {
        Reply::Wait => Ok(Next::Input),
        Reply::WaitFor(writer) => Ok(Next::InputAfter(Arc::clone(writer.outbox()))),
        Reply::Send(bytes) => connection.write_all(bytes).map(|()| Next::Input),
        Reply::More(bytes) => connection.write_all(bytes).map(|()| Next::Produce),
        Reply::File(part) => connection.send_file(part).map(|()| Next::Produce),
        Reply::Finish(bytes) => connection.send_last(bytes).map(|()| Next::End),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Clock;
    use crate::transport::early::Early;
    use crate::transport::{Peer, ServerInfo, Traffic};
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    /// Tells a client the time that has sent this, and shows the connection to it, which is not closed yet.
    fn told(sent: &[u8], check: impl FnOnce(UnixStream)) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        theirs.write_all(sent).unwrap();
        static TRAFFIC: Traffic = Traffic::new();
        let server = ServerInfo::nowhere();
        let mut connection = Connection::stream(ours.into(), Peer::None, Early::default(), &TRAFFIC, &server);
        drive(&mut Clock::time(), &mut connection).unwrap();
        assert_eq!(theirs.read(&mut [0; 9]).unwrap(), 4);
        check(theirs);
    }

    #[test]
    fn a_client_that_sent_unwanted_bytes_is_told_the_end_before_the_close() {
        told(b"what time is it?", |mut client| {
            assert_eq!(client.read(&mut [0; 9]).unwrap(), 0);
            // nothing is left that would make a reset of the close
            assert!(client.write(b"thanks").is_ok());
        });
    }

    #[test]
    fn a_client_that_has_promised_to_send_no_more_is_told_the_end_and_not_waited_for() {
        struct Farewell;
        impl Protocol for Farewell {
            fn connected(&mut self, _: Peer) -> Reply<'_> {
                Reply::Finish(b"bye")
            }
            fn received<'a>(&'a mut self, _: &'a [u8]) -> Reply<'a> {
                Reply::Wait
            }
            fn client_is_done(&self) -> bool {
                true
            }
        }
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"all the same").unwrap();
        static TRAFFIC: Traffic = Traffic::new();
        let server = ServerInfo::nowhere();
        let mut connection = Connection::stream(ours.into(), Peer::None, Early::default(), &TRAFFIC, &server);
        drive(&mut Farewell, &mut connection).unwrap();
        let mut heard = String::new();
        theirs.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "bye");
        // nothing was read, which waiting is
        assert_eq!(connection.chunk(&mut Buffer::default()).unwrap(), b"all the same");
    }

    #[test]
    fn who_has_sent_nothing_is_not_waited_for() {
        told(b"", |mut client| {
            assert_eq!(client.read(&mut [0; 9]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        });
    }
}
