//! Clients of a datagram socket: rate, loss, round trips.
//!
//! The invariant: each datagram that was sent ends as answered, as lost, or with a fault of its socket. In
//! a closed loop a client has one under way; in an open loop as many as come due.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use rustix::io::{Errno, read};
use rustix::net::send;

use super::clock::{Clock, Nanos, exact_timers, nanos, wait_exactly};
use super::fault::Fault;
use super::in_flight::{Datagram, InFlight};
use super::message::number_of;
use super::meter::{Meter, Part};
use super::pacer::Schedule;
use super::target::{TICK, Unconnected};
use super::task::{Share, Task};
use forkd_sys::poller::{Event, Interest, Poller};
use forkd_sys::socket::{Mode, NO_SIGNAL};

/// How long a client pauses whose socket has failed.
const PAUSE: Nanos = 10_000_000;
/// The most datagrams that one client may have under way.
const MOST: usize = 1 << 16;
/// How many are sent, and how many taken from one socket, before it is the others' turn.
const BATCH: usize = 64;

#[derive(Debug, Default)]
struct Client {
    socket: Option<OwnedFd>,
    /// What is in front of each datagram.
    header: Vec<u8>,
    in_flight: InFlight,
    /// What was due when the socket could take no more.
    blocked: Option<Nanos>,
    was_served: bool,
}

struct Sender<'a> {
    task: &'a Task,
    share: Share,
    clock: Clock,
    poller: Poller,
    events: Vec<Event>,
    mode: Mode,
    clients: Vec<Client>,
    /// Which clients go on, and when.
    paused: VecDeque<(Nanos, usize)>,
    schedule: Option<Schedule>,
    /// Whose turn it is in an open loop.
    turn: usize,
    opened: u64,
    /// When the phase's time is up.
    end: Nanos,
    next_sweep: Nanos,
    meter: Meter,
    input: Vec<u8>,
    output: Vec<u8>,
}

/// Carries out one thread's share; returns how many clients were served, and what was measured.
pub(super) fn run(task: &Arc<Task>, share: Share, barrier: &Barrier) -> io::Result<(usize, Part)> {
    let sender = Sender::new(task, share);
    barrier.wait();
    sender?.run()
}

impl<'a> Sender<'a> {
    fn new(task: &'a Task, share: Share) -> io::Result<Self> {
        let (size, schedule) = (task.messages.size(), task.schedule(share));
        let mut meter = Meter::new(Arc::clone(&task.live));
        meter.open(nanos(task.plan.warm_up));
        let is_alone = share.clients == 1 && schedule.is_none();
        Ok(Self {
            task,
            share,
            clock: Clock::start(),
            poller: Poller::new()?,
            events: Vec::new(),
            mode: if is_alone { Mode::Blocking } else { Mode::NonBlocking },
            clients: std::iter::repeat_with(Client::default).take(share.clients).collect(),
            paused: VecDeque::new(),
            schedule,
            turn: 0,
            opened: 0,
            end: task.end(),
            next_sweep: 0,
            meter,
            // a byte more, so that a server's surplus is noticed
            input: vec![0; size + 1],
            output: vec![0; size],
        })
    }

    fn run(mut self) -> io::Result<(usize, Part)> {
        exact_timers(self.schedule.is_some());
        self.clock = Clock::start();
        for i in 0..self.clients.len() {
            self.open(i, 0)?;
        }
        loop {
            let now = self.clock.now();
            self.meter.at(now);
            if self.task.live.is_finished() && now < self.end {
                self.end = now;
                let late = nanos(self.task.plan.loss_after());
                self.schedule.iter_mut().for_each(|schedule| schedule.end_at(now, late));
            }
            if self.is_over(now) {
                break;
            }
            while self.paused.front().is_some_and(|(until, _)| *until <= now) {
                let (_, i) = self.paused.pop_front().unwrap_or_default();
                self.open(i, now)?;
            }
            self.send_due(now)?;
            self.turn(now)?;
            // what has come meanwhile is taken: that this process had to wait is not the server's doing
            self.sweep(now)?;
        }
        exact_timers(false);
        let (clock, end) = (self.clock, self.clock.now().min(self.end));
        let unsent = self.schedule.iter().flat_map(|schedule| schedule.unsent(end));
        unsent.for_each(|due| self.meter.unsent((due, clock.at(due)), end - due));
        self.give_up_all();
        let served = self.clients.iter().filter(|client| client.was_served).count();
        Ok((served, self.meter.close(end)))
    }

