//! What the threads of a phase share, and which of the clients each has.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};

use super::clock::{Nanos, nanos};
use super::live::Live;
use super::message::Messages;
use super::pacer::{Pacer, Schedule};
use super::plan::{Phase, Plan};
use super::target::Target;

/// What all threads of a phase share.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) target: Target,
    pub(super) plan: Plan,
    pub(super) phase: Phase,
    pub(super) messages: Messages,
    pub(super) live: Arc<Live>,
    /// How many clients have had the first echo.
    pub(super) settled: AtomicUsize,
    /// How many operations have begun, where the plan says how many shall.
    pub(super) begun: AtomicU64,
}

impl Task {
    /// Whether all are served that the server is known to have places for.
    pub(super) fn is_full(&self) -> bool {
        self.plan.places.is_some_and(|places| self.settled.load(Ordering::Relaxed) >= places)
    }

    /// When the time is up, after the phase has begun.
    pub(super) fn end(&self) -> Nanos {
        match self.operations() {
            Some(_) => Nanos::MAX,
            None => nanos(self.plan.warm_up.saturating_add(self.plan.duration)),
        }
    }

    /// How many operations there shall be. An open loop has as many as come due.
    pub(super) fn operations(&self) -> Option<u64> {
        self.plan.operations.filter(|_| self.plan.rate.is_none())
    }

    /// Whether one more operation may begin, which it then has.
    pub(super) fn begin(&self) -> bool {
        self.operations().is_none_or(|most| self.begun.fetch_add(1, Ordering::Relaxed) < most)
    }

    /// Whether all operations have begun that there shall be.
    pub(super) fn has_begun_all(&self) -> bool {
        self.operations().is_some_and(|most| self.begun.load(Ordering::Relaxed) >= most)
    }

    /// When this thread's operations are due, in an open loop.
    pub(super) fn schedule(&self, share: Share) -> Option<Schedule> {
        let rate = self.plan.rate.filter(|_| self.phase.can_be_paced())?;
        let pacer = Pacer::new(rate, share.thread, share.threads);
        Some(Schedule::new(pacer, nanos(self.plan.warm_up), self.end()))
    }
}

/// Which of the threads this is, and which of the clients are its.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share {
    pub(super) thread: usize,
    pub(super) threads: usize,
    pub(super) clients: usize,
}

impl Share {
    /// The number, among all clients, of this thread's `index`th.
    pub(super) fn client(self, index: usize) -> usize {
        self.thread + index * self.threads
    }
}

/// Runs `work` for each share of the clients, on as many threads as the plan says: this one, if it is one.
pub(super) fn on_threads<T: Send>(
    task: &Arc<Task>,
    work: impl Fn(&Arc<Task>, Share, &Barrier) -> std::io::Result<T> + Sync,
) -> std::io::Result<Vec<T>> {
    let threads = task.plan.threads.clamp(1, task.plan.clients);
    let shares = (0..threads).map(|thread| {
        let clients = (task.plan.clients + threads - 1 - thread) / threads;
        Share { thread, threads, clients }
    });
    let (work, barrier) = (&work, &Barrier::new(threads));
    if threads == 1 {
        return shares.map(|share| work(task, share, barrier)).collect();
    }
    std::thread::scope(|scope| {
        let spawn = |share| scope.spawn(move || work(task, share, barrier));
        let running: Vec<_> = shares.map(spawn).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|_| Err(std::io::Error::other("a client thread panicked")))
        };
        running.into_iter().map(join).collect()
    })
}
