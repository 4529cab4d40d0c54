//! What signals ask for, and the way to the end.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::attendant::Attendant;
use super::companion::Notice;
use super::master::Master;
use super::phase::{Phase, Step};
use super::signals::Order;
use super::station::{Kind, Life};
use crate::events;
use crate::model::pool;
use crate::sys::pidfd::signal_child;

impl Master {
    pub(super) fn on_order(&mut self, order: Order) {
        let now = self.cx.now;
        match order {
            Order::Stop(signal) => {
                if self.phase == Phase::Running {
                    events::stopping(signal, self.view().children(), self.cx.grace);
                    self.tell(Notice::Stopping(self.cx.grace));
                }
                let step = self.phase.stop(now, self.cx.grace);
                self.take_step(step);
            }
            Order::StopNow => {
                if self.phase == Phase::Running {
                    events::stopping("SIGQUIT", self.view().children(), Duration::ZERO);
                    self.tell(Notice::Stopping(Duration::ZERO));
                }
                let step = self.phase.stop_now(now);
                self.take_step(step);
            }
            Order::Reload => self.reload.wanted = true,
            Order::Upgrade => events::unsupported("SIGUSR2", "replacing the program"),
            Order::Report => self.view().log(),
            Order::Grow => self.resize("SIGTTIN", pool::Event::Grow),
            Order::Shrink => self.resize("SIGTTOU", pool::Event::Shrink),
        }
    }

    fn resize(&mut self, signal: &str, event: pool::Event) {
        if self.phase != Phase::Running {
            return;
        }
        let mut has_pool = false;
        for station in &mut self.stations {
            if let (Kind::Pooling(pooling), Life::Live) = (&mut station.kind, station.life) {
                pooling.resize(event, &self.cx);
                has_pool = true;
            }
        }
        if !has_pool {
            events::no_pool(signal);
        }
    }

    pub(super) fn take_step(&mut self, step: Step) {
        if step != Step::Nothing {
            self.cx.board.set_stage(self.phase.stage());
        }
        match step {
            Step::Nothing => {}
            Step::Drain => self.drain(),
            Step::End => {
                self.close();
                // to a worker, SIGTERM says to leave after its connection
                let signal = |is_worker| if is_worker { Signal::SIGQUIT } else { Signal::SIGTERM };
                self.cut += u64::from(self.signal_children(signal));
            }
            Step::Kill => _ = self.signal_children(|_| Signal::SIGKILL),
        }
    }

    fn drain(&mut self) {
        self.cx.stopping = true;
        self.stations.iter_mut().for_each(|station| station.drain(&mut self.cx));
    }

    /// Takes no more clients.
    fn close(&mut self) {
        self.cx.stopping = true;
        self.stations.iter_mut().for_each(|station| station.close(&mut self.cx));
    }

    /// Sends each child the signal for a worker, or for another child; returns how many were serving somebody.
    fn signal_children(&self, signal: impl Fn(bool) -> Signal) -> u32 {
        let mut count = 0_u32;
        for child in self.cx.board.children() {
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

    /// Ends all children at once, after an error that ends the master; whoever sees its end may count on theirs.
    pub fn abandon(&mut self) {
        self.signal_children(|_| Signal::SIGKILL);
        self.attendants.iter().for_each(Attendant::end);
        self.see_the_last_ones_off();
    }
}
