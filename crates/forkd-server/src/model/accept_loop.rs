//! How a worker takes clients, as the rules of [`admission`](crate::admission) say.
//!
//! [`run`] is the loop of a worker whose main function only accepts: it blocks in accept(2) or recvmsg(2) on the
//! [`ShutdownFd`], whose shutdown ends the call, or parks its coroutine. What differs between models is a [`Driver`]. A
//! worker that polls for its connections, too, takes each [step](Acceptor::step) by itself.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::listener_context::Admitted;
use super::serve::{WorkerContext, batch_for};
use crate::admission::{Admission, Failure, Next, Queued, REST, Room, Round};
use crate::events;
use crate::scoreboard::{Cause, Tally};
use crate::service::Service;
use crate::sys::datagram::{Batch, Patience};
use crate::sys::fd::{first_readable, pause};
use crate::sys::shutdown_fd::ShutdownFd;
use crate::transport::Endpoint;
use crate::transport::listener::Kind;

/// How many datagrams are taken at once, where no answer is waited for.
pub(super) const BATCH: usize = 8;

/// What takes a worker's clients.
#[derive(Debug)]
pub(crate) struct Acceptor<'a> {
    work: &'a WorkerContext<'a>,
    admission: Admission<&'static Tally>,
    round: Round,
    /// It serves those that were queued at a stop.
    drains: bool,
}

impl Queued for &'static Tally {
    fn take(&mut self) -> bool {
        self.take_queued()
    }

    fn put_back(&mut self) {
        self.put_back_queued();
    }
}

impl<'a> Acceptor<'a> {
    pub(crate) fn new(work: &'a WorkerContext<'a>) -> Self {
        Self { work, admission: Admission::new(false), round: Round::ENDLESS, drains: false }
    }

    /// Begins a round.
    pub(crate) fn begin(&mut self, round: Round) {
        self.round = round;
    }

    /// Takes a client by `take`, if it may; tells it whether one that was queued at a stop. It may give none, as one
    /// that is not served, and then the next step comes at once.
    ///
    /// # Errors
    ///
    /// What comes before the next step, if that must not come at once.
    pub(crate) fn step<T>(
        &mut self,
        room: Room,
        take: impl FnOnce(bool) -> rustix::io::Result<Option<T>>,
    ) -> Result<Option<T>, Next> {
        match self.admission.next(&self.round, room) {
            Next::Accept => {}
            next => return Err(next),
        }
        let (client, news) = match take(self.drains) {
            Ok(Some(client)) => (Some(client), self.admission.accepted(&mut self.round)),
            Ok(None) => {
                self.admission.refused(&mut self.round);
                (None, None)
            }
            Err(error) if Failure::of(error) == Failure::Shut && !self.drains => {
                self.stop();
                (None, None)
            }
            Err(error) => (None, self.admission.failed(&mut self.round, error, Instant::now())),
        };
        events::accepting(self.work.listener().endpoint(), news);
        Ok(client)
    }

    /// It is told to stop: from here on it takes the clients that are queued, or none.
    pub(crate) fn stop(&mut self) {
        if self.drains {
            return;
        }
        self.drains = self.work.is_draining();
        if self.drains {
            self.admission.drain(self.work.tally());
        } else {
            self.admission.close();
        }
    }

    /// Whether it has been told to serve those that are queued.
    pub(crate) fn drains(&self) -> bool {
        self.drains
    }

    /// Whether the round is over before the queue was found empty.
    pub(crate) fn has_more(&self) -> bool {
        self.round.is_spent()
    }

    /// It may take clients again.
    pub(crate) fn rested(&mut self) {
        self.admission.rested();
    }

    /// As many clients are served as are allowed: logs that now and then.
    pub(crate) fn report_full(&mut self, limit: u32, say: fn(&Endpoint, u32, u64)) {
        if let Some(suppressed) = self.admission.found_full(Instant::now()) {
            say(self.work.listener().endpoint(), limit, suppressed);
        }
    }
}

/// What differs between models whose workers run the loop.
pub(crate) trait Driver {
    /// The listener does not block: [`enter`](Self::enter) waits, and hears of the stop.
    const POLLS: bool = false;

    /// Serves a connection.
    fn connection(&mut self, client: Admitted);

    /// Answers the first `count` datagrams of a batch.
    fn datagrams(&mut self, batch: &mut Batch, count: usize);

    /// Whether to take another client, after this many more, if no stop has begun.
    fn goes_on(&mut self, served: u64) -> bool;

    /// How many datagrams are taken at once: one by one for a handler, which may be slow while other workers are idle,
    /// or die of one of them.
    fn at_once(&self, service: &Service) -> usize {
        if service.echoes() { BATCH } else { 1 }
    }

    /// Waits for a client, where [`enter`](Self::enter) does not.
    fn wait_for_client(&mut self) {}

    /// Whether it can serve one more.
    fn room(&mut self) -> Room {
        Room::Free
    }

    /// Leaves a client to other workers for as long as it may; `false` if it is told to stop meanwhile.
    fn leave_to_others(&mut self) -> bool {
        true
    }

    /// Waits until one of its clients has left; `false` if it is told to stop meanwhile, unless it is already.
    fn wait_for_room(&mut self, _: &mut Acceptor<'_>) -> bool {
        true
    }

    /// Takes a client by `call`.
    fn enter<T>(
        &mut self,
        _queued: bool,
        mut call: impl FnMut() -> rustix::io::Result<T>,
    ) -> rustix::io::Result<T> {
        call()
    }

