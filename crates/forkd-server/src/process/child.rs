//! A child of the fork model: it serves one connection, or one datagram, and ends. The master has accepted the connection;
//! a spare child accepts it by itself.
//!
//! It holds the connection (or, for a datagram, the listening socket), the scoreboard, and the wake descriptor by which it
//! tells the master of its end; it closes all else that is the master's. It is born with most signals blocked: a Ctrl-C
//! or a hang-up of the terminal reaches the whole process group, and only the master acts on it. SIGTERM and SIGQUIT end
//! it from its first instruction on, by handlers that it inherits (see `sys::signal`). It ends when the handler returns
//! or panics, or a while after its master; a spare one, when it is called off.

use std::mem::ManuallyDrop;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use rustix::io::Errno;
use rustix::process::Pid;

use super::context::Context;
use super::descriptors::Closing;
use super::post_fork::expect_children;
use crate::access::sources::Ticket;
use crate::admission::{Admission, Failure, Next, REST, Room, Round};
use crate::events;
use crate::model::listener_context::{Admitted, ListenerContext};
use crate::model::serve::WorkerContext;
use crate::sandbox::Confinement;
use crate::scoreboard::{Cause, Scoreboard, State};
use crate::sys::arena;
use crate::sys::call_off::Wait;
use crate::sys::datagram::{Batch, Datagram};
use crate::sys::fd::{first_readable, pause};
use crate::sys::fork::ChildTask;
use crate::sys::oom::Expendable;
use crate::sys::orphans::adopt;
use crate::sys::sandbox::show_memory;
use crate::sys::signal::{OnParentDeath, at_death_of, begin_to_finish};
use crate::transport::Peer;
use crate::transport::udp_filter::UdpFilter;

/// What the children of a listener work with. The master writes to it only what has changed: its page is one that a child
/// has, too, so that after a fork each write costs a copy.
#[derive(Debug)]
pub(super) struct ChildWork {
    context: ListenerContext,
    board: &'static Scoreboard,
    parent: Pid,
    closing: Closing,
    confinement: Arc<Confinement>,
    udp_filter: UdpFilter,
    /// For datagrams: the one in hand.
    pub(super) batch: Option<Batch>,
    /// Makes a child the OOM killer's choice rather than the master.
    expendable: Option<Expendable>,
    /// The master can do that later, if the child's files are those of its user.
    is_hidden: bool,
    /// Where spare children wait for their client.
    pub(super) waiting: Option<Wait>,
}

/// What is different for each child.
#[derive(Debug, Clone, Copy)]
pub(super) struct Order {
    /// Its number on the scoreboard.
    pub(super) index: u32,
    /// The master makes it expendable, if it lives on.
    pub(super) raises_later: bool,
    pub(super) peer: Peer,
}

impl Order {
    #[inline(always)]
    pub(super) fn pack(self) -> [u64; 4] {
        let [first, second, third] = self.peer.pack();
        [u64::from(self.index) << 1 | u64::from(self.raises_later), first, second, third]
    }

    #[inline(always)]
    fn unpack([head, peer @ ..]: [u64; 4]) -> Self {
        Self { index: (head >> 1) as u32, raises_later: head & 1 == 1, peer: Peer::unpack(peer) }
    }
}

impl ChildWork {
    pub(super) fn new(
        context: ListenerContext,
        closing: Closing,
        confinement: Arc<Confinement>,
        batch: Option<Batch>,
        waiting: Option<Wait>,
        cx: &Context,
    ) -> Self {
        let (board, parent, expendable) = (cx.board, cx.pid, cx.oom.score());
        let (udp_filter, is_hidden) = (cx.udp_filter.clone(), cx.given_up.hides_children);
        Self {
            context,
            board,
            parent,
            closing,
            confinement,
            udp_filter,
            batch,
            expendable,
            is_hidden,
            waiting,
        }
    }

    /// Takes over what has changed since the last child.
    pub(super) fn update(&mut self, cx: &Context) {
        self.closing.update(&cx.descriptors);
        if self.expendable != cx.oom.score() {
            self.expendable = cx.oom.score();
        }
        if self.is_hidden != cx.given_up.hides_children {
            self.is_hidden = cx.given_up.hides_children;
        }
        if self.batch.is_some() && self.udp_filter != cx.udp_filter {
            self.udp_filter = cx.udp_filter.clone();
        }
    }
}

/// Spare children.
impl ChildWork {
    /// No more of them are forked, and the others have not what those wait with.
    pub(super) fn end_waiting(&mut self, cx: &Context) {
        if let Some(wait) = self.waiting.take() {
            self.closing.forget(&wait.descriptors());
            // closed here and now
            wait.descriptors().into_iter().for_each(|fd| cx.descriptors.remove(fd));
        }
    }
}

