//! A bound for how many run at once.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::JoinHandle;
use super::scheduler::scheduler;
use super::state::Id;
use super::task::{needed, spawn};

/// Coroutines of which a limited number run at once.
///
/// Cloning is cheap, and makes another handle to the same pool.
///
/// # Examples
///
/// ```
/// use std::cell::Cell;
/// use std::rc::Rc;
/// use std::time::Duration;
/// use forkd_server::coroutine::{self, Pool, sleep};
///
/// coroutine::run(|| {
///     let (pool, most) = (Pool::new(3), Rc::new(Cell::new(0)));
///     for _ in 0..10 {
///         let (here, most) = (pool.clone(), Rc::clone(&most));
///         pool.spawn(move || {
///             most.set(most.get().max(here.running()));
///             sleep(Duration::from_millis(1));
///         });
///     }
///     pool.join();
///     assert_eq!(most.get(), 3);
/// })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Pool(Rc<PoolState>);

#[derive(Debug)]
struct PoolState {
    size: usize,
    running: Cell<usize>,
    /// The coroutines that wait until there are fewer.
    waiting: RefCell<Vec<Id>>,
}

/// A place in the pool, which goes with the coroutine that has it.
struct Permit(Rc<PoolState>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.running.set(self.0.running.get() - 1);
        if let Some(scheduler) = scheduler() {
            self.0.waiting.take().into_iter().for_each(|id| scheduler.wake(id));
        }
    }
}

impl Pool {
    /// A pool in which `size` coroutines run at once; 0 counts as 1.
    #[must_use]
    pub fn new(size: usize) -> Self {
        Self(Rc::new(PoolState { size: size.max(1), running: Cell::default(), waiting: RefCell::default() }))
    }

    /// Starts a coroutine as soon as there is room for it; until then, waits.
    ///
    /// # Panics
    ///
    /// As [`spawn`].
    ///
    /// # Examples
    ///
    /// ```
    /// use forkd_server::coroutine::{self, Pool};
    ///
    /// let squares: Vec<u32> = coroutine::run(|| {
    ///     let pool = Pool::new(2);
    ///     let handles: Vec<_> = (1..=3).map(|n| pool.spawn(move || n * n)).collect();
    ///     handles.into_iter().map(|handle| handle.join().unwrap()).collect()
    /// })?;
    /// assert_eq!(squares, [1, 4, 9]);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn spawn<T: 'static>(&self, f: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
        self.wait_while(|running| running >= self.0.size);
        self.0.running.set(self.0.running.get() + 1);
        let permit = Permit(Rc::clone(&self.0));
        spawn(move || {
            let _permit = permit;
            f()
        })
    }

    /// How many run now.
    #[must_use]
    pub fn running(&self) -> usize {
        self.0.running.get()
    }

    /// Waits until none runs.
    ///
    /// # Panics
    ///
    /// Where no coroutines run.
    pub fn join(&self) {
        self.wait_while(|running| running > 0);
    }

    fn wait_while(&self, condition: impl Fn(usize) -> bool) {
        let scheduler = needed();
        while condition(self.running()) {
            self.0.waiting.borrow_mut().push(scheduler.current());
            if !scheduler.park(None) {
                return;
            }
        }
    }
}
