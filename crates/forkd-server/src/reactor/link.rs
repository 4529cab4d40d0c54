//! What a connection is written to at any time, as its channel sees it; only a connection that somebody may write to so
//! has one.

use std::io;
use std::sync::Arc;

use super::line::Line;
use crate::transport::{Found, Hold, Outbox, Rouser, Wish, Writer};

#[derive(Debug)]
pub(super) struct Link {
    outbox: Arc<Outbox>,
    /// Wakes the reactor for this connection.
    rouser: Rouser,
    /// Why no input is read.
    hold: Option<Hold>,
    /// All that was written has gone, as far as it was last looked.
    is_clear: bool,
    /// The client was told that no more comes.
    has_ended: bool,
}

impl Link {
    pub(super) fn new(outbox: Arc<Outbox>, rouser: Rouser) -> Box<Self> {
        outbox.attach(rouser.clone());
        Box::new(Self { outbox, rouser, hold: None, is_clear: true, has_ended: false })
    }

    pub(super) fn outbox(&self) -> Arc<Outbox> {
        Arc::clone(&self.outbox)
    }

    pub(super) fn writer(&self) -> Writer {
        Writer::of(&self.outbox)
    }

    /// Gives the line what was written before a reply.
    pub(super) fn precede(&self, line: &mut Line<'_>) -> io::Result<()> {
        line.send(&self.outbox.take())
    }

    /// Sends what was written, behind all that waits in the line.
    pub(super) fn push(&mut self, line: &mut Line<'_>) -> io::Result<Found> {
        let found = self.outbox.flush(line.ahead(), |bytes| line.send_now(bytes))?;
        self.is_clear = found.is_clear;
        Ok(found)
    }

    pub(super) fn is_clear(&self) -> bool {
        self.is_clear
    }

    /// What was said to the client is the last.
    pub(super) fn is_finished(&self) {
        self.outbox.finish();
    }

    /// The server stops.
    pub(super) fn stop(&self) {
        self.outbox.stop();
    }

    /// There is no connection yet: whether none is wanted any more.
    pub(super) fn is_aborted(&self) -> bool {
        self.outbox.flush(0, |_| Ok(0)).is_ok_and(|found| found.wish == Some(Wish::Abort))
    }

    /// Says that no more comes, once; fails if the client has gone.
    pub(super) fn end(&mut self, line: &Line<'_>) -> io::Result<()> {
        if std::mem::replace(&mut self.has_ended, true) { Ok(()) } else { line.end() }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Holds the input until another client has taken the most of what was written for it.
    pub(super) fn hold(&mut self, other: &Arc<Outbox>) {
        self.hold = Some(Hold::new(other, self.rouser.clone()));
    }

    pub(super) fn is_held(&self) -> bool {
        self.hold.is_some()
    }

    /// Whether the input has been held, and is not any more.
    pub(super) fn is_released(&mut self) -> bool {
        self.hold.take_if(|hold| !hold.holds()).is_some()
    }
}

/// However the connection ends, nothing is written to it any more.
impl Drop for Link {
    fn drop(&mut self) {
        self.outbox.close();
    }
}
