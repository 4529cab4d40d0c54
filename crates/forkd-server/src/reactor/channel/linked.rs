//! What a connection does that may be written to at any time.

use std::io;
use std::sync::Arc;

use super::{Channel, Flow, Input, Link, Phase, Shared, dispose};
use crate::transport::{Found, Outbox, Wish};

impl<'a> Channel<'a> {
    pub(super) fn add_link(&mut self, outbox: Arc<Outbox>, shared: &mut Shared<'a>) -> io::Result<&mut Link> {
        let rouser = shared.rouser(self.key).inspect_err(|_| outbox.close())?;
        Ok(self.link.insert(Link::new(outbox, rouser)))
    }

    /// Something was written to it, or what it waited for has gone.
    pub(in crate::reactor) fn called(&mut self, shared: &mut Shared<'a>) -> io::Result<Flow> {
        self.go_on(shared)
    }

    /// Whether no input is read until another client has taken what was written for it.
    #[inline(always)]
    pub(super) fn is_held(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.is_held())
    }

    /// Holds the input until another client has taken the most of what was written for it.
    #[cold]
    pub(super) fn hold(&mut self, shared: &mut Shared<'a>) -> io::Result<()> {
        let Some(other) = self.line.take_awaited() else { return Ok(()) };
        match &mut self.link {
            Some(link) => link.hold(&other),
            None => self.add_link(Arc::default(), shared)?.hold(&other),
        }
        Ok(())
    }

    /// Sends what was written at any time, and does what its writers wish.
    // not part of its caller, which most connections run without it
    #[inline(never)]
    pub(super) fn push(&mut self, shared: &mut Shared<'a>) -> io::Result<Flow> {
        let Some(link) = &mut self.link else { return Ok(Flow::Goes) };
        if link.is_released() {
            self.active = shared.now;
        }
        let Found { is_clear, wish, is_stopping } = link.push(&mut self.line)?;
        let is_clear = is_clear && self.line.is_clear();
        match (wish, self.phase) {
            (Some(Wish::Abort), _) => {
                self.phase = Phase::Aborted;
                return Ok(Flow::Over);
            }
            (Some(Wish::Finish), Phase::Open | Phase::Producing) => self.phase = Phase::Finishing,
            (Some(Wish::End), Phase::Open) if is_clear => link.end(&self.line)?,
            _ => {}
        }
        if link.has_ended() && self.input == Input::Told && self.phase == Phase::Open {
            return Ok(Flow::Over);
        }
        if is_stopping && matches!(self.phase, Phase::Open | Phase::Producing) {
            let next = dispose(&mut self.line, &self.link, self.session.protocol().stopping())?;
            self.follow_meanwhile(next, shared)?;
            // it may have written
            return self.push(shared);
        }
        Ok(Flow::Goes)
    }

    /// The server stops, and will soon be no more.
    pub(in crate::reactor) fn server_stops(&self) {
        self.link.iter().for_each(|link| link.stop());
    }
}
