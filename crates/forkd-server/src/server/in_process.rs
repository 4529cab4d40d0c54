//! A server in the process of its caller: nothing is forked, signals stay as they are, and handlers see
//! the caller's memory.
//!
//! It is one worker, as a pool has many, with a scoreboard of its own; what differs is how it is told to
//! leave, and that a panic does not end it.

use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::access::AccessSpec;
use crate::limit::SharedLimit;
use crate::model::hooks::Ticker;
use crate::model::listener_context::ListenerContext;
use crate::model::serve::{Terms, WorkerContext};
use crate::model::service_config::ServiceConfig;
use crate::model::worker::run;
use crate::scoreboard::{Cause, Scoreboard};
use crate::sys::fd::first_readable;
use crate::sys::shutdown_fd::ShutdownFd;
use crate::sys::wake::Wake;
use crate::transport::listener::Kind;
use crate::transport::udp_filter::UdpFilter;
use crate::transport::{Handle, Listener, OpenConnections};
use crate::{Error, events};

/// For how long a client that was reported is waited for: it may have gone again.
const SOON: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub(super) struct InProcess {
    /// One for each listening socket.
    served: Vec<Served>,
    board: Scoreboard,
    udp_filter: UdpFilter,
    terms: Terms,
    handle: Handle,
    /// Those that are cut when the grace time is over, where the model does not do that itself.
    open: Option<Arc<OpenConnections>>,
}

/// A listening socket, and the slot of its worker.
#[derive(Debug)]
struct Served {
    context: ListenerContext,
    slot: u32,
}

