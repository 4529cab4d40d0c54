//! One thread's clients of a stream: hold, churn and ping-pong.
//!
//! The invariant: a client is in one [`State`], and `busy` of them are [`State::Busy`]. Per message there
//! are a write, a wait and a read, and no allocation.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::client::{Client, State};
use super::clock::{Clock, Nanos, nanos, wait_exactly};
use super::fault::Fault;
use super::meter::Meter;
use super::pacer::Schedule;
use super::plan::Phase;
use super::target::Unconnected;
use super::task::{Share, Task};
use forkd_sys::poller::{Event, Poller};
use forkd_sys::socket::Mode;

/// How long a client pauses that has failed, so that a server that is down isn't hammered.
const PAUSE: Nanos = 10_000_000;
/// How long it waits before it knocks again at a Unix socket whose queue is full.
const KNOCK_AGAIN: Nanos = 1_000_000;
/// How often time limits are looked after, at least.
const SWEEP: Nanos = 100_000_000;
/// What is read or written at once.
const BUFFER: usize = 64 * 1024;
/// Up to this size one client alone does without a poller: a message fits every buffer on its way.
const SMALL: usize = 16 * 1024;
/// From this size a message may take several segments, of which the last must not wait.
const SEGMENT: usize = 1400;

/// What the clients are at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Each gets its connection and its first echo.
    Settling,
    /// Each does again and again what the phase is about.
    Measuring,
    /// Each that is held has one more echo.
    Releasing,
}

