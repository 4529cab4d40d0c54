//! One child's line of the scoreboard.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::cause::Cause;
use crate::transport::peer::PackedPeer;
use crate::transport::{Peer, Traffic};

/// What a child is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum State {
    /// There is no child in the slot.
    Free,
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
}

impl State {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Starting => "starting",
            Self::Idle => "idle",
            Self::Serving => "serving",
            Self::Ended => "ended",
            Self::Leaving => "leaving",
        }
    }
}

const WATCHED: u32 = 1;
const SUPERSEDED: u32 = 2;

/// One child's line of the scoreboard: two cache lines.
#[repr(C, align(64))]
#[derive(Debug)]
pub(crate) struct Slot {
    /// Written by the kernel during fork.
    pub(crate) pid: AtomicU32,
    state: AtomicU32,
    /// The next slot on the stack of the dead.
    pub(super) next: AtomicU32,
    /// Why it ended: [`Cause::index`] plus one; 0 while there is no record.
    ending: AtomicU32,
    /// How its death is noticed: 0, or [`WATCHED`] or [`SUPERSEDED`].
    notice: AtomicU32,
    /// How many connections it serves now, where it can serve several.
    pub(crate) open: AtomicU32,
    /// How many threads it has, of those that its model starts and its first.
    pub(crate) threads: AtomicU32,
    started_ms: AtomicU64,
    pub(crate) traffic: Traffic,
    peer: PackedPeer,
    /// Where that is measured, on the clock in microseconds, or 0: when its client was accepted, when it
    /// began to serve that client, and when it announced its end.
    pub(super) times_us: [AtomicU64; 3],
}

impl Slot {
    /// Makes the slot ready for a new child.
    pub(super) fn begin(&self, watched: bool, now_ms: u64) {
        self.pid.store(0, Ordering::Relaxed);
        self.ending.store(0, Ordering::Relaxed);
        self.notice.store(if watched { WATCHED } else { 0 }, Ordering::Relaxed);
        self.open.store(0, Ordering::Relaxed);
        self.threads.store(1, Ordering::Relaxed);
        self.started_ms.store(now_ms, Ordering::Relaxed);
        self.traffic.reset();
        self.peer.store(Peer::None);
        self.times_us.iter().for_each(|time| time.store(0, Ordering::Relaxed));
        self.set_state(State::Starting);
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid.load(Ordering::Relaxed)
    }

    pub(crate) fn state(&self) -> State {
        match self.state.load(Ordering::Acquire) {
            1 => State::Starting,
            // whichever thread serves, none need say so
            2 if self.open.load(Ordering::Relaxed) > 0 => State::Serving,
            2 => State::Idle,
            3 => State::Serving,
            4 => State::Ended,
            5 => State::Leaving,
            _ => State::Free,
        }
    }

    pub(crate) fn set_state(&self, state: State) {
        self.state.store(state as u32, Ordering::Release);
    }

    /// How many connections it serves.
    pub(crate) fn serving(&self) -> u32 {
        let open = self.open.load(Ordering::Relaxed);
        match self.state() {
            // one at a time is not counted
            State::Serving => open.max(1),
            State::Leaving => open,
            State::Free | State::Starting | State::Idle | State::Ended => 0,
        }
    }

    /// How many threads it has.
    pub(crate) fn threads(&self) -> u32 {
        match self.state() {
            State::Free | State::Ended => 0,
            _ => self.threads.load(Ordering::Relaxed),
        }
    }

    /// Whether the master holds a descriptor that tells of this child's death.
    pub(crate) fn is_watched(&self) -> bool {
        self.notice.load(Ordering::Relaxed) == WATCHED
    }

    /// Whether its pid is another child's by now: this one is dead.
    pub(crate) fn is_superseded(&self) -> bool {
        self.notice.load(Ordering::Relaxed) == SUPERSEDED
    }

    /// Has no effect on a watched child, whose watch tells.
    pub(super) fn set_superseded(&self) {
        let _ = self.notice.compare_exchange(0, SUPERSEDED, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The client of this child was accepted then.
    pub(crate) fn set_accepted(&self, us: u64) {
        self.times_us[0].store(us, Ordering::Relaxed);
    }

    /// The child begins to serve its client.
    pub(crate) fn set_began(&self, us: u64) {
        self.times_us[1].store(us, Ordering::Relaxed);
    }

    pub(super) fn set_ended(&self, us: u64) {
        self.times_us[2].store(us, Ordering::Relaxed);
    }

    pub(crate) fn started_ms(&self) -> u64 {
        self.started_ms.load(Ordering::Relaxed)
    }

    /// Who is being served, or was last.
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
        self.ending.load(Ordering::Relaxed).checked_sub(1).map(|index| Cause::from_index(index as usize))
    }
}
