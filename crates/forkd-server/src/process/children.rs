//! All children of a master, whichever their listener: those that died are found, and the living get its signals.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::context::Context;
use super::listeners::Listeners;
use crate::events;
use crate::scoreboard::{Child, Death, Scoreboard};
use crate::sys;
use crate::sys::pidfd::signal_child;

/// How often children that died without a record are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// The same, while a client waits for their place, or the master for their end.
const SWEEP_SOON: Duration = Duration::from_millis(100);

/// How many slots are looked at in one turn of the loop: 0.2 ms, in which no client waits for long.
const SWEEP_SLICE: usize = 256;

/// How many get another `oom_score_adj` in one turn of the loop: that takes 10 µs each. The others wait for another second.
const RAISES: usize = 16;

/// How long children that have announced their end may take for it.
const LAST_MOMENTS: Duration = Duration::from_millis(200);

/// Finds the children that have died: those that have recorded it at once, the others slot by slot.
#[derive(Debug)]
pub(super) struct Sweep {
    last: Instant,
    next_slot: usize,
}

impl Sweep {
    pub(super) fn new(now: Instant) -> Self {
        Self { last: now, next_slot: 0 }
    }

    /// Takes note of those that have died; `soon`: something waits for that.
    pub(super) fn turn(&mut self, cx: &Context, listeners: &Listeners, soon: bool) {
        let on = |child: &Child<'_>, death: Death| {
            let Some(station) = listeners.iter().find(|station| station.number() == death.listener) else {
                return;
            };
            let age = cx.age(child);
            events::child_ended(station.endpoint(), child, death.cause, age, cx.is_stopping(), &cx.deaths);
            if death.cause.is_crash() {
                station.context().into_iter().for_each(|context| context.crashed(child.slot.peer()));
            }
        };
        cx.board.set_waiting(soon);
        if cx.now < self.next(cx, soon) {
            cx.board.collect(cx.now, on);
            return;
        }
        for pid in cx.board.take_those_to_raise(self.next_slot, SWEEP_SLICE, cx.now).take(RAISES) {
            cx.oom.score().into_iter().for_each(|expendable| expendable.make_so(pid));
        }
        let killed = || cx.oom.cause(cx.now);
        self.next_slot =
            cx.board.sweep(self.next_slot, SWEEP_SLICE, cx.now, sys::pidfd::is_our_child, killed, on);
        self.last = cx.now;
    }

    /// When the next slice is due, if there are children that only it finds.
    pub(super) fn deadline(&self, cx: &Context, soon: bool) -> Option<Instant> {
        (cx.board.unwatched() > 0).then(|| self.next(cx, soon))
    }

    /// All slots are looked at once in a period.
    fn next(&self, cx: &Context, soon: bool) -> Instant {
        let slices = cx.board.used() / SWEEP_SLICE + 1;
        self.last + (if soon { SWEEP_SOON } else { SWEEP_EVERY }) / slices as u32
    }
}

/// Sends each child the signal for a worker, or for another child; returns how many clients they were serving.
pub(super) fn signal(board: &Scoreboard, signal: impl Fn(bool) -> Signal) -> u32 {
    let mut count = 0_u32;
    for child in board.children() {
        let signal = signal(child.is_watched());
        let serving = child.serving();
        if !child.is_superseded() && signal_child(child.pid(), signal) {
            count = count.saturating_add(serving);
        }
    }
    if count > 0 {
        events::stop_hastened(count);
    }
    count
}

/// Waits a moment for the last ones: a child announces its end just before it ends, and one that is killed has a
/// moment, too. Systemd would kill it in that moment, and say so, if the master were gone already.
pub(super) fn await_last() {
    let until = Instant::now() + LAST_MOMENTS;
    while sys::pidfd::has_children() && Instant::now() < until {
        sys::fd::pause(Duration::from_millis(1));
    }
}