#[derive(Debug)]
pub(super) struct Engine {
    pub(super) task: Arc<Task>,
    share: Share,
    pub(super) stage: Stage,
    pub(super) clock: Clock,
    poller: Poller,
    events: Vec<Event>,
    mode: Mode,
    pub(super) clients: Vec<Client>,
    pub(super) busy: usize,
    /// The clients that wait for an operation to come due.
    pub(super) idle: VecDeque<usize>,
    /// The clients that pause, and until when. An entry that isn't what its client says is out of date.
    pub(super) paused: BinaryHeap<Reverse<(Nanos, usize)>>,
    /// When operations are due, in an open loop.
    pub(super) schedule: Option<Schedule>,
    /// How many connections have been made.
    opened: u64,
    /// When the phase's time is up.
    pub(super) end: Nanos,
    pub(super) next_sweep: Nanos,
    pub(super) meter: Meter,
    /// When the last of those that were to settle did.
    pub(super) settled_at: Nanos,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Engine {
    pub(super) fn new(task: Arc<Task>, share: Share) -> io::Result<Self> {
        let size = task.messages.size();
        let schedule = task.schedule(share);
        let is_alone = share.clients == 1 && schedule.is_none() && size <= SMALL;
        Ok(Self {
            stage: Stage::Settling,
            clock: Clock::start(),
            poller: Poller::new()?,
            events: Vec::new(),
            mode: if is_alone { Mode::Blocking } else { Mode::NonBlocking },
            clients: std::iter::repeat_with(Client::default).take(share.clients).collect(),
            busy: 0,
            idle: VecDeque::new(),
            paused: BinaryHeap::new(),
            schedule,
            opened: 0,
            end: task.end(),
            next_sweep: 0,
            meter: Meter::new(Arc::clone(&task.live)),
            settled_at: 0,
            // a byte more, so that a server's surplus is noticed
            input: vec![0; (size + 1).min(BUFFER)],
            output: vec![0; size.min(BUFFER)],
            share,
            task,
        })
    }

    /// Waits for the server, at most for `patience`, and does what can then be done.
    pub(super) fn turn(&mut self, patience: Duration) -> io::Result<()> {
        if self.mode == Mode::Blocking && self.clients[0].socket.is_some() {
            // the calls themselves wait
            return self.ready(0, true, true);
        }
        match self.schedule {
            Some(_) => wait_exactly(&self.poller, &mut self.events, patience)?,
            None => self.poller.wait(&mut self.events, Some(patience))?,
        }
        for k in 0..self.events.len() {
            let Event { token, readable, writable, .. } = self.events[k];
            self.ready(token, readable, writable)?;
        }
        Ok(())
    }

    fn ready(&mut self, i: usize, readable: bool, writable: bool) -> io::Result<()> {
        let size = self.task.messages.size();
        if writable && !self.clients[i].has_sent(size) {
            self.send(i)?;
        }
        if !readable {
            return Ok(());
        }
        let client = &mut self.clients[i];
        let message = self.task.messages.message(self.share.client(i), client.number);
        match client.pull(&message, size, &mut self.input) {
            Ok(false) => {}
            Ok(true) => self.finished(i)?,
            Err(fault) => self.fail(i, fault),
        }
        Ok(())
    }

    /// Has a client begin an operation that was due at `due`.
    pub(super) fn start(&mut self, i: usize, due: Nanos, now: Nanos, is_measured: bool) -> io::Result<()> {
        self.busy += 1;
        self.clients[i].begin(due, now, is_measured);
        if self.clients[i].socket.is_none() { self.knock(i, now) } else { self.send(i) }
    }

    /// Sends what can be sent now, and has the poller tell of what is then to be waited for.
    fn send(&mut self, i: usize) -> io::Result<()> {
        let client = &mut self.clients[i];
        let message = self.task.messages.message(self.share.client(i), client.number);
        let size = self.task.messages.size();
        if let Err(fault) = client.push(&message, size, &mut self.output) {
            self.fail(i, fault);
            return Ok(());
        }
        let wanted = client.wanted(size);
        let Some(socket) = client.socket.as_ref().filter(|_| self.mode == Mode::NonBlocking) else {
            return Ok(());
        };
        match client.watched.replace(wanted) {
            None => self.poller.add(socket, i, wanted),
            Some(before) if before != wanted => self.poller.change(socket, i, before, wanted),
            Some(_) => Ok(()),
        }
    }

    /// Connects, and sends what can be sent at once.
    fn knock(&mut self, i: usize, now: Nanos) -> io::Result<()> {
        let nth = self.opened * self.share.threads as u64 + self.share.thread as u64;
        match self.task.target.connect(self.mode, nth) {
            Ok(socket) => {
                self.opened += 1;
                if self.task.phase != Phase::Churn || self.task.messages.size() > SEGMENT {
                    self.task.target.no_delay(&socket);
                }
                self.clients[i].header = self.task.target.header(&socket);
                self.clients[i].socket = Some(socket);
                self.send(i)
            }
            Err(Unconnected::Full) => {
                self.pause(i, now + KNOCK_AGAIN);
                Ok(())
            }
            Err(Unconnected::Failed(fault)) => {
                self.fail(i, fault);
                Ok(())
            }
        }
    }

    fn pause(&mut self, i: usize, until: Nanos) {
        self.clients[i].wakes = until;
        self.paused.push(Reverse((until, i)));
    }

    /// Has those go on whose pause is over.
    pub(super) fn resume(&mut self, now: Nanos) -> io::Result<()> {
        while let Some(&Reverse((until, i))) = self.paused.peek()
            && until <= now
        {
            self.paused.pop();
            match self.clients[i].state {
                _ if self.clients[i].wakes != until => {}
                State::Busy => self.knock(i, now)?,
                _ if self.task.phase == Phase::Churn => {
                    // one that has stayed makes room, also at the end, for those that wait still
                    self.clients[i].close();
                    if now < self.end {
                        self.next(i, now)?;
                    }
                }
                _ if now >= self.end => {}
                // to be there again is not what is measured
                _ if self.task.begin() => self.start(i, now, now, false)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// A client has had its echo.
    fn finished(&mut self, i: usize) -> io::Result<()> {
        self.busy -= 1;
        let client = &mut self.clients[i];
        (client.was_served, client.state) = (true, State::Idle);
        let stay = nanos(self.task.plan.stay);
        let stays = self.task.phase == Phase::Churn && stay > 0;
        if self.task.phase == Phase::Churn && !stays {
            client.close();
        }
        let (due, now) = (client.due, self.clock.now());
        match self.stage {
            Stage::Measuring => {
                let is_paced = self.schedule.is_some();
                if client.is_measured && (is_paced || now < self.end) {
                    let moment = if is_paced { due } else { now };
                    self.meter.done(moment, now.saturating_sub(due), self.task.messages.size());
                }
                if stays {
                    self.pause(i, now.saturating_add(stay));
                    return Ok(());
                }
                self.next(i, now)
            }
            Stage::Settling => {
                self.settled_at = now;
                self.task.settled.fetch_add(1, Ordering::Relaxed);
                self.meter.settled();
                if self.task.phase == Phase::Hold {
                    self.meter.done(now, now - due, self.task.messages.size());
                }
                Ok(())
            }
            Stage::Releasing => Ok(()),
        }
    }

    /// Has a client do the next thing: at once in a closed loop, when it is due in an open one.
    pub(super) fn next(&mut self, i: usize, now: Nanos) -> io::Result<()> {
        if self.schedule.is_some() {
            self.idle.push_back(i);
        } else if now < self.end && self.task.begin() {
            self.start(i, now, now, true)?;
        }
        Ok(())
    }

    /// A client has failed: it is counted, loses its connection, and tries again after a pause.
    pub(super) fn fail(&mut self, i: usize, fault: Fault) {
        self.meter.fault(fault);
        match self.clients[i].state {
            State::Busy => self.busy -= 1,
            _ => self.idle.retain(|idle| *idle != i),
        }
        self.clients[i].close();
        if self.stage == Stage::Measuring {
            self.pause(i, self.clock.now() + PAUSE);
        }
    }

    /// Looks, from time to time, for clients that have waited for too long.
    pub(super) fn sweep(&mut self, now: Nanos) {
        if now < self.next_sweep {
            return;
        }
        let plan = &self.task.plan;
        let timeout = nanos(if self.stage == Stage::Settling { plan.patience } else { plan.timeout });
        self.next_sweep = now + SWEEP.min(timeout / 4);
        for i in 0..self.clients.len() {
            let client = &self.clients[i];
            if client.state == State::Busy && now.saturating_sub(client.began) > timeout {
                if self.task.phase == Phase::Hold && self.stage == Stage::Settling {
                    self.leave(i);
                } else {
                    self.fail(i, Fault::TimedOut);
                }
            }
        }
    }

    /// Gives a client up that goes on waiting, as unserved clients do.
    fn leave(&mut self, i: usize) {
        self.meter.fault(Fault::TimedOut);
        self.busy -= 1;
        let client = &mut self.clients[i];
        (client.state, client.wakes) = (State::Left, 0);
        if let (Some(socket), Some(watched)) = (&client.socket, client.watched.take()) {
            // it is in there, so it can be taken out
            let _ = self.poller.remove(socket, watched);
        }
    }
}