impl ChildTask for ChildWork {
    /// Serves the connection, or the datagram in the batch, or else the client that it waits for.
    #[inline(always)]
    fn live(&mut self, connection: Option<OwnedFd>, numbers: [u64; 4]) -> u8 {
        let Order { index, raises_later, peer } = Order::unpack(numbers);
        if let Some(expendable) = self.expendable.filter(|_| !raises_later) {
            expendable.become_so();
        }
        if self.is_hidden && raises_later {
            show_memory();
        }
        self.board.keep_out();
        if self.confinement.confine_child().is_err() {
            return self.cannot_be_confined(index);
        }
        // The signal pipe is among them: a signal to a child must not wake the master.
        self.closing.set().close_in_child();
        at_death_of(self.parent, OnParentDeath::FinishSoon);
        let service = &self.context.service_config.service;
        if !service.echoes() {
            // echo allocates nothing, and has no page for it
            arena::open();
        }
        expect_children(service);
        if service.hands_over() {
            adopt();
        }
        let announce = |cause| self.board.announce(index, cause);
        let work = WorkerContext {
            context: &self.context,
            udp_filter: &self.udp_filter,
            board: self.board,
            slot: self.board.slot(index),
            index,
            ticker: None,
        };
        let (batch, waiting) = (&mut self.batch, &self.waiting);
        let served = catch_unwind(AssertUnwindSafe(|| match waiting {
            Some(wait) if connection.is_none() => match take_client(&work, wait) {
                Some((socket, peer)) => serve(&work, Some(socket), peer, batch, announce),
                None => {
                    announce(Cause::Retired);
                    Cause::Retired
                }
            },
            _ => {
                // the master has accepted for it: at a stop, or for an application
                waiting.iter().for_each(Wait::close_in_child);
                serve(&work, connection, peer, batch, announce)
            }
        }));
        let cause = served.unwrap_or_else(|payload| {
            work.context.service_config.hooks.panicked(work.slot.peer(), &*payload);
            announce(Cause::Panicked);
            Cause::Panicked
        });
        cause.status()
    }
}

impl ChildWork {
    /// A child that could do what its master can must not meet a client.
    #[cold]
    fn cannot_be_confined(&self, index: u32) -> u8 {
        self.board.announce(index, Cause::Failed);
        Cause::Failed.status()
    }
}

/// Waits for the client of a spare child; `None` if it is called off.
// what other children run stays together without this: a page fault less for each
#[inline(never)]
fn take_client(work: &WorkerContext<'_>, wait: &Wait) -> Option<(OwnedFd, Peer)> {
    let (mut admission, mut round) = (Admission::<u32>::new(false), Round::ENDLESS);
    work.slot.set_state(State::Idle);
    let (socket, peer) = loop {
        match admission.next(&round, work.context.paced(Room::Free)) {
            Next::Accept => {}
            Next::Pause(length) => {
                // it may be called off meanwhile
                let ((), is_called_off) = wait.take(|_| pause(length.min(REST)));
                if is_called_off {
                    return None;
                }
                continue;
            }
            Next::Rest(_) => {
                pause(REST);
                admission.rested();
                continue;
            }
            Next::Wait => {
                round = Round::ENDLESS;
                continue;
            }
            _ => return None,
        }
        let (taken, is_called_off) = wait.take(|listener| accept_waiting(work, listener));
        let news = match taken {
            Err(error) if is_called_off && Failure::of(error) == Failure::Shut => return None,
            Err(error) => admission.failed(&mut round, error, Instant::now()),
            Ok(client) => {
                if is_called_off {
                    begin_to_finish();
                }
                match work.context.admit_connection(work.board, work.slot, client) {
                    Some(Admitted { socket, peer, ticket }) => {
                        Ticket::put(ticket, &work.slot.ticket);
                        events::accepting(work.listener().endpoint(), admission.accepted(&mut round));
                        break (socket, peer);
                    }
                    None => {
                        admission.refused(&mut round);
                        None
                    }
                }
            }
        };
        events::accepting(work.listener().endpoint(), news);
    };
    work.slot.set_peer(peer);
    if work.slot.begin_to_serve() {
        work.board.wake().notify();
    }
    wait.close_in_child();
    events::accepted(work.listener().endpoint(), peer, work.slot.pid.load(Ordering::Relaxed));
    Some((socket, peer))
}

/// Waits also where the socket is shared with others, which have it not block.
#[inline(always)]
fn accept_waiting(work: &WorkerContext<'_>, listener: BorrowedFd<'_>) -> rustix::io::Result<(OwnedFd, Peer)> {
    loop {
        match work.listener().accept(listener) {
            Err(Errno::AGAIN) => _ = first_readable(&[listener], None),
            accepted => return accepted,
        }
    }
}

/// Serves, and announces how it ended before the client can see the end: one that comes again at once finds this child's
/// place free.
fn serve(
    work: &WorkerContext<'_>,
    connection: Option<OwnedFd>,
    peer: Peer,
    batch: &mut Option<Batch>,
    announce: impl FnOnce(Cause),
) -> Cause {
    if let Some(now) = work.board.clock_us() {
        work.slot.set_began(now);
    }
    work.slot.set_state(State::Serving);
    match (connection, batch) {
        (Some(socket), _) => {
            // not dropped: the kernel closes it, as this process ends
            let mut connection = ManuallyDrop::new(work.connection(socket, peer, work.early()));
            let cause = work.serve(&mut connection);
            work.counts_no_more();
            announce(cause);
            cause
        }
        (None, Some(batch)) => {
            // the master has asked the application
            let counted =
                |datagram: &Datagram<'_>| Ok((work.udp_filter.admit(datagram)?, CountedInSlot(work)));
            work.datagrams_if(batch, 1, counted);
            announce(Cause::Done);
            Cause::Done
        }
        (None, None) => Cause::Done,
    }
}

/// The datagram of a child counts as one of its source's until this is dropped.
struct CountedInSlot<'a>(&'a WorkerContext<'a>);

impl Drop for CountedInSlot<'_> {
    fn drop(&mut self) {
        self.0.counts_no_more();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_comes_out_as_it_went_in() {
        for (index, raises_later) in [(0, false), (131_071, true), (u32::MAX, true)] {
            let peer = Peer::Ip("[fe80::1%7]:9".parse().expect("an address"));
            let order = Order::unpack(Order { index, raises_later, peer }.pack());
            assert_eq!((order.index, order.raises_later, order.peer), (index, raises_later, peer));
        }
    }
}
