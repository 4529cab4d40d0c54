//! Runs a [`Protocol`] on a blocking connection: the adapter between the two ways to be called.

use std::io::{self, Write};

use super::{Protocol, Reply};
use crate::sys::buffer::Buffer;
use crate::transport::Connection;

/// Reads, asks, writes, until one side ends.
///
/// Each reply is written out before more is read: that is all the back-pressure there is.
pub(super) fn drive(protocol: &mut dyn Protocol, connection: &mut Connection<'_>) -> io::Result<()> {
    let peer = connection.peer();
    if dispose(protocol.connected(peer), connection)? == Next::End {
        return Ok(());
    }
    let mut buffer = Buffer::new();
    loop {
        let chunk = connection.chunk(&mut buffer)?;
        if chunk.is_empty() || dispose(protocol.received(chunk), connection)? == Next::End {
            return Ok(());
        }
    }
}

#[derive(PartialEq, Eq)]
enum Next {
    More,
    End,
}

fn dispose(reply: Reply<'_>, connection: &mut Connection<'_>) -> io::Result<Next> {
    match reply {
        Reply::Wait => Ok(Next::More),
        Reply::Send(bytes) => connection.write_all(bytes).map(|()| Next::More),
        Reply::Finish(bytes) => connection.write_all(bytes).map(|()| Next::End),
    }
}
