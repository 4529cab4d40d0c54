//! Connections, from their beginning to their end: what they wait for, and until when.

use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::channel::{Channel, Flow, Session};
use super::line::Line;
use super::{Alarm, Reactor, Source};
use crate::slab::Key;
use crate::transport::Peer;
use crate::transport::early::Early;

/// An alarm that goes off at once would keep all others waiting.
const SOONEST: Duration = Duration::from_millis(1);

impl<'a> Reactor<'a> {
    /// Begins to look after a connection, whose socket does not block.
    pub(crate) fn adopt(
        &mut self,
        socket: OwnedFd,
        peer: Peer,
        early: Early,
        session: Box<dyn Session<'a> + 'a>,
    ) {
        let line = Line::new(socket, self.shared.traffic, early);
        let key = self.sources.reserve();
        let mut channel = Box::new(Channel::new(line, peer, session, key, None, &self.shared));
        let flow = guarded(&mut channel, |channel| channel.begin(&mut self.shared));
        self.sources.put_back(key, Source::Channel(channel));
        self.follow(key, flow);
    }

    /// The server stops: tells that those protocols that can be called at any time.
    pub(crate) fn server_stops(&mut self) {
        for (_, source) in self.sources.iter_mut() {
            if let Source::Channel(channel) = source {
                channel.server_stops();
            }
        }
    }

    /// Ends a connection, or sees to it that it is looked after as it now wants to be.
    pub(super) fn follow(&mut self, key: Key, flow: io::Result<Flow>) {
        let Some(Source::Channel(channel)) = self.sources.get_mut(key) else { return };
        let flow = flow.and_then(|flow| {
            if flow == Flow::Goes && channel.wanted != channel.polled {
                self.pollers.change(channel.line(), key.token(), channel.polled, channel.wanted)?;
                channel.polled = channel.wanted;
            }
            Ok(flow)
        });
        if let Ok(Flow::Goes) = flow {
            // An alarm that is too early is set anew when it goes off: not for each message.
            if let Some(due) = channel.due(&self.shared)
                && channel.alarm.is_none_or(|(then, _)| due < then)
            {
                channel.alarm.take().map(|alarm| self.timers.cancel(alarm));
                let when = due.max(self.shared.now + SOONEST);
                channel.alarm = Some(self.timers.set(when, Alarm::Source(key)));
            }
            return;
        }
        channel.alarm.take().map(|alarm| self.timers.cancel(alarm));
        if let Some(Source::Channel(channel)) = self.sources.remove(key) {
            let peer = channel.peer;
            channel.close(&flow).closed(self, peer, flow.map(|_| ()));
        }
    }
}

/// Has a protocol do something; if it panics, that is the end of its connection and of no other.
pub(super) fn guarded<'a>(
    channel: &mut Channel<'a>,
    turn: impl FnOnce(&mut Channel<'a>) -> io::Result<Flow>,
) -> io::Result<Flow> {
    catch_unwind(AssertUnwindSafe(|| turn(channel))).unwrap_or_else(|payload| Err(channel.broke(&*payload)))
}