    fn is_over(&mut self, now: Nanos) -> bool {
        let (end, give_up) = (self.end, self.end.saturating_add(nanos(self.task.plan.loss_after())));
        let (clients, schedule) = (&self.clients, &mut self.schedule);
        let is_drained = schedule.as_mut().is_none_or(|schedule| {
            now >= end + nanos(TICK)
                && clients.iter().all(|client| client.in_flight.len() == 0)
                && schedule.due(now).is_none()
        });
        let is_free = |client: &Client| client.in_flight.len() == 0 && client.blocked.is_none();
        self.meter.is_over()
            || (now >= end && (is_drained || now >= give_up))
            || (self.task.has_begun_all() && self.clients.iter().all(is_free))
    }

    /// Those that are still under way at the end of an open loop count as lost.
    fn give_up_all(&mut self) {
        let (clock, is_paced) = (self.clock, self.schedule.is_some());
        let in_flight = self.clients.iter().flat_map(|client| client.in_flight.iter());
        in_flight.filter(|_| is_paced).for_each(|datagram| {
            self.meter.unanswered((datagram.due, clock.at(datagram.due)));
        });
    }

    /// Makes a client's socket; in a closed loop it begins at once.
    fn open(&mut self, i: usize, now: Nanos) -> io::Result<()> {
        let nth = self.opened * self.share.threads as u64 + self.share.thread as u64;
        let socket = match self.task.target.connect(self.mode, nth) {
            Ok(socket) => socket,
            Err(Unconnected::Full) => return self.fail(i, Fault::System(Errno::AGAIN.raw_os_error())),
            Err(Unconnected::Failed(fault)) => return self.fail(i, fault),
        };
        self.opened += 1;
        if self.mode == Mode::NonBlocking {
            self.poller.add(&socket, i, Interest::READ)?;
        }
        self.clients[i].header = self.task.target.header(&socket);
        self.clients[i].socket = Some(socket);
        if self.schedule.is_none() && self.task.begin() { self.send(i, now, now) } else { Ok(()) }
    }

    /// Sends a datagram that was due at `due`, or keeps it until it can be sent.
    fn send(&mut self, i: usize, due: Nanos, now: Nanos) -> io::Result<()> {
        let client = &mut self.clients[i];
        let Some(socket) = &client.socket else { return Ok(()) };
        let header = &client.header;
        self.output.resize(header.len() + self.task.messages.size(), 0);
        self.output[..header.len()].copy_from_slice(header);
        let message = self.task.messages.message(self.share.client(i), client.in_flight.next());
        message.copy(0, &mut self.output[header.len()..]);
        let was_blocked = client.blocked.take().is_some();
        match send(socket, &self.output, NO_SIGNAL) {
            Ok(_) => client.in_flight.start(Datagram { due, sent: now }),
            Err(Errno::AGAIN | Errno::INTR) => client.blocked = Some(due),
            Err(errno) => return self.fail(i, errno.into()),
        }
        let is_blocked = client.blocked.is_some();
        if is_blocked != was_blocked && self.mode == Mode::NonBlocking {
            let interest = |blocked| if blocked { Interest::BOTH } else { Interest::READ };
            self.poller.change(socket, i, interest(was_blocked), interest(is_blocked))?;
        }
        Ok(())
    }

    /// Sends what is due, the clients in turn.
    fn send_due(&mut self, now: Nanos) -> io::Result<()> {
        for _ in 0..BATCH {
            let Some(due) = self.schedule.as_mut().and_then(|schedule| schedule.due(now)) else { break };
            let count = self.clients.len();
            let can_send = |client: &Client| {
                client.socket.is_some() && client.blocked.is_none() && client.in_flight.len() < MOST
            };
            let free = (0..count).map(|k| (self.turn + k) % count).find(|i| can_send(&self.clients[*i]));
            let Some(i) = free else { break };
            self.turn = (i + 1) % count;
            self.schedule.iter_mut().for_each(Schedule::advance);
            self.send(i, due, now)?;
        }
        Ok(())
    }

