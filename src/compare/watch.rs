//! Looks at a server from time to time, while its clients do what they do.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::record::Moment;
use super::tree::{Count, Tree};
use crate::load::{Live, Phase};

/// How often it looks, at most.
const INTERVAL: Duration = Duration::from_millis(50);

/// What looking may cost: a part of the time as small as this.
const PART: u32 = 20;

/// What is seen of a server.
#[derive(Debug)]
pub(super) struct Watch<'a> {
    tree: &'a Tree,
    live: &'a Live,
    since: Instant,
    phase: Mutex<Option<Phase>>,
    peak: AtomicU32,
    moments: Mutex<Vec<Moment>>,
}

impl<'a> Watch<'a> {
    pub(super) fn new(tree: &'a Tree, live: &'a Live) -> Self {
        let (phase, peak, moments) = (Mutex::new(None), AtomicU32::new(0), Mutex::new(Vec::new()));
        Self { tree, live, since: Instant::now(), phase, peak, moments }
    }

    /// Looks again and again, until nobody holds the other end of `over`.
    pub(super) fn run(&self, over: &Receiver<()>) {
        let mut pause = Duration::ZERO;
        while over.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
            let begun = Instant::now();
            self.look();
            pause = INTERVAL.max(begun.elapsed() * PART);
        }
    }

    /// Looks now.
    pub(super) fn look(&self) -> Option<Count> {
        let count = self.tree.count()?;
        self.peak.fetch_max(count.processes, Ordering::Relaxed);
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
            self.peak.store(0, Ordering::Relaxed);
        }
    }

    /// Returns the most processes that were seen since the phase began.
    pub(super) fn peak(&self) -> u32 {
        self.peak.load(Ordering::Relaxed)
    }

    /// Returns all that was seen.
    pub(super) fn moments(self) -> Vec<Moment> {
        self.moments.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A lock that whoever panicked has left behind is as good as any.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
