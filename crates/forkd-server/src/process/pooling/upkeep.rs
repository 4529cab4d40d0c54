//! What a pool does for workers that accept by themselves: they come in and go by what they say and by the time, and there are
//! as many as the load asks for.

use std::sync::Arc;
use std::time::Duration;

use super::Pooling;
use super::application::ApplicationPool;
use super::worker::{Due, Worker};
use crate::events;
use crate::model::demand::Load;
use crate::process::context::Context;
use crate::process::program::Said;
use crate::scoreboard::State;
use crate::sys::tcp::queue;
use crate::sys::usage::Usage;

impl Pooling {
    /// How long the next of its workers may take to come up, if that is its own affair.
    pub(in crate::process) fn start_timeout(&self) -> Option<Duration> {
        self.application.as_ref().map(|application| application.upkeep().start_timeout)
    }

    /// Whether its workers accept by themselves, from any of the sockets that the other pool's have.
    pub(in crate::process) fn follows(&self, other: &Self) -> bool {
        let shares = |listener| other.context.listeners().any(|its| Arc::ptr_eq(its, listener));
        self.application.is_some() && other.application.is_some() && self.context.listeners().any(shares)
    }

    /// Its first workers come in a few at a time, in the place of those of the pool that it follows, if it follows this one.
    /// Returns how many places they have taken.
    pub(in crate::process) fn roll(&mut self, last: &Self, cx: &Context) -> Option<u32> {
        if !self.follows(last) {
            return None;
        }
        let up = self.up(cx) as u32;
        let (new, old) = (self.application.as_mut()?, last.application.as_ref()?);
        if !std::mem::replace(&mut self.rolls, true) {
            new.begin_to_follow(old.wanted());
        }
        Some(new.follow(up))
    }

    /// Leaves so many places to those that follow it.
    pub(in crate::process) fn give(&mut self, places: u32) {
        self.application.iter_mut().for_each(|application| application.give(places));
    }

    /// Its generation is not to be: those that serve go on until the last one has its workers again.
    pub(in crate::process) fn stand_in(&mut self, cx: &Context) {
        let kill_at = self.kill_at(cx);
        self.leaving = true;
        let others = self.workers.iter_mut().filter(|worker| !worker.serves(cx));
        others.for_each(|worker| worker.dismiss(kill_at, cx));
    }

    /// Whether some of its workers stand in for those of the generation in force.
    pub(in crate::process) fn has_stand_ins(&self) -> bool {
        self.rolls && self.leaving && self.workers.iter().any(|worker| !worker.dismissed)
    }

    /// How many of its workers are not up that there should be.
    pub(in crate::process) fn lacking(&self, cx: &Context) -> u32 {
        let wanted = self.application.as_ref().map_or(0, ApplicationPool::wanted);
        wanted.saturating_sub(self.up(cx) as u32)
    }

    /// Tells those that stand in to leave that the pool which they stand in for, which lacks so many, doesn't need.
    pub(in crate::process) fn stand_in_for(&mut self, lacking: u32, cx: &Context) {
        self.keep(lacking, cx);
    }

    /// Tells all to leave but so many.
    fn keep(&mut self, most: u32, cx: &Context) {
        let staying = self.workers.iter().filter(|worker| !worker.leaves(cx)).count() as u32;
        self.retire(cx, staying.saturating_sub(most));
    }

    /// Does what is due for each worker.
    pub(super) fn care(&mut self, cx: &Context) {
        self.next_due = None;
        for worker in &mut self.workers {
            let next = loop {
                match worker.due(self.application.as_ref().map(ApplicationPool::upkeep), cx) {
                    Ok(Due::Ready) => {
                        cx.board.slot(worker.slot).come_up();
                        worker.attached.iter_mut().for_each(|attached| attached.arm(cx.now));
                    }
                    Ok(due) => {
                        events::worker_killed(self.context.listener.endpoint(), worker.number, due.why());
                        worker.kill_as(due, cx);
                    }
                    Err(next) => break next,
                }
            };
            self.next_due = self.next_due.into_iter().chain(next).min();
        }
        let looks = !self.leaving && self.is_live;
        if looks {
            self.look_at_load(cx);
            self.renew(cx);
        }
        if let Some(application) = &self.application {
            self.pool.set_target(application.target());
            let next = application.next().filter(|_| looks);
            self.next_due = self.next_due.into_iter().chain(next).min();
        }
    }

