//! Coroutines as std has threads: spawn, join, sleep.

use std::cell::{Cell, RefCell};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::scheduler::{Scheduler, scheduler};
use super::state::Id;

/// The scheduler, for what can't do without.
pub(super) fn needed() -> Rc<Scheduler> {
    scheduler().unwrap_or_else(|| {
        panic!(
            "no coroutines run in this thread: call this within forkd_server::coroutine::run, or in a handler that is \
             served with Model::Coroutine"
        )
    })
}

/// Starts a coroutine, which runs whenever others wait.
///
/// It has its first turn when the caller waits for the first time. Without its handle it is not waited for:
/// [`run`](super::run) ends what is left when its main function returns.
///
/// # Panics
///
/// Outside of [`run`](super::run) and of handlers under [`Model::Coroutine`](crate::model::Model::Coroutine),
/// and where no stack can be had ([`Builder::spawn`] returns that as an error).
///
/// # Examples
///
/// ```
/// use forkd_server::coroutine;
///
/// let sum = coroutine::run(|| {
///     let one = coroutine::spawn(|| 1);
///     let two = coroutine::spawn(|| 2);
///     one.join().unwrap() + two.join().unwrap()
/// })?;
/// assert_eq!(sum, 3);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn spawn<T: 'static>(f: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
    Builder::new().spawn(f).unwrap_or_else(|error| panic!("cannot start a coroutine: {error}"))
}

/// How to start a coroutine, where [`spawn`] won't do.
///
/// ```
/// use forkd_server::coroutine::{self, Builder};
///
/// /// Adds up 1 to n, the deep way.
/// fn sum(n: u64) -> u64 {
///     if n == 0 { 0 } else { n + std::hint::black_box(sum(n - 1)) }
/// }
///
/// coroutine::run(|| {
///     let deep = Builder::new().stack_size(64 << 20).spawn(|| sum(100_000))?;
///     assert_eq!(deep.join().unwrap(), 5_000_050_000);
///     Ok::<(), std::io::Error>(())
/// })??;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
#[must_use]
pub struct Builder {
    stack_size: Option<usize>,
}

impl Builder {
    /// As [`spawn`] does it.
    pub fn new() -> Self {
        Self::default()
    }

    /// The size of the stack in bytes, in place of [`STACK_SIZE`](super::STACK_SIZE). Only what is touched
    /// takes memory.
    pub fn stack_size(self, bytes: usize) -> Self {
        Self { stack_size: Some(bytes) }
    }

    /// Starts a coroutine.
    ///
    /// # Errors
    ///
    /// `ENOMEM` as of mmap(2): there is no memory for its stack, or the process has as many mappings as it may
    /// have. Each stack is two; `vm.max_map_count`, usually 65,530, allows for about 32,000.
    ///
    /// # Panics
    ///
    /// Where no coroutines run.
    pub fn spawn<T: 'static>(self, f: impl FnOnce() -> T + 'static) -> io::Result<JoinHandle<T>> {
        let scheduler = needed();
        let packet = Rc::new(Packet::default());
        let finish = Finish(Rc::clone(&packet));
        scheduler.begin(self.stack_size, move || {
            let outcome = catch_unwind(AssertUnwindSafe(f));
            finish.0.outcome.replace(Some(outcome));
        })?;
        Ok(JoinHandle(packet))
    }
}

/// What a coroutine leaves behind.
#[derive(Debug)]
struct Packet<T> {
    outcome: RefCell<Option<thread::Result<T>>>,
    has_ended: Cell<bool>,
    joiners: RefCell<SmallVec<[Id; 2]>>,
}

impl<T> Default for Packet<T> {
    fn default() -> Self {
        Self { outcome: RefCell::default(), has_ended: Cell::default(), joiners: RefCell::default() }
    }
}

/// Lies in a coroutine, and is dropped with it, whether it has ever begun or not.
struct Finish<T>(Rc<Packet<T>>);

impl<T> Drop for Finish<T> {
    fn drop(&mut self) {
        self.0.has_ended.set(true);
        if let Some(scheduler) = scheduler() {
            self.0.joiners.take().into_iter().for_each(|id| scheduler.wake(id));
        }
    }
}

/// A coroutine that can be waited for. Dropping it changes nothing for the coroutine.
///
/// ```
/// use forkd_server::coroutine::{self, spawn, yield_now};
///
/// coroutine::run(|| {
///     let answer = spawn(|| 42);
///     assert!(!answer.is_finished(), "it has its first turn when we wait");
///     yield_now();
///     assert!(answer.is_finished());
///     assert_eq!(answer.join().unwrap(), 42);
/// })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct JoinHandle<T>(Rc<Packet<T>>);

