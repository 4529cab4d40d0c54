//! Clients that connect, have one echo, and stay: how many can be served at once?

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use super::client::{Client, State};
use super::clock::{Clock, Nanos};
use super::engine::{Engine, Stage};
use super::fault::Fault;
use super::meter::{Meter, Part};
use super::outcome::Outcome;
use super::target::TICK;
use super::task::{Task, on_threads};
use forkd_net::Error;

/// How many clients wait for their first echo at the same time, so that no listener's queue overflows ...
const WINDOW: usize = 32;
/// ... and how long each of these has before it counts as unserved, and others come.
const SERVED_TIMEOUT: Nanos = 100_000_000;
/// ... or this, once no client has been served for that long: then others would only wait in vain, too.
const IN_VAIN: Nanos = 10_000_000;

/// Clients that are connected: those that were served, and those that wait in vain. They are let go when
/// this is dropped.
#[derive(Debug)]
pub struct Held {
    task: Arc<Task>,
    engines: Vec<Engine>,
    outcome: Outcome,
}

impl Held {
    /// Returns how many clients were served, and how it went.
    #[must_use]
    pub fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// Has each client that was served echo once more, and closes all connections.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] if the system refuses something that ought to work.
    pub fn release(mut self) -> Result<Outcome, Error> {
        for engine in &mut self.engines {
            let released = engine.release();
            let endpoint = self.task.target.endpoint();
            let (served, part) =
                released.map_err(|cause| Error::os(format!("cannot load {endpoint}"), cause))?;
            self.outcome.still_served = Some(self.outcome.still_served.unwrap_or(0) + served);
            self.outcome.faults.add(&part.faults);
        }
        self.outcome.is_cut = self.task.live.is_stopped();
        Ok(self.outcome)
    }
}

pub(super) fn hold(task: &Arc<Task>) -> io::Result<Held> {
    let settled = on_threads(task, |task, share, _| {
        let mut engine = Engine::new(Arc::clone(task), share)?;
        engine.settle()?;
        let part = engine.part();
        Ok((engine, part))
    })?;
    let (engines, parts): (Vec<Engine>, Vec<Part>) = settled.into_iter().unzip();
    let served = engines.iter().map(|engine| engine.standing().count()).sum();
    let outcome = Outcome::of(task.phase, &task.plan, served, parts);
    Ok(Held { task: Arc::clone(task), engines, outcome })
}

impl Engine {
    /// Has each client connect and echo once, a few at the same time; returns when each has been served,
    /// has failed, or has run out of time.
    pub(super) fn settle(&mut self) -> io::Result<()> {
        let (mut next, mut waiting) = (0, VecDeque::new());
        while (next < self.clients.len() || self.busy > 0) && !self.task.live.is_stopped() {
            let now = self.clock.now();
            self.meter.at(now);
            while next < self.clients.len() && self.has_room(&mut waiting, now) {
                self.start(next, now, now, true)?;
                waiting.push_back(next);
                next += 1;
            }
            self.resume(now)?;
            self.sweep(now);
            self.turn(TICK / 10)?;
            if self.task.is_full() {
                self.give_up(next);
                break;
            }
        }
        Ok(())
    }

    /// Those that wait, and those from `next` on, would wait in vain.
    fn give_up(&mut self, next: usize) {
        for i in 0..self.clients.len() {
            if self.clients[i].state == State::Busy {
                self.fail(i, Fault::TimedOut);
            } else if i >= next {
                self.meter.fault(Fault::TimedOut);
            }
        }
    }

    /// Whether fewer than [`WINDOW`] wait with good reason to hope.
    fn has_room(&self, waiting: &mut VecDeque<usize>, now: Nanos) -> bool {
        if waiting.len() >= WINDOW {
            let patience =
                if now.saturating_sub(self.settled_at) < SERVED_TIMEOUT { SERVED_TIMEOUT } else { IN_VAIN };
            let hopes =
                |client: &Client| client.state == State::Busy && now.saturating_sub(client.began) < patience;
            waiting.retain(|i| hopes(&self.clients[*i]));
        }
        waiting.len() < WINDOW
    }

    /// Those that are connected and have had their echo.
    fn standing(&self) -> impl Iterator<Item = usize> {
        (0..self.clients.len()).filter(|i| self.clients[*i].state == State::Idle)
    }

    /// What has been counted so far.
    fn part(&mut self) -> Part {
        let fresh = Meter::new(Arc::clone(&self.task.live));
        std::mem::replace(&mut self.meter, fresh).close(self.settled_at)
    }

    /// Has each that stands echo once more; returns how many could, and what went wrong.
    fn release(&mut self) -> io::Result<(usize, Part)> {
        (self.stage, self.clock, self.next_sweep) = (Stage::Releasing, Clock::start(), 0);
        for i in self.standing().collect::<Vec<_>>() {
            self.start(i, 0, 0, false)?;
        }
        while self.busy > 0 {
            let now = self.clock.now();
            self.sweep(now);
            self.turn(TICK)?;
        }
        Ok((self.standing().count(), self.part()))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::time::Duration;

    use crate::{Live, Load, Plan, Reach, Target};

    /// How many of two clients are served by a server that serves the second one after this time, if at all.
    fn served(second_after: Option<Duration>, patience: Duration) -> usize {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("tcp://{}", listener.local_addr().unwrap()).parse().unwrap();
        std::thread::spawn(move || {
            let clients = [Some(Duration::ZERO), second_after].map(|after| {
                let (mut client, _) = listener.accept().unwrap();
                if let Some(after) = after {
                    std::thread::sleep(after);
                    let mut message = [0; 64];
                    client.read_exact(&mut message).unwrap();
                    client.write_all(&message).unwrap();
                }
                client
            });
            // until they leave
            for mut client in clients {
                let _ = std::io::copy(&mut client, &mut std::io::sink());
            }
        });
        let plan = Plan { clients: 2, patience, ..Plan::default() };
        let load = Load::new(Target::new(&endpoint, Reach::Loopback).unwrap(), plan).unwrap();
        load.hold(&Arc::new(Live::default())).unwrap().outcome().served
    }

    #[test]
    fn a_client_that_is_served_late_counts_and_one_that_never_is_does_not() {
        assert_eq!(served(Some(Duration::from_millis(700)), Duration::from_secs(20)), 2);
        assert_eq!(served(None, Duration::from_millis(300)), 1);
    }
}