    /// Asks the kernel, if that is due, what there is to do for workers that accept by themselves.
    fn look_at_load(&mut self, cx: &Context) {
        let Some(application) =
            self.application.as_mut().filter(|application| application.wants_load(cx.now))
        else {
            return;
        };
        let queues = self.context.listeners().filter_map(|listener| Some(queue(listener)?.length));
        let used = |worker: &Worker| Usage::of(worker.pid(cx)).map(|usage| usage.cpu);
        let load = Load {
            queued: queues.reduce(u32::saturating_add),
            cpu: self.workers.iter().filter_map(used).sum(),
            workers: self.workers.iter().filter(|worker| worker.serves(cx)).count() as u32,
        };
        application.on_load(load, cx.now);
    }

    /// Has another worker in the place of one that is too old, or too large: first that comes up, and then this is told to
    /// leave.
    fn renew(&mut self, cx: &Context) {
        let kill_at = self.kill_at(cx);
        let Some(application) = &mut self.application else { return };
        if application.wants_look(cx.now) {
            let staying = self.workers.iter().filter(|worker| !worker.leaves(cx));
            let memory = |slot| Some(Usage::of(cx.board.record(slot).pid())?.rss);
            let births = staying.map(|worker| (worker.slot, worker.birth, worker.started));
            if let Some((slot, why)) = application.look(births, memory, cx.now) {
                let record = cx.board.record(slot);
                events::worker_renewed(self.context.listener.endpoint(), record.place(), record.pid(), &why);
            }
        }
        let Some(slot) = application.renewed() else { return };
        let up = self.workers.iter().filter(|worker| worker.serves(cx)).count();
        if up >= application.target() as usize {
            application.has_renewed(cx.now);
            let renewed = self.workers.iter_mut().find(|worker| worker.slot == slot);
            renewed.into_iter().for_each(|worker| worker.dismiss(kill_at, cx));
        }
    }

    /// Tells workers of the program before this one to leave, as workers of the next generation come in.
    pub(super) fn make_room(&mut self, cx: &Context) {
        if let Some(target) = self.application.as_ref().map(ApplicationPool::target) {
            self.keep(target, cx);
        }
    }

    /// A program says how it is.
    pub(super) fn listen(&mut self, cx: &Context, index: u32) {
        let kill_at = self.kill_at(cx);
        let Some(worker) = self.workers.iter_mut().find(|worker| worker.slot == index) else { return };
        let Some(attached) = &mut worker.attached else { return };
        let Said { ready, stopping, trigger } = attached.listen(cx.now);
        if ready {
            cx.board.slot(index).come_up();
            attached.arm(cx.now);
        }
        if stopping {
            attached.disarm();
            worker.kill_at = worker.kill_at.or(kill_at);
            // another takes its place at once; not in that of one that never came up, which has failed
            if cx.board.slot(index).state() != State::Starting {
                cx.board.slot(index).set_state(State::Leaving);
            }
        }
        if trigger {
            events::worker_killed(self.context.listener.endpoint(), worker.number, Due::Silent.why());
            worker.kill_as(Due::Silent, cx);
        }
    }

    /// A program has printed something.
    pub(super) fn read(&mut self, cx: &Context, index: u32) {
        let Some(worker) = self.workers.iter_mut().find(|worker| worker.slot == index) else { return };
        let (number, pid) = (worker.number, worker.pid(cx));
        let Some(attached) = &mut worker.attached else { return };
        let closed =
            attached.read(cx.now, |line, left_out| events::worker_printed(number, pid, line, left_out));
        closed.into_iter().for_each(|fd| cx.descriptors.remove(fd));
    }
}
