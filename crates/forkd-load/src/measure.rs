//! Churn and ping-pong: clients that do the same again and again, as fast as they can or at a given rate.

use std::cmp::Reverse;
use std::io;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use super::client::State;
use super::clock::{Clock, Nanos, exact_timers, nanos};
use super::engine::{Engine, Stage};
use super::meter::Part;
use super::pacer::Schedule;
use super::plan::Phase;
use super::target::TICK;
use super::task::{Share, Task};

/// Carries out one thread's share; returns how many clients were served, and what was measured.
pub(super) fn measure(task: &Arc<Task>, share: Share, barrier: &Barrier) -> io::Result<(usize, Part)> {
    let mut engine = Engine::new(Arc::clone(task), share);
    let ready = match &mut engine {
        Ok(engine) if task.phase == Phase::PingPong => engine.settle(),
        _ => Ok(()),
    };
    // a thread that fails must come here, too, or the others would wait for ever
    barrier.wait();
    ready?;
    engine?.measure()
}

impl Engine {
    fn measure(mut self) -> io::Result<(usize, Part)> {
        exact_timers(self.schedule.is_some());
        (self.stage, self.clock, self.next_sweep) = (Stage::Measuring, Clock::start(), 0);
        self.meter.open(nanos(self.task.plan.warm_up));
        for i in 0..self.clients.len() {
            // of ping-pong, those that are served take part
            if self.task.phase == Phase::Churn || self.clients[i].state == State::Idle {
                self.next(i, 0)?;
            }
        }
        loop {
            let now = self.clock.now();
            self.meter.at(now);
            if self.task.live.is_finished() && now < self.end {
                self.end = now;
                // that a client was late for it is no loss, as long as it does not wait longer than for an answer
                let late = nanos(self.task.plan.timeout);
                self.schedule.iter_mut().for_each(|schedule| schedule.end_at(now, late));
            }
            if self.is_over(now) {
                break;
            }
            self.resume(now)?;
            self.start_due(now)?;
            self.sweep(now);
            self.turn(self.patience(now))?;
        }
        exact_timers(false);
        let (clock, end) = (self.clock, self.clock.now().min(self.end));
        let unsent = self.schedule.iter().flat_map(|schedule| schedule.unsent(end));
        unsent.for_each(|due| self.meter.unsent((due, clock.at(due)), end - due));
        let served = self.clients.iter().filter(|client| client.was_served).count();
        Ok((served, self.meter.close(end)))
    }

    /// In a closed loop what is under way at the end is left; in an open loop it still counts.
    fn is_over(&mut self, now: Nanos) -> bool {
        let give_up = self.end.saturating_add(nanos(self.task.plan.timeout));
        let is_drained = self.schedule.as_mut().is_none_or(|schedule| {
            let is_alone = self.busy == 0 && (self.task.plan.stay.is_zero() || self.paused.is_empty());
            is_alone && now >= self.end + nanos(TICK) && schedule.due(now).is_none()
        });
        self.meter.is_over()
            || (now >= self.end && (is_drained || now >= give_up))
            || self.busy + self.idle.len() + self.paused.len() == 0
    }

    /// Starts what is due, as far as there are clients for it.
    fn start_due(&mut self, now: Nanos) -> io::Result<()> {
        while let Some(due) = self.schedule.as_mut().and_then(|schedule| schedule.due(now)) {
            let Some(i) = self.idle.pop_front() else { break };
            self.schedule.iter_mut().for_each(Schedule::advance);
            self.start(i, due, now, true)?;
        }
        Ok(())
    }

    /// How long there is nothing to do but to wait for the server.
    fn patience(&self, now: Nanos) -> Duration {
        let pause = self.paused.peek().map(|Reverse((until, _))| until.saturating_sub(now));
        let due = self.schedule.as_ref().filter(|_| !self.idle.is_empty() && now < self.end);
        let due = due.map(|schedule| nanos(schedule.wait(now)));
        let end = Some(self.end.saturating_sub(now)).filter(|left| *left > 0);
        let least = [pause, due, end].into_iter().flatten().min();
        TICK.min(Duration::from_nanos(least.unwrap_or(Nanos::MAX)))
    }
}
