//! Looks at a server from time to time, while its clients do what they do.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::cgroup::Group;
use super::record::Moment;
use super::tree::{Count, Tree};
use forkd_load::{Live, Phase};

/// How often it looks, at most.
const INTERVAL: Duration = Duration::from_millis(50);

/// What looking may cost: a part of the time as small as this.
const PART: u32 = 20;

/// How often the control group's own count is read meanwhile, which costs next to nothing: a peak is soon over.
const GLANCE: Duration = Duration::from_millis(5);

/// What is seen of a server.
#[derive(Debug)]
pub(super) struct Watch<'a> {
    tree: &'a Tree,
    live: &'a Live,
    since: Instant,
    phase: Mutex<Option<Phase>>,
    /// The most processes that were seen in this phase, and the most threads that the group had.
    processes: AtomicU32,
    threads: AtomicU32,
    /// Whether a process with more than one thread was ever seen.
    has_threads: AtomicBool,
    moments: Mutex<Vec<Moment>>,
}

impl<'a> Watch<'a> {
    pub(super) fn new(tree: &'a Tree, live: &'a Live) -> Self {
        Self {
            tree,
            live,
            since: Instant::now(),
            phase: Mutex::new(None),
            processes: AtomicU32::new(0),
            threads: AtomicU32::new(0),
            has_threads: AtomicBool::new(false),
            moments: Mutex::new(Vec::new()),
        }
    }

    /// Looks again and again, until the other end of `over` is dropped.
    pub(super) fn run(&self, over: &Receiver<()>) {
        let mut next = Instant::now();
        loop {
            let left = next.saturating_duration_since(Instant::now());
            let pause = if self.tree.group().is_some() { left.min(GLANCE) } else { left };
            if over.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            let begun = Instant::now();
            if begun >= next {
                self.look();
                next = begun + INTERVAL.max(begun.elapsed() * PART);
            } else if let Some(threads) = self.tree.group().and_then(Group::current) {
                self.threads.fetch_max(threads, Ordering::Relaxed);
            }
        }
    }

    /// Looks now.
    pub(super) fn look(&self) -> Option<Count> {
        let count = self.tree.count()?;
        self.processes.fetch_max(count.processes, Ordering::Relaxed);
        if self.is_single() && self.tree.has_threads() {
            self.has_threads.store(true, Ordering::Relaxed);
        }
        let phase = *lock(&self.phase);
        let done = if phase.is_some() { self.live.done() } else { 0 };
        let Count { processes, threads } = count;
        let t_s = self.since.elapsed().as_secs_f64();
        lock(&self.moments).push(Moment { t_s, phase, processes, threads, done });
        Some(count)
    }

    /// Says what the clients begin to do, or that they are done.
    pub(super) fn enter(&self, phase: Option<Phase>) {
        *lock(&self.phase) = phase;
        if phase.is_some() {
            self.processes.store(0, Ordering::Relaxed);
            self.threads.store(0, Ordering::Relaxed);
        }
    }

    /// Returns the most processes that were seen since the phase began.
    pub(super) fn peak(&self) -> u32 {
        let threads = if self.is_single() { self.threads.load(Ordering::Relaxed) } else { 0 };
        self.processes.load(Ordering::Relaxed).max(threads)
    }

    /// Tells whether each process has one thread, so that a count of threads is one of processes.
    pub(super) fn is_single(&self) -> bool {
        !self.has_threads.load(Ordering::Relaxed)
    }

    /// Returns all that was seen.
    pub(super) fn moments(self) -> Vec<Moment> {
        self.moments.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Takes a lock, also one that was held during a panic.
pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
