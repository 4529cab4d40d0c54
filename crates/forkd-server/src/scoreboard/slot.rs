//! One child's line of the scoreboard, which the child writes itself.
//!
//! It is shown, and nothing else: the child may write anything here if it goes wild, and so may another one.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use super::cause::Cause;
use crate::transport::peer::PackedPeer;
use crate::transport::{Peer, Traffic};

/// What a child is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum State {
    /// Forked, not yet at work.
    Starting,
    /// A worker that waits for a connection.
    Idle,
    /// It serves a connection or a datagram.
    Serving,
    /// It has recorded its end.
    Ended,
    /// A worker that takes no more clients, and serves those that it has.
    Leaving,
    /// A worker that is at work, and of whose clients nothing is known: no child says this of itself.
    Ready,
}

impl State {
    /// Its name in `forkd status` and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Idle => "idle",
            Self::Serving => "serving",
            Self::Ended => "ended",
            Self::Leaving => "leaving",
            Self::Ready => "ready",
        }
    }
}

forkd_sys::plain! {
    /// One child's line of the scoreboard: two cache lines.
    #[repr(align(64))]
    #[derive(Debug)]
    pub(crate) struct Slot {
        /// The child's own pid, written by the kernel during fork, for a child that crashes to find its slot by.
        pub(crate) pid: AtomicU32,
        state: AtomicU32,
        /// The next slot on the stack of the dead.
        pub(super) next: AtomicU32,
        /// Why it ended: [`Cause::index`] plus one; 0 while there is no record.
        ending: AtomicU32,
        /// Whether it is a worker, which announces nothing.
        worker: AtomicU32,
        /// How many connections it serves now, where it can serve several.
        pub(crate) open: AtomicU32,
        /// How many of its connections have not completed their first exchange, where that is limited.
        pub(crate) early: AtomicU32,
        /// How many threads it has, of those that its model starts and its first.
        pub(crate) threads: AtomicU32,
        /// How many clients it holds for which no thread can be started.
        pub(crate) held: AtomicU32,
        /// Written by the master: whether this spare child wakes it when it has its client.
        wakes: AtomicU32,
        /// The client that counts as one of its source's, where the process has no others.
        pub(crate) ticket: AtomicU64,
        pub(crate) traffic: Traffic,
        peer: PackedPeer,
        /// Where that is measured, on the clock in microseconds, or 0: when it began to serve its client, and when it
        /// announced its end.
        pub(super) times_us: [AtomicU64; 2],
    }
}

impl Slot {
    /// Makes the slot ready for a new child.
    pub(super) fn begin(&self, is_worker: bool) {
        self.pid.store(0, Ordering::Relaxed);
        self.ending.store(0, Ordering::Relaxed);
        self.worker.store(is_worker.into(), Ordering::Relaxed);
        self.open.store(0, Ordering::Relaxed);
        self.early.store(0, Ordering::Relaxed);
        self.threads.store(1, Ordering::Relaxed);
        self.held.store(0, Ordering::Relaxed);
        self.wakes.store(0, Ordering::Relaxed);
        self.ticket.store(0, Ordering::Relaxed);
        self.traffic.reset();
        self.peer.store(Peer::None);
        self.times_us.iter().for_each(|time| time.store(0, Ordering::Relaxed));
        self.set_state(State::Starting);
    }

    pub(crate) fn is_worker(&self) -> bool {
        self.worker.load(Ordering::Relaxed) != 0
    }

    /// What its child is doing; one that writes what is no state is busy with something.
    pub(crate) fn state(&self) -> State {
        match self.state.load(Ordering::Acquire) {
            0 => State::Starting,
            // whichever thread serves, none need say so
            1 if self.open.load(Ordering::Relaxed) > 0 => State::Serving,
            1 => State::Idle,
            3 => State::Ended,
            4 => State::Leaving,
            _ => State::Serving,
        }
    }

    pub(crate) fn set_state(&self, state: State) {
        self.state.store(state as u32, Ordering::Release);
    }

    /// The worker is at work, if it still starts: the one or the other of it and its master says so.
    pub(crate) fn come_up(&self) {
        let (starting, idle) = (State::Starting as u32, State::Idle as u32);
        let _ = self.state.compare_exchange(starting, idle, Ordering::Release, Ordering::Relaxed);
    }

    /// The worker is told to leave: it takes no more clients, if it has come up.
    pub(crate) fn begin_to_leave(&self) {
        let (idle, leaving) = (State::Idle as u32, State::Leaving as u32);
        let _ = self.state.compare_exchange(idle, leaving, Ordering::Release, Ordering::Relaxed);
    }

    /// Has the spare child wake the master when it has its client; tells whether it had none yet, so that it will.
    pub(crate) fn will_wake(&self) -> bool {
        self.wakes.store(1, Ordering::Relaxed);
        // with the one below: the child sees the order, or this sees that the child serves
        fence(Ordering::SeqCst);
        matches!(self.state(), State::Starting | State::Idle)
    }

    /// In a spare child: it has its client; whether it wakes the master.
    pub(crate) fn begin_to_serve(&self) -> bool {
        self.set_state(State::Serving);
        fence(Ordering::SeqCst);
        self.wakes.load(Ordering::Relaxed) != 0
    }

    /// How many connections it serves.
    pub(crate) fn serving(&self) -> u32 {
        let open = self.open.load(Ordering::Relaxed);
        match self.state() {
            // one at a time is not counted
            State::Serving => open.max(1),
            State::Leaving => open,
            State::Starting | State::Idle | State::Ended | State::Ready => 0,
        }
    }

    /// How many threads it has.
    pub(crate) fn threads(&self) -> u32 {
        match self.state() {
            State::Ended => 0,
            _ => self.threads.load(Ordering::Relaxed),
        }
    }

    /// The child begins to serve its client.
    pub(crate) fn set_began(&self, us: u64) {
        self.times_us[0].store(us, Ordering::Relaxed);
    }

    pub(super) fn set_ended(&self, us: u64) {
        self.times_us[1].store(us, Ordering::Relaxed);
    }

    /// The client that is being served, or was last.
    pub(crate) fn peer(&self) -> Peer {
        self.peer.load()
    }

    pub(crate) fn set_peer(&self, peer: Peer) {
        self.peer.store(peer);
    }

    /// Notes why this child ends; the first record stays.
    pub(crate) fn record(&self, cause: Cause) {
        let _ =
            self.ending.compare_exchange(0, cause.index() as u32 + 1, Ordering::Relaxed, Ordering::Relaxed);
    }

    pub(crate) fn recorded(&self) -> Option<Cause> {
        let index = self.ending.load(Ordering::Relaxed).checked_sub(1)? as usize;
        (index < Cause::COUNT).then(|| Cause::from_index(index))
    }

    /// What a child that goes wild could do.
    #[cfg(test)]
    pub(super) fn write_everywhere(&self, word: u32) {
        let Self {
            pid,
            state,
            next,
            ending,
            worker,
            open,
            early,
            threads,
            held,
            wakes,
            ticket,
            traffic,
            times_us,
            peer: _,
        } = self;
        [pid, state, next, ending, worker, open, early, threads, held, wakes]
            .iter()
            .for_each(|cell| cell.store(word, Ordering::Relaxed));
        let Traffic { connections, bytes_in, bytes_out, failed } = traffic;
        let wide = u64::from(word) << 32 | u64::from(word);
        let large = [connections, bytes_in, bytes_out, failed, ticket].into_iter().chain(times_us);
        large.for_each(|cell| cell.store(wide, Ordering::Relaxed));
    }
}