    /// Takes no client for so long; may end sooner when one of its clients has left.
    fn pause(&mut self, length: Duration) {
        pause(length);
    }
}

/// Serves until the shutdown, and then those that are queued at a stop; or until the driver has enough.
pub(crate) fn run<D: Driver>(work: &WorkerContext<'_>, shutdown: &ShutdownFd, driver: &mut D) -> Cause {
    let mut acceptor = Acceptor::new(work);
    let mut source = Source::new(work, shutdown, driver);
    loop {
        match acceptor.drains {
            true => {}
            false if D::POLLS => driver.wait_for_client(),
            false if is_awaited(work, shutdown) => {}
            false => acceptor.stop(),
        }
        let room = work.context.paced(driver.room());
        match acceptor.step(room, |queued| driver.enter(queued, || source.take::<D>(queued))) {
            Ok(Some(client)) => {
                let served = match client {
                    Client::Connection(client) => {
                        driver.connection(client);
                        1
                    }
                    Client::Datagrams(count) => {
                        source.batch.iter_mut().for_each(|batch| driver.datagrams(batch, count));
                        count as u64
                    }
                };
                if !acceptor.drains && !driver.goes_on(served) {
                    return Cause::Recycled;
                }
            }
            Ok(None) => {}
            Err(Next::Wait) => {
                // The daemon has begun to stop, and its signal is on the way; or the socket is shared with others, which
                // have it not block.
                if !D::POLLS && work.ticker.is_none() {
                    _ = first_readable(&[work.listener().as_fd(), shutdown.poll_fd()], None);
                }
                acceptor.begin(Round::ENDLESS);
            }
            Err(Next::WaitForRoom) => {
                if !driver.wait_for_room(&mut acceptor) {
                    acceptor.stop();
                }
            }
            Err(Next::LeaveToOthers) => {
                if !driver.leave_to_others() {
                    acceptor.stop();
                }
            }
            Err(Next::Rest(_)) => {
                driver.pause(REST);
                acceptor.rested();
            }
            Err(Next::Pause(length)) => {
                // no call is made that would tell of the stop
                driver.pause(length.min(REST));
                if shutdown.is_shut() {
                    acceptor.stop();
                }
            }
            Err(Next::Accept | Next::Reject | Next::Done) => break,
        }
    }
    if acceptor.drains {
        // clients that come now shall go elsewhere, even while others are served
        work.listener().refuse();
    }
    Cause::Retired
}

/// Where no signal interrupts accept(2), it is called only when a client may be queued, or the shutdown has begun;
/// `false` when it is not to be called again.
fn is_awaited(work: &WorkerContext<'_>, shutdown: &ShutdownFd) -> bool {
    if work.ticker.is_none() {
        return true;
    }
    while let Some(limit) = work.tick() {
        if first_readable(&[shutdown.as_fd(), shutdown.poll_fd()], Some(limit)).is_some() {
            return true;
        }
    }
    false
}

/// What was taken.
enum Client {
    Connection(Admitted),
    /// This many are in the batch.
    Datagrams(usize),
}

/// Where clients are taken from.
struct Source<'a> {
    work: &'a WorkerContext<'a>,
    shutdown: &'a ShutdownFd,
    /// For datagrams.
    batch: Option<Batch>,
    number: u32,
    /// The last batch had more than one.
    deep: bool,
}

impl<'a> Source<'a> {
    fn new(work: &'a WorkerContext<'a>, shutdown: &'a ShutdownFd, driver: &impl Driver) -> Self {
        let datagrams = work.listener().kind() == Kind::Datagram;
        let batch = datagrams.then(|| batch_for(work.listener(), driver.at_once(work.service())));
        Self { work, shutdown, batch, number: 0, deep: false }
    }

    fn take<D: Driver>(&mut self, queued: bool) -> rustix::io::Result<Option<Client>> {
        let &mut Self { work, shutdown, .. } = self;
        if self.batch.is_some() {
            let received = self.receive::<D>(queued).map_err(|error| errno(&error));
            return received.map(|count| Some(Client::Datagrams(count)));
        }
        let client = match queued {
            true => work.listener().accept_queued(!D::POLLS)?,
            false if D::POLLS => work.listener().accept_nonblocking(shutdown)?,
            false => work.listener().accept(shutdown)?,
        };
        Ok(work.context.admit_connection(work.board, work.slot, client).map(Client::Connection))
    }

    /// A lone datagram is received by itself, which is quicker; every 16th time a whole batch is asked for, and as long
    /// as batches come back with more than one, that goes on.
    fn receive<D: Driver>(&mut self, queued: bool) -> io::Result<usize> {
        let Some(batch) = &mut self.batch else { return Ok(0) };
        if queued {
            return batch.receive_one(self.work.listener(), Patience::DontWait).map(|()| 1);
        }
        let waits = !D::POLLS && self.work.ticker.is_none();
        let patience = if waits { Patience::Wait } else { Patience::DontWait };
        self.number = self.number.wrapping_add(1);
        let takes_all = (waits || D::POLLS) && (self.deep || self.number.is_multiple_of(16));
        let count = match takes_all {
            true => batch.receive(self.shutdown, patience)?,
            false => batch.receive_one(self.shutdown, patience).map(|()| 1)?,
        };
        self.deep = count > 1;
        Ok(count)
    }
}

/// The error of a call that fails with nothing else.
pub(crate) fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
