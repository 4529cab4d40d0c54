//! What is written to a connection from outside of its loop, until the loop sends it.
//!
//! Invariant: what is written goes out in the order in which it was written, and never more waits than
//! [`LIMIT`] bytes and one write.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::{io, mem};

use super::wakeups::Rouser;
use super::{LIMIT, WriteError};

/// One connection's.
#[derive(Debug, Default)]
pub(crate) struct Outbox(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    queue: Vec<u8>,
    /// How many bytes the loop has taken for the client that the socket has not.
    ahead: usize,
    wish: Option<Wish>,
    /// The server stops, and the loop has not heard of it.
    is_stopping: bool,
    /// The connection has ended.
    is_over: bool,
    /// The loop knows that it is to look.
    is_called: bool,
    rouser: Option<Rouser>,
    /// Connections whose input is held until the client has taken the most.
    holders: Vec<Rouser>,
}

/// What shall become of a connection when all that was written is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wish {
    /// The client is told that no more comes.
    End,
    /// It ends.
    Finish,
    /// It ends at once, whatever is not sent.
    Abort,
}

/// What a loop finds in an outbox.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    /// All that was written has gone.
    pub(crate) is_clear: bool,
    /// What is wished for the time after that.
    pub(crate) wish: Option<Wish>,
    /// The server stops; that is told once.
    pub(crate) is_stopping: bool,
}

impl State {
    fn queued(&self) -> usize {
        self.ahead + self.queue.len()
    }

    /// Has the loop look, if it does not know yet that it should.
    fn call(&mut self) {
        if let Some(rouser) = &self.rouser
            && !mem::replace(&mut self.is_called, true)
        {
            rouser.rouse();
        }
    }

    /// Lets those go on that wait for the client, if they may.
    fn release(&mut self) {
        if !self.holders.is_empty() && (self.is_over || self.queued() < LIMIT / 2) {
            self.holders.drain(..).for_each(|holder| holder.rouse());
        }
    }
}

impl Outbox {
    /// Of a connection that has ended.
    pub(super) fn closed() -> Self {
        Self(Mutex::new(State { is_over: true, ..State::default() }))
    }

    /// Nothing that is done under the lock can panic.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self, bytes: &[u8]) -> Result<(), WriteError> {
        let mut state = self.state();
        if state.is_over || state.wish.is_some() {
            return Err(WriteError::Closed);
        }
        if state.queued() >= LIMIT {
            return Err(WriteError::Full);
        }
        state.queue.extend_from_slice(bytes);
        state.call();
        Ok(())
    }

    pub(super) fn wish(&self, wish: Wish) {
        let mut state = self.state();
        if state.wish < Some(wish) {
            state.wish = Some(wish);
            state.call();
        }
    }

    pub(super) fn is_open(&self) -> bool {
        let state = self.state();
        !state.is_over && state.wish.is_none()
    }

    pub(super) fn queued(&self) -> usize {
        self.state().queued()
    }

    /// From here on this wakes the loop. It is to look once by itself.
    pub(crate) fn attach(&self, rouser: Rouser) {
        self.state().rouser = Some(rouser);
    }

    /// Sends what was written, as far as `send` takes it; `ahead` bytes that were taken before are still to be sent, and
    /// then nothing is.
    ///
    /// # Errors
    ///
    /// Those of `send`.
    pub(crate) fn flush(
        &self,
        ahead: usize,
        send: impl FnOnce(&[u8]) -> io::Result<usize>,
    ) -> io::Result<Found> {
        let mut state = self.state();
        state.is_called = false;
        state.ahead = ahead;
        if ahead == 0 && !state.queue.is_empty() {
            let sent = send(&state.queue)?;
            if sent < state.queue.len() {
                state.queue.drain(..sent);
            } else {
                // a queue that was long is not kept
                state.queue = Vec::new();
            }
        }
        state.release();
        let is_stopping = mem::take(&mut state.is_stopping);
        Ok(Found { is_clear: state.queue.is_empty(), wish: state.wish, is_stopping })
    }

    /// The connection ends by what was said to the client last: nothing more is written.
    pub(crate) fn finish(&self) {
        let mut state = self.state();
        state.wish = state.wish.max(Some(Wish::Finish));
    }

    /// The server stops.
    pub(crate) fn stop(&self) {
        let mut state = self.state();
        state.is_stopping = true;
        state.call();
    }

    /// Takes what was written, so that something can be sent behind it.
    pub(crate) fn take(&self) -> Vec<u8> {
        let mut state = self.state();
        let queue = mem::take(&mut state.queue);
        state.ahead += queue.len();
        queue
    }

    /// The connection has ended: nothing is written any more, and those that wait for its client go on.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        *state = State { is_over: true, holders: mem::take(&mut state.holders), ..State::default() };
        state.release();
    }
}