impl<T> JoinHandle<T> {
    /// Waits for the end of the coroutine. The error is what it has panicked with, as of
    /// [`std::thread::JoinHandle::join`]: a panic ends one coroutine, and no other.
    ///
    /// # Errors
    ///
    /// The value of a panic.
    ///
    /// # Panics
    ///
    /// Outside of [`run`](super::run), where the coroutine has not ended.
    ///
    /// # Examples
    ///
    /// ```
    /// use forkd_server::coroutine;
    ///
    /// coroutine::run(|| {
    ///     let bad = coroutine::spawn(|| panic!("as was wished"));
    ///     let good = coroutine::spawn(|| "all is well");
    ///     assert!(bad.join().is_err());
    ///     assert_eq!(good.join().unwrap(), "all is well");
    /// })?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn join(self) -> thread::Result<T> {
        self.wait(None);
        self.into_outcome()
    }

    /// Whether the coroutine has ended, so that [`join`](Self::join) doesn't wait.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.0.has_ended.get()
    }

    fn wait(&self, until: Option<Instant>) {
        while !self.is_finished() && until.is_none_or(|at| Instant::now() < at) {
            let scheduler = needed();
            self.0.joiners.borrow_mut().push(scheduler.current());
            let waited = scheduler.park(until);
            self.0.joiners.borrow_mut().retain(|id| *id != scheduler.current());
            if !waited {
                return;
            }
        }
    }

    fn into_outcome(self) -> thread::Result<T> {
        self.0.outcome.take().unwrap_or_else(|| Err(Box::new("the coroutine was ended with its scheduler")))
    }
}

/// What [`join_all`] says of a coroutine: how it has ended, or, where it hasn't, its handle.
///
/// ```
/// use std::time::Duration;
/// use forkd_server::coroutine::{self, Joined, join_all, sleep, spawn};
///
/// fn say(joined: &Joined<&str>) -> String {
///     match joined {
///         Ok(Ok(value)) => format!("it returned {value:?}"),
///         Ok(Err(_)) => "it panicked".into(),
///         Err(_) => "it still runs".into(),
///     }
/// }
///
/// coroutine::run(|| {
///     let quick = spawn(|| "at once");
///     let slow = spawn(|| {
///         sleep(Duration::from_secs(60));
///         "late"
///     });
///     let joined = join_all([quick, slow], Some(Duration::from_millis(10)));
///     assert_eq!(joined.iter().map(say).collect::<Vec<_>>(), [r#"it returned "at once""#, "it still runs"]);
/// })?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub type Joined<T> = Result<thread::Result<T>, JoinHandle<T>>;

/// Waits until all coroutines have ended, at most for `limit`; says of each, in order, how it has ended, or
/// gives the handle back if it hasn't.
///
/// # Panics
///
/// As [`JoinHandle::join`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use forkd_server::coroutine::{self, join_all, sleep, spawn};
///
/// coroutine::run(|| {
///     let naps = [1, 2, 60_000].map(|ms| spawn(move || sleep(Duration::from_millis(ms))));
///     let joined = join_all(naps, Some(Duration::from_millis(100)));
///     assert_eq!(joined.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, true, false]);
/// })?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn join_all<T>(
    handles: impl IntoIterator<Item = JoinHandle<T>>,
    limit: Option<Duration>,
) -> Vec<Joined<T>> {
    let until = limit.and_then(|limit| Instant::now().checked_add(limit));
    let handles: Vec<JoinHandle<T>> = handles.into_iter().collect();
    handles.iter().for_each(|handle| handle.wait(until));
    let joined = |handle: JoinHandle<T>| {
        if handle.is_finished() { Ok(handle.into_outcome()) } else { Err(handle) }
    };
    handles.into_iter().map(joined).collect()
}

/// Waits for this time, while others go on.
///
/// Where no coroutines run, the thread sleeps ([`std::thread::sleep`]): a handler that calls this is right
/// under every model.
///
/// ```
/// use std::time::Duration;
/// use forkd_server::coroutine::{self, sleep, spawn};
///
/// let order = coroutine::run(|| {
///     let order = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
///     let sleepers: Vec<_> = [20, 1]
///         .map(|ms| {
///             let order = order.clone();
///             spawn(move || {
///                 sleep(Duration::from_millis(ms));
///                 order.borrow_mut().push(ms);
///             })
///         })
///         .into();
///     coroutine::join_all(sleepers, None);
///     order.take()
/// })?;
/// assert_eq!(order, [1, 20]);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn sleep(span: Duration) {
    let Some(scheduler) = scheduler() else { return thread::sleep(span) };
    let until = Instant::now().checked_add(span);
    while until.is_none_or(|at| Instant::now() < at) {
        if !scheduler.park(until) {
            return;
        }
    }
}

/// Lets all others that can go on do so first: what a long computation does now and then. Where no
/// coroutines run, another thread may have its turn ([`std::thread::yield_now`]).
///
/// ```
/// use std::cell::Cell;
/// use std::rc::Rc;
/// use forkd_server::coroutine::{self, spawn, yield_now};
///
/// coroutine::run(|| {
///     let is_wanted = Rc::new(Cell::new(true));
///     let still = is_wanted.clone();
///     spawn(move || still.set(false));
///     let mut rounds = 0;
///     while is_wanted.get() {
///         // a part of something long
///         rounds += 1;
///         yield_now();
///     }
///     assert_eq!(rounds, 1);
/// })?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn yield_now() {
    match scheduler() {
        Some(scheduler) => scheduler.yield_now(),
        None => thread::yield_now(),
    }
}