impl InProcess {
    pub(super) fn new(
        listeners: Vec<Listener>,
        terms: Terms,
        handle: &Handle,
        access: &AccessSpec,
        open: Option<Arc<OpenConnections>>,
        service_config: impl Fn(&Listener, &'static SharedLimit) -> ServiceConfig,
    ) -> Result<Self, Error> {
        let cannot = |cause| Error::os("cannot map the scoreboard", cause);
        let board = Scoreboard::for_one_process(listeners.len(), access.counts()).map_err(cannot)?;
        let udp_filter = UdpFilter::new(listeners.iter().filter_map(Listener::udp_port));
        let mut served = Vec::new();
        for (number, listener) in listeners.into_iter().enumerate() {
            let service_config = service_config(&listener, &board.tally(number).failures);
            let slot = board.take(number, true, Instant::now());
            let slot = slot.ok_or_else(|| Error::Internal("the scoreboard is too small".into()))?;
            if listener.kind() == Kind::Stream {
                // a client that has gone again must not make us wait for the next
                listener.set_nonblocking(true).map_err(|e| Error::os("cannot set up the listener", e))?;
            }
            listener.defer_accept(service_config.service.clients_begin());
            served.push(Served {
                context: ListenerContext::new(Arc::new(listener), number, service_config, access, &board),
                slot,
            });
        }
        Ok(Self { served, board, udp_filter, terms, handle: handle.clone(), open })
    }

    /// Serves until the handle says that it is over. Each further listening socket has a thread of its own.
    pub(super) fn serve_forever(&self, ticker: Ticker) -> Result<(), Error> {
        let cannot = |cause| Error::os("cannot make ready for the end of the server", cause);
        let (ticker, none) = (Arc::new(Mutex::new(ticker)), Arc::default());
        let over = Wake::new().map_err(cannot)?;
        let outcomes = thread::scope(|scope| {
            if let Some(open) = &self.open {
                let cut = || self.cut_late(open, &over);
                thread::Builder::new().name("stop".into()).spawn_scoped(scope, cut).map_err(cannot)?;
            }
            let others = self.served.iter().skip(1);
            let others: Vec<_> =
                others.map(|served| scope.spawn(|| self.serve_or_end(served, &none))).collect();
            let first = || self.served.first().map(|served| self.serve(served, 0, &ticker));
            let first = catch_unwind(AssertUnwindSafe(first));
            // the first one has failed, or all have been told
            self.handle.shutdown();
            let others: Vec<Cause> =
                others.into_iter().map(|other| other.join().unwrap_or(Cause::Panicked)).collect();
            over.notify();
            let first = first.unwrap_or_else(|payload| resume_unwind(payload));
            Ok::<Vec<Cause>, Error>(first.into_iter().chain(others).collect())
        })?;
        match outcomes.iter().all(|&cause| cause == Cause::Retired) {
            true => Ok(()),
            false => Err(self.failed()),
        }
    }

    /// A thread's work: cuts those that are open when the time is over that a stop leaves them, unless all is over before.
    fn cut_late(&self, open: &OpenConnections, over: &Wake) {
        let (over, stop) = (over.as_fd(), self.handle.poll_fd());
        // a signal ends a wait, too
        while first_readable(&[over, stop], None).is_none() {}
        let until = Instant::now().checked_add(self.terms.grace);
        loop {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            match first_readable(&[over], left) {
                Some(_) => return,
                None if left == Some(Duration::ZERO) => return open.cut(),
                None => {}
            }
        }
    }

    /// Where one socket can't be served any more, none is: half a server would be a trap.
    fn serve_or_end(&self, served: &Served, ticker: &Arc<Mutex<Ticker>>) -> Cause {
        let cause = self.serve(served, 0, ticker);
        if cause != Cause::Retired {
            self.handle.shutdown();
        }
        cause
    }

    /// Serves one client to the end; `false` if none has come until then, or it is over.
    pub(super) fn serve_one(&self, until: Option<Instant>) -> Result<bool, Error> {
        while let Some(served) = self.next(until) {
            let ticker = Ticker { until: Some(Instant::now() + SOON), ..Ticker::default() };
            match self.serve(served, 1, &Arc::new(Mutex::new(ticker))) {
                Cause::Recycled => return Ok(true),
                Cause::Retired => {}
                _ => return Err(self.failed()),
            }
        }
        Ok(false)
    }

    /// The listener that has a client.
    fn next(&self, until: Option<Instant>) -> Option<&Served> {
        let sockets = self.served.iter().map(|served| served.context.listener.as_fd());
        let all: Vec<BorrowedFd<'_>> = [self.handle.poll_fd()].into_iter().chain(sockets).collect();
        loop {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            match first_readable(&all, left) {
                Some(0) => return None,
                Some(ready) => return self.served.get(ready - 1),
                None if left == Some(Duration::ZERO) => return None,
                None => {}
            }
        }
    }

    fn serve(&self, served: &Served, limit: u64, ticker: &Arc<Mutex<Ticker>>) -> Cause {
        let Served { context, slot: index } = served;
        let slot = self.board.slot(*index);
        // a socket of datagrams refuses no client: one that is shut would be read without end
        let refuses = !context.listener.is_inherited() && context.listener.kind() == Kind::Stream;
        let shutdown = match ShutdownFd::new(&*context.listener, refuses) {
            Ok(shutdown) => Arc::new(shutdown),
            Err(error) => {
                events::accept_failed(context.listener.endpoint(), &error, 0);
                return Cause::Failed;
            }
        };
        self.handle.shuts(&shutdown);
        let terms = Terms { limit, waits: self.terms.waits || limit > 0, ..self.terms };
        let work = WorkerContext {
            context,
            udp_filter: &self.udp_filter,
            board: &self.board,
            slot,
            index: *index,
            ticker: Some(ticker),
        };
        loop {
            match catch_unwind(AssertUnwindSafe(|| run(&work, &shutdown, &terms))) {
                Ok(cause) => return cause,
                // it was the application's own work that panicked, and that is not ours to judge
                Err(payload) if ticker.is_poisoned() => resume_unwind(payload),
                // it has cost the client its connection, and no other anything
                Err(payload) => {
                    work.panicked(slot.peer(), &*payload);
                    if limit == 1 {
                        return Cause::Recycled;
                    }
                }
            }
        }
    }

    fn failed(&self) -> Error {
        Error::Internal(format!("the model {} cannot go on; the lines above say why", self.terms.model))
    }
}