/// Those of a server's connections, as far as these are to hear of its stop.
#[derive(Debug, Default)]
pub(crate) struct Outboxes(Mutex<Vec<Weak<Outbox>>>);

impl Outboxes {
    fn all(&self) -> MutexGuard<'_, Vec<Weak<Outbox>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, outbox: &Arc<Outbox>) {
        let mut all = self.all();
        if all.len() == all.capacity() {
            // room for as many again as are still there, so that this is done seldom
            all.retain(|outbox| outbox.strong_count() > 0);
            let count = all.len();
            all.reserve(count + 1);
        }
        all.push(Arc::downgrade(outbox));
    }

    /// The server stops.
    pub(crate) fn stop(&self) {
        self.all().iter().filter_map(Weak::upgrade).for_each(|outbox| outbox.stop());
    }
}

/// Has a connection's input held; when it is dropped, that is nobody's wish any more.
#[derive(Debug)]
pub(crate) struct Hold {
    outbox: Arc<Outbox>,
    holder: Rouser,
}

impl Hold {
    pub(crate) fn new(outbox: &Arc<Outbox>, holder: Rouser) -> Self {
        Self { outbox: Arc::clone(outbox), holder }
    }

    /// Whether it is still to be held. Then its loop is called when it isn't.
    pub(crate) fn holds(&self) -> bool {
        let mut state = self.outbox.state();
        let holds = !state.is_over && state.queued() >= LIMIT / 2;
        if holds && !state.holders.contains(&self.holder) {
            state.holders.push(self.holder.clone());
        }
        holds
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.outbox.state().holders.retain(|holder| *holder != self.holder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slab::Key;
    use crate::transport::Wakeups;

    fn rouser() -> Rouser {
        Rouser { wakeups: Arc::new(Wakeups::new().unwrap()), key: Key::FIRST }
    }

    #[test]
    fn a_loop_is_called_once_for_all_that_is_written_before_it_looks() {
        let (outbox, rouser) = (Outbox::default(), rouser());
        outbox.write(b"before there is a loop, ").unwrap();
        outbox.attach(rouser.clone());
        outbox.write(b"and ").unwrap();
        outbox.write(b"after").unwrap();
        assert_eq!(rouser.wakeups.take(), [rouser.key]);
        let mut sent = Vec::new();
        let found = outbox.flush(0, |bytes| {
            sent.extend_from_slice(bytes);
            Ok(bytes.len() - 5)
        });
        assert_eq!(sent, b"before there is a loop, and after");
        assert!(!found.unwrap().is_clear);
        assert_eq!((outbox.take(), outbox.queued()), (b"after".to_vec(), 5));
        outbox.wish(Wish::Finish);
        outbox.wish(Wish::End);
        assert_eq!(rouser.wakeups.take(), [rouser.key]);
        let found = outbox.flush(5, |_| panic!("something is before it")).unwrap();
        assert_eq!((found.is_clear, found.wish), (true, Some(Wish::Finish)));
    }

    #[test]
    fn one_that_is_held_goes_on_when_the_most_has_gone_or_the_other_is_over() {
        let (outbox, holder) = (Arc::new(Outbox::default()), rouser());
        let hold = Hold::new(&outbox, holder.clone());
        assert!(!hold.holds());
        outbox.write(&[0; LIMIT]).unwrap();
        assert!(hold.holds() && hold.holds());
        outbox.flush(0, |_| Ok(LIMIT / 2)).unwrap();
        assert!(hold.holds() && holder.wakeups.take().is_empty());
        outbox.flush(0, |_| Ok(1)).unwrap();
        assert_eq!((holder.wakeups.take(), hold.holds()), (vec![holder.key], false));
        outbox.write(&[0; LIMIT]).unwrap();
        assert!(hold.holds());
        outbox.close();
        assert_eq!((holder.wakeups.take(), hold.holds()), (vec![holder.key], false));
        // whose connection has ended is not called
        let outbox = Arc::new(Outbox::default());
        outbox.write(&[0; LIMIT]).unwrap();
        let hold = Hold::new(&outbox, holder.clone());
        assert!(hold.holds());
        drop(hold);
        outbox.close();
        assert!(holder.wakeups.take().is_empty());
    }

    #[test]
    fn those_whose_connections_have_gone_take_no_memory() {
        let outboxes = Outboxes::default();
        let stays = Arc::default();
        outboxes.add(&stays);
        for _ in 0..10_000 {
            outboxes.add(&Arc::default());
        }
        assert!(outboxes.all().capacity() < 100);
        outboxes.stop();
        assert!(stays.flush(0, |_| Ok(0)).unwrap().is_stopping);
    }
}