    /// Waits for answers, and takes them.
    fn turn(&mut self, now: Nanos) -> io::Result<()> {
        if self.mode == Mode::Blocking && self.clients[0].socket.is_some() {
            // the call itself waits
            return self.ready(0, true, true);
        }
        let pause = self.paused.front().map(|(until, _)| until.saturating_sub(now));
        let due = self.schedule.as_ref().filter(|_| now < self.end);
        let due = due.map(|schedule| nanos(schedule.wait(now)));
        let least = [pause, due].into_iter().flatten().min().unwrap_or(Nanos::MAX);
        let patience = TICK.min(Duration::from_nanos(least));
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
        if let Some(due) = self.clients[i].blocked.filter(|_| writable) {
            self.send(i, due, self.clock.now())?;
        }
        // in a closed loop there is one at most
        let most = if self.schedule.is_some() { BATCH } else { 1 };
        for _ in 0..most {
            if !readable || !self.receive(i)? {
                break;
            }
        }
        Ok(())
    }

    /// Takes one datagram, and tells whether there was one.
    fn receive(&mut self, i: usize) -> io::Result<bool> {
        let client = &mut self.clients[i];
        let Some(socket) = &client.socket else { return Ok(false) };
        let length = match read(socket, &mut self.input[..]) {
            Ok(length) => length,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(false),
            Err(errno) => return self.fail(i, errno.into()).map(|()| false),
        };
        let (now, answer) = (self.clock.now(), &self.input[..length]);
        let claimed = number_of(answer).unwrap_or(u64::MAX);
        let is_right = length == self.task.messages.size()
            && self.task.messages.message(self.share.client(i), claimed).matches(0, answer);
        // one that is wrong is taken to be for the oldest
        let datagram = client.in_flight.answered(if is_right { claimed } else { client.in_flight.oldest() });
        match datagram {
            _ if !is_right => self.meter.fault(Fault::WrongBytes),
            Some(Datagram { due, .. }) => {
                client.was_served = true;
                let is_paced = self.schedule.is_some();
                if is_paced || now < self.end {
                    self.meter.done(if is_paced { due } else { now }, now.saturating_sub(due), length);
                }
            }
            None => self.meter.part.late += 1,
        }
        self.go_on(i, now).map(|()| true)
    }

    /// In a closed loop the next one is sent as soon as none is under way.
    fn go_on(&mut self, i: usize, now: Nanos) -> io::Result<()> {
        let client = &self.clients[i];
        let is_free = client.in_flight.len() == 0 && client.blocked.is_none();
        if self.schedule.is_none() && is_free && now < self.end && self.task.begin() {
            return self.send(i, now, now);
        }
        Ok(())
    }

    /// Gives up, from time to time, what has had no answer for too long.
    fn sweep(&mut self, now: Nanos) -> io::Result<()> {
        if now < self.next_sweep {
            return Ok(());
        }
        let patience = nanos(self.task.plan.loss_after());
        self.next_sweep = now + patience / 5;
        for i in 0..self.clients.len() {
            let (clock, give_up) = (self.clock, now.saturating_sub(patience));
            self.clients[i].in_flight.give_up(give_up, |datagram| {
                self.meter.unanswered((datagram.due, clock.at(datagram.due)));
            });
            self.go_on(i, now)?;
        }
        Ok(())
    }

    /// A socket has failed: what it had under way is over, and it is made anew after a pause.
    fn fail(&mut self, i: usize, fault: Fault) -> io::Result<()> {
        self.meter.fault(fault);
        let client = &mut self.clients[i];
        client.in_flight.reset();
        (client.socket, client.blocked) = (None, None);
        self.paused.push_back((self.clock.now() + PAUSE, i));
        Ok(())
    }
}
