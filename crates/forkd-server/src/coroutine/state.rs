//! What a scheduler knows: which coroutines can go on, and what the others wait for. Nothing here switches, or asks the system.

use std::collections::{HashMap, VecDeque};
use std::os::fd::RawFd;

use smallvec::SmallVec;

use super::stacks::Stacks;
use crate::fairness::Load;
use crate::slab::{Key, Slab};
use crate::sys::context::Context;
use crate::sys::poller::Event;
use crate::timers::Timers;
use crate::transport::{Awaited, Ready};

/// Which coroutine.
pub(crate) type Id = Key;

/// The main function's.
pub(crate) const MAIN: Id = Key::FIRST;

#[derive(Default)]
pub(super) struct State {
    pub(super) tasks: Slab<Task>,
    pub(super) queue: VecDeque<Id>,
    /// Those that can go on, too, but have moved much in their last turns: one of them has its turn after all that
    /// are in the queue.
    pub(super) bulk: VecDeque<Id>,
    pub(super) sources: Slab<Source>,
    /// Of these, those that are looked after while they are waited for, and by how many coroutines.
    pub(super) lent: HashMap<RawFd, (Key, u32)>,
    pub(super) timers: Timers<Id>,
    pub(super) stacks: Stacks,
    /// How many wait for a descriptor.
    pub(super) listening: usize,
}

#[derive(Default)]
pub(super) struct Task {
    /// None while it runs, and of the main function.
    pub(super) context: Option<Context>,
    pub(super) queued: bool,
    pub(super) has_usual_stack: bool,
    /// What it has done in its last turns.
    pub(super) load: Load,
}

/// What is known of a descriptor. It may be ready until a call has found that it isn't.
#[derive(Debug, Default)]
pub(super) struct Source {
    read: Side,
    write: Side,
    /// The peer will send no more, so that reads never block again.
    pub(super) ended: bool,
    /// It was called for, and nobody has heard of it.
    is_called: bool,
    /// Which coroutine a call wakes.
    called: Option<Id>,
}

#[derive(Debug, Default)]
pub(super) struct Side {
    pub(super) is_ready: bool,
    pub(super) waiting: SmallVec<[Id; 2]>,
}

impl Source {
    pub(super) fn side(&mut self, ready: Ready) -> &mut Side {
        match ready {
            Ready::Read => &mut self.read,
            Ready::Write => &mut self.write,
        }
    }

    /// Whether it may be ready as awaited, or is called for. If not, `id` is woken when it is.
    pub(super) fn await_any(&mut self, awaited: Awaited, id: Id) -> bool {
        let mut is_ready = std::mem::take(&mut self.is_called);
        for (side, is_awaited) in [(&self.read, awaited.input), (&self.write, awaited.room)] {
            is_ready |= is_awaited && side.is_ready;
        }
        if !is_ready {
            self.called = Some(id);
            for (side, is_awaited) in [(&mut self.read, awaited.input), (&mut self.write, awaited.room)] {
                side.waiting.extend(is_awaited.then_some(id));
            }
        }
        is_ready
    }

    /// The wait is over; tells whether there may be input.
    pub(super) fn has_awaited(&mut self, id: Id) -> bool {
        (self.is_called, self.called) = (false, None);
        for side in [&mut self.read, &mut self.write] {
            side.waiting.retain(|other| *other != id);
        }
        self.read.is_ready
    }
}

impl State {
    pub(super) fn wake(&mut self, id: Id) {
        if let Some(task) = self.tasks.get_mut(id)
            && !std::mem::replace(&mut task.queued, true)
        {
            let queue = if task.load.is_bulk() { &mut self.bulk } else { &mut self.queue };
            queue.push_back(id);
        }
    }

    /// Whether one can go on.
    pub(super) fn is_busy(&self) -> bool {
        !self.queue.is_empty() || !self.bulk.is_empty()
    }

    /// Begins a round; returns how many have their turn in it: all that can go on now, and one with bulk.
    pub(super) fn begin_round(&mut self) -> usize {
        self.queue.extend(self.bulk.pop_front());
        self.queue.len()
    }

    /// Whose turn it is.
    pub(super) fn next(&mut self) -> Option<(Id, Option<Context>)> {
        let id = self.queue.pop_front()?;
        let task = self.tasks.get_mut(id)?;
        task.queued = false;
        Some((id, task.context.take()))
    }

    /// A source is called for.
    pub(super) fn call(&mut self, source: Key) {
        let Some(source) = self.sources.get_mut(source) else { return };
        source.is_called = true;
        if let Some(id) = source.called {
            self.wake(id);
        }
    }

    pub(super) fn on_event(&mut self, event: Event) {
        // it may have gone, and another may have its place
        let Some(source) = self.sources.key(event.token).and_then(|key| self.sources.get_mut(key)) else {
            return;
        };
        source.ended |= event.ended;
        let mut woken: SmallVec<[Id; 4]> = SmallVec::new();
        for (side, is_ready) in [(&mut source.read, event.readable), (&mut source.write, event.writable)] {
            if is_ready {
                side.is_ready = true;
                woken.extend(side.waiting.drain(..));
            }
        }
        woken.into_iter().for_each(|id| self.wake(id));
    }
}
