//! A socket that does not block, and the coroutines that wait for it.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::scheduler::{Scheduler, scheduler};
use crate::slab::Key;
use crate::transport::{Attempt, Awaited, Blocking, Ready, Rouser, Wait, block, limit_unsent_if_slow};

/// What is known of one socket: how it is registered.
///
/// It is registered when it is first waited for, and where there is no scheduler it is waited for by poll(2).
#[derive(Debug, Default)]
pub(crate) struct Waiter {
    registration: RefCell<Option<Registration>>,
    /// A connection's, and the kernel may still hold as much unsent for it as it likes. The options of other sockets,
    /// such as a listener that was inherited, are their owner's.
    is_unlimited: Cell<bool>,
}

#[derive(Debug)]
struct Registration {
    scheduler: Rc<Scheduler>,
    source: Key,
    /// It is given back, and not forgotten.
    is_lent: bool,
}

impl Drop for Registration {
    fn drop(&mut self) {
        if !self.is_lent {
            self.scheduler.forget(self.source);
        }
    }
}

impl Waiter {
    /// For a connection: what carries bulk keeps little unsent.
    pub(crate) fn of_connection() -> Self {
        Self { is_unlimited: Cell::new(true), ..Self::default() }
    }

    fn wait(&self, socket: BorrowedFd<'_>, ready: Ready, until: Option<Instant>) -> io::Result<bool> {
        let Some(scheduler) = scheduler() else { return Ok(block(socket, ready, until)) };
        let source = self.register(&scheduler, socket)?;
        scheduler.wait(source, ready, until)
    }

    /// Waits until the socket may be ready, at most for `limit`; tells whether it may be.
    pub(crate) fn until(
        &self,
        socket: BorrowedFd<'_>,
        ready: Ready,
        limit: Option<Duration>,
    ) -> io::Result<bool> {
        self.wait(socket, ready, limit.and_then(|limit| Instant::now().checked_add(limit)))
    }

    /// Lets others have their turn, if it is time, and waits until the socket may be ready: until a call has found it
    /// [exhausted](Self::exhausted), it may be.
    pub(crate) fn ready(&self, socket: BorrowedFd<'_>, ready: Ready) -> io::Result<()> {
        if let Some(scheduler) = scheduler().filter(|scheduler| scheduler.turn().is_over()) {
            scheduler.yield_now();
        }
        self.wait(socket, ready, None).map(drop)
    }

    /// Counts what a call has moved that was made by itself.
    pub(crate) fn moved(&self, bytes: usize) {
        if let Some(Registration { scheduler, .. }) = &*self.registration.borrow() {
            scheduler.count(bytes);
        }
    }

    fn register(&self, scheduler: &Rc<Scheduler>, socket: BorrowedFd<'_>) -> io::Result<Key> {
        let registration = &mut *self.registration.borrow_mut();
        match registration {
            Some(known) if Rc::ptr_eq(&known.scheduler, scheduler) => Ok(known.source),
            _ => {
                let source = scheduler.add(socket)?;
                *registration =
                    Some(Registration { scheduler: Rc::clone(scheduler), source, is_lent: false });
                Ok(source)
            }
        }
    }

    /// Has those that wait look again, as if the socket had become ready.
    pub(crate) fn rouse(&self) {
        if let Some(Registration { scheduler, source, .. }) = &*self.registration.borrow() {
            scheduler.rouse(*source);
        }
    }

    /// What the last call has found of the socket.
    pub(crate) fn exhausted(&self, ready: Ready, would_block: bool) {
        if let Some(Registration { scheduler, source, .. }) = &*self.registration.borrow() {
            scheduler.exhausted(*source, ready, would_block);
        }
    }
}

/// The scheduler of a connection that is served by a coroutine.
fn needed() -> io::Result<Rc<Scheduler>> {
    scheduler().ok_or_else(|| io::Error::other("no coroutines run in this thread"))
}

impl Attempt for Waiter {
    fn attempt(
        &self,
        socket: BorrowedFd<'_>,
        ready: Ready,
        wanted: usize,
        limit: Option<Duration>,
        call: &mut dyn FnMut() -> rustix::io::Result<usize>,
    ) -> io::Result<Option<usize>> {
        let scheduler = scheduler();
        if let Some(scheduler) = scheduler.as_ref().filter(|scheduler| scheduler.turn().is_over()) {
            if self.is_unlimited.get() {
                self.is_unlimited.set(!limit_unsent_if_slow(socket));
            }
            scheduler.yield_now();
        }
        let mut until = None;
        // at first it is worth a try; later it is known whether it is
        let mut waits = self.registration.borrow().is_some();
        loop {
            if waits {
                let until =
                    *until.get_or_insert_with(|| limit.and_then(|limit| Instant::now().checked_add(limit)));
                if !self.wait(socket, ready, until)? {
                    return Ok(None);
                }
            }
            match call() {
                Err(Errno::AGAIN) => {
                    self.exhausted(ready, true);
                    waits = true;
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok(done) => {
                    if let Some(scheduler) = &scheduler {
                        scheduler.count(done);
                    }
                    if done < wanted {
                        self.exhausted(ready, false);
                    }
                    return Ok(Some(done));
                }
            }
        }
    }
}

impl Wait for Waiter {
    fn rouser(&self, socket: BorrowedFd<'_>) -> io::Result<Rouser> {
        let scheduler = needed()?;
        Ok(Rouser { wakeups: scheduler.wakeups()?, key: self.register(&scheduler, socket)? })
    }

    fn any(&self, socket: BorrowedFd<'_>, awaited: Awaited) -> io::Result<bool> {
        let scheduler = needed()?;
        if scheduler.turn().is_over() {
            scheduler.yield_now();
        }
        let source = self.register(&scheduler, socket)?;
        scheduler.wait_any(source, awaited)
    }

    fn has_sent(&self, bytes: usize, of: usize) {
        self.moved(bytes);
        if bytes < of {
            self.exhausted(Ready::Write, true);
        }
    }

    fn another(&self) -> Box<dyn Wait> {
        Box::new(Self::default())
    }

    fn anywhere(&self) -> &'static (dyn Attempt + Send + Sync) {
        &Anywhere
    }
}

/// Waits for a socket that goes from thread to thread: the scheduler of the thread that waits looks after it as long as that
/// lasts, which costs two system calls.
#[derive(Debug)]
struct Anywhere;

impl Attempt for Anywhere {
    fn attempt(
        &self,
        socket: BorrowedFd<'_>,
        ready: Ready,
        wanted: usize,
        limit: Option<Duration>,
        call: &mut dyn FnMut() -> rustix::io::Result<usize>,
    ) -> io::Result<Option<usize>> {
        let Some(scheduler) = scheduler() else {
            return Blocking.attempt(socket, ready, wanted, limit, call);
        };
        if scheduler.turn().is_over() {
            scheduler.yield_now();
        }
        match call() {
            Err(Errno::AGAIN | Errno::INTR) => {}
            done => {
                scheduler.count(*done.as_ref().unwrap_or(&0));
                return Ok(Some(done?));
            }
        }
        let source = scheduler.lend(socket)?;
        let registration = Registration { scheduler: Rc::clone(&scheduler), source, is_lent: true };
        let waiter = Waiter { registration: RefCell::new(Some(registration)), ..Waiter::default() };
        let attempted = waiter.attempt(socket, ready, wanted, limit, call);
        scheduler.give_back(socket);
        attempted
    }
}
