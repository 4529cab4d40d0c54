//! A fixed pool of threads, each of which accepts for itself and serves one client after the other.
//!
//! All of them block in accept(2). The main thread waits until the shutdown and then pokes them, so that the
//! call begins anew, and fails.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use super::super::accept_loop::{self, Driver};
use super::super::listener_context::Admitted;
use super::{Shared, Terms, connection, datagrams, waits_until};
use crate::events;
use crate::scoreboard::Cause;
use crate::sys::datagram::Batch;
use crate::sys::fd::first_readable;
use crate::sys::shutdown_fd::ShutdownFd;
use crate::sys::thread::{Thread, spawn};

/// What the threads have in common.
struct ThreadPool {
    shared: Shared,
    shutdown: Arc<ShutdownFd>,
    terms: Terms,
    served: AtomicU64,
    /// They leave because they have served as many as they should.
    is_spent: AtomicBool,
    /// How many have not ended.
    running: Mutex<u32>,
    ended: Condvar,
}

pub(super) fn run(shared: Shared, shutdown: &Arc<ShutdownFd>, terms: &Terms, count: u32) -> Cause {
    let pool = Arc::new(ThreadPool {
        shared,
        shutdown: Arc::clone(shutdown),
        terms: *terms,
        served: AtomicU64::new(0),
        is_spent: AtomicBool::new(false),
        running: Mutex::new(count),
        ended: Condvar::new(),
    });
    let work = pool.shared.work();
    let started = start(&pool, count).and_then(|threads| {
        work.slot.threads.store(count + 1, Ordering::Relaxed);
        if work.comes_up(count) {
            return Ok(threads);
        }
        shutdown.shut();
        Err(threads)
    });
    if started.is_ok() {
        while first_readable(&[shutdown.poll_fd()], None).is_none() {}
        work.leaves();
        work.tell_of_stop();
    }
    let (threads, cause) = match started {
        Ok(threads) if pool.is_spent.load(Ordering::Relaxed) => (threads, Cause::Recycled),
        Ok(threads) => (threads, Cause::Retired),
        Err(threads) => (threads, Cause::Failed),
    };
    // those that wait for the shutdown, too, need none
    for thread in threads.iter().filter(|_| work.ticker.is_none()) {
        // it fails for no thread that is not joined yet
        let _ = thread.poke();
    }
    if terms.waits && pool.all_end(waits_until(&work, terms)) {
        threads.into_iter().for_each(Thread::join);
        work.slot.threads.store(1, Ordering::Relaxed);
    }
    if cause == Cause::Recycled && work.is_draining() {
        // a stop began before the master had seen that this worker leaves, so it is to serve the queue
        return accept_loop::run(&work, shutdown, &mut &*pool);
    }
    cause
}

/// Starts the threads, or shuts down those that could be started.
fn start(pool: &Arc<ThreadPool>, count: u32) -> Result<Vec<Thread>, Vec<Thread>> {
    let mut threads = Vec::new();
    for _ in 0..count {
        let one = Arc::clone(pool);
        match spawn(c"pool thread", move || one.work()) {
            Ok(thread) => threads.push(thread),
            Err((_, error)) => {
                events::no_threads(pool.shared.work().listener().endpoint(), &error);
                pool.shutdown.shut();
                return Err(threads);
            }
        }
    }
    Ok(threads)
}

impl ThreadPool {
    /// What each thread does.
    fn work(&self) {
        if accept_loop::run(&self.shared.work(), &self.shutdown, &mut &*self) == Cause::Recycled {
            // for the others
            self.shutdown.shut();
        }
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.ended.notify_one();
    }

    /// Whether all threads end, before then if that is limited.
    fn all_end(&self, until: Option<Instant>) -> bool {
        let Some(until) = until else { return true };
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let left = until.saturating_duration_since(Instant::now());
        let waited = self.ended.wait_timeout_while(running, left, |running| *running > 0);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

impl Driver for &ThreadPool {
    fn connection(&mut self, Admitted { socket, peer, ticket }: Admitted) {
        let work = self.shared.work();
        let (counted, early) = (work.count(ticket), work.early());
        self.shared.begin();
        work.slot.set_peer(peer);
        connection(&work, socket, peer, early, || {
            drop(counted);
            self.shared.end();
        });
    }

    fn datagrams(&mut self, batch: &mut Batch, count: usize) {
        let work = self.shared.work();
        self.shared.begin();
        datagrams(&work, batch, |batch| work.datagrams(batch, count), || self.shared.end());
    }

    fn goes_on(&mut self, served: u64) -> bool {
        let all = self.served.fetch_add(served, Ordering::Relaxed) + served;
        // the worker leaves once, whichever thread finds that it should
        if !self.is_spent.load(Ordering::Relaxed) && self.shared.work().is_spent(&self.terms, all) {
            self.is_spent.store(true, Ordering::Relaxed);
        }
        !self.is_spent.load(Ordering::Relaxed)
    }
}
