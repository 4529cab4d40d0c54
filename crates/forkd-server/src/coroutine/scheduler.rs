//! Which coroutine goes on when: a queue of those that can, a poller and timers for those that wait.
//!
//! All is built on two verbs, [`park`](Scheduler::park) and [`wake`](Scheduler::wake), which mean what
//! they mean for threads: one that is parked may be woken for no reason, so it looks again.
//!
//! The main function runs on the thread's own stack, and drives the others while it waits itself; each of
//! them stops by going back to it.

use std::cell::{Cell, RefCell};
use std::collections::hash_map::Entry;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::state::{Id, MAIN, Source, State, Task};
use crate::fairness::{Load, Turn};
use crate::slab::Key;
use crate::sys::context::{self, Context, Stack, Step, Why};
use crate::sys::poller::{Event, Interest, Poller};
use crate::transport::{Awaited, Ready, Wakeups};

pub(crate) struct Scheduler {
    poller: Poller,
    events: RefCell<Vec<Event>>,
    /// Never borrowed while other code than this module's runs.
    state: RefCell<State>,
    current: Cell<Id>,
    /// How many may go on before the poller is asked again.
    round: Cell<usize>,
    /// How many it began with.
    round_size: Cell<usize>,
    after_round: RefCell<Option<Box<AfterRound>>>,
    /// What wakes it for a connection that is written to; there is none before that can happen.
    wakeups: RefCell<Option<Arc<Wakeups>>>,
    /// What the coroutine that runs now has done since it goes on.
    turn: Cell<Turn>,
    /// The main function has returned: nothing new begins.
    ending: Cell<bool>,
}

/// What is called after each round, with the number of coroutines that have gone on in it.
type AfterRound = dyn FnMut(usize);

thread_local! {
    static SCHEDULER: RefCell<Option<Rc<Scheduler>>> = const { RefCell::new(None) };
}

/// The scheduler of this thread, if there is one.
pub(crate) fn scheduler() -> Option<Rc<Scheduler>> {
    SCHEDULER.with_borrow(Clone::clone)
}

/// Runs `main` with a scheduler, and ends what is left when it returns or panics.
pub(super) fn run<T>(main: impl FnOnce() -> T) -> io::Result<T> {
    /// Ends all, whether `main` returns or panics.
    struct Guard(Rc<Scheduler>);
    impl Drop for Guard {
        fn drop(&mut self) {
            self.0.end();
            SCHEDULER.set(None);
        }
    }
    assert!(scheduler().is_none(), "coroutine::run is running in this thread already: just spawn");
    let scheduler = Rc::new(Scheduler::new()?);
    SCHEDULER.set(Some(Rc::clone(&scheduler)));
    let _guard = Guard(scheduler);
    Ok(context::apart(main))
}

impl Scheduler {
    fn new() -> io::Result<Self> {
        let mut state = State::default();
        let main = state.tasks.insert(Task::default());
        debug_assert_eq!(main, MAIN);
        Ok(Self {
            poller: Poller::new()?,
            events: RefCell::default(),
            state: RefCell::new(state),
            current: Cell::new(MAIN),
            round: Cell::new(0),
            round_size: Cell::new(0),
            after_round: RefCell::default(),
            wakeups: RefCell::default(),
            turn: Cell::default(),
            ending: Cell::new(false),
        })
    }

    /// The coroutine that runs now.
    pub(crate) fn current(&self) -> Id {
        self.current.get()
    }

    /// Whether what is left is being unwound.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.get()
    }

    /// Makes sure that one more coroutine can begin.
    pub(crate) fn reserve(&self) -> io::Result<()> {
        self.state.borrow_mut().stacks.reserve()
    }

    /// Begins a coroutine, which has its first turn after those that are queued. While the scheduler ends it
    /// is not begun, but dropped.
    pub(super) fn begin(&self, stack_size: Option<usize>, body: impl FnOnce() + 'static) -> io::Result<()> {
        if self.ending.get() {
            return Ok(());
        }
        let stack = match stack_size {
            None => self.state.borrow_mut().stacks.take(),
            Some(bytes) => Stack::new(bytes),
        };
        let context = Some(Context::new(stack?, body));
        let state = &mut *self.state.borrow_mut();
        let id = state.tasks.insert(Task {
            context,
            queued: true,
            has_usual_stack: stack_size.is_none(),
            load: Load::default(),
        });
        state.queue.push_back(id);
        Ok(())
    }

    /// Lets a coroutine go on. One that can already, or is no more, is left alone.
    pub(crate) fn wake(&self, id: Id) {
        self.state.borrow_mut().wake(id);
    }

    /// Waits until another wakes this coroutine, or until then; or for no reason. Returns false, at once,
    /// where it can't wait because it is being unwound, or dropped at the end.
    pub(crate) fn park(&self, until: Option<Instant>) -> bool {
        let is_inside = context::is_inside();
        if std::thread::panicking() || (self.ending.get() && !is_inside) {
            return false;
        }
        let id = self.current();
        let alarm = until.map(|at| self.state.borrow_mut().timers.set(at, id));
        if is_inside {
            context::suspend(Why::Waits);
        } else {
            self.turn.take();
            self.drive();
        }
        if let Some(alarm) = alarm {
            self.state.borrow_mut().timers.cancel(alarm);
        }
        true
    }

    /// What the coroutine that runs now has done since it goes on.
    pub(super) fn turn(&self) -> Turn {
        self.turn.get()
    }

    /// Counts a call of the coroutine that runs now, which has moved this number of bytes.
    pub(super) fn count(&self, bytes: usize) {
        let mut turn = self.turn.get();
        turn.count(bytes);
        self.turn.set(turn);
    }

    /// Adds what the coroutine that runs now has done to its load. The main function has none: it lets clients in.
    fn end_turn(&self, state: &mut State) {
        let turn = self.turn.take();
        if turn != Turn::default()
            && self.current() != MAIN
            && let Some(task) = state.tasks.get_mut(self.current())
        {
            task.load.add(turn);
        }
    }

    /// Lets others that can go on do so first.
    pub(super) fn yield_now(&self) {
        self.end_turn(&mut self.state.borrow_mut());
        self.wake(self.current());
        self.park(None);
    }

    /// Lets others go on until it is the main function's turn.
    fn drive(&self) {
        loop {
            let next = match self.round.get().checked_sub(1) {
                Some(left) => {
                    self.round.set(left);
                    self.state.borrow_mut().next()
                }
                None => {
                    self.poll();
                    continue;
                }
            };
            match next {
                Some((MAIN, _)) => return,
                Some((id, Some(context))) => self.resume(id, context),
                _ => {}
            }
        }
    }

    fn resume(&self, id: Id, mut context: Context) {
        self.current.set(id);
        let step = context.resume();
        let mut state = self.state.borrow_mut();
        self.end_turn(&mut state);
        self.current.set(MAIN);
        if step == Step::Ended {
            let usual = state.tasks.remove(id).is_some_and(|task| task.has_usual_stack);
            if let Some(stack) = context.into_stack().filter(|_| usual) {
                state.stacks.put_back(stack);
            }
        } else if let Some(task) = state.tasks.get_mut(id) {
            task.context = Some(context);
        }
    }

    /// Calls `call` after each round, with the number of coroutines that have gone on in it.
    pub(crate) fn after_rounds(&self, call: impl FnMut(usize) + 'static) {
        self.after_round.replace(Some(Box::new(call)));
    }

    /// Finds out which can go on; waits for that where none can.
    fn poll(&self) {
        if let Some(call) = &mut *self.after_round.borrow_mut() {
            call(self.round_size.get());
        }
        let limit = {
            let state = self.state.borrow();
            match state.timers.next() {
                _ if state.is_busy() => Some(Duration::ZERO),
                None if state.listening == 0 => deadlock(),
                next => next.map(|at| at.saturating_duration_since(Instant::now())),
            }
        };
        let wakeups = self.wakeups.borrow().clone();
        let is_called = wakeups.as_ref().is_some_and(|wakeups| !wakeups.may_wait());
        let limit = if is_called { Some(Duration::ZERO) } else { limit };
        let events = &mut *self.events.borrow_mut();
        // it fails only for a wrong descriptor or a wrong address
        let _ = self.poller.wait(events, limit);
        let state = &mut *self.state.borrow_mut();
        for event in events.drain(..) {
            state.on_event(event);
        }
        wakeups.iter().flat_map(|wakeups| wakeups.take()).for_each(|source| state.call(source));
        if state.timers.next().is_some() {
            let now = Instant::now();
            while let Some(id) = state.timers.due(now) {
                state.wake(id);
            }
        }
        self.round_size.set(state.begin_round());
        self.round.set(self.round_size.get());
    }

    /// What wakes it for a connection that is written to.
    pub(super) fn wakeups(&self) -> io::Result<Arc<Wakeups>> {
        let wakeups = &mut *self.wakeups.borrow_mut();
        if let Some(wakeups) = wakeups {
            return Ok(Arc::clone(wakeups));
        }
        let made = Arc::new(Wakeups::new()?);
        // it is a source of its own, that nobody waits for
        self.add(made.as_fd())?;
        Ok(Arc::clone(wakeups.insert(made)))
    }

    /// Begins to look after a descriptor.
    pub(super) fn add(&self, fd: BorrowedFd<'_>) -> io::Result<Key> {
        let key = self.state.borrow_mut().sources.insert(Source::default());
        self.poller.add_edge(fd, key.token()).inspect_err(|_| self.forget(key))?;
        Ok(key)
    }

    /// Looks after a descriptor no longer, which is about to be closed.
    pub(super) fn forget(&self, source: Key) {
        self.state.borrow_mut().sources.remove(source);
    }

    /// Looks after a descriptor until it is [given back](Self::give_back), for one coroutine or several that have it.
    pub(super) fn lend(&self, fd: BorrowedFd<'_>) -> io::Result<Key> {
        if let Some((source, users)) = self.state.borrow_mut().lent.get_mut(&fd.as_raw_fd()) {
            *users += 1;
            return Ok(*source);
        }
        let source = self.add(fd)?;
        self.state.borrow_mut().lent.insert(fd.as_raw_fd(), (source, 1));
        Ok(source)
    }

    /// A coroutine does not wait any more for a descriptor that was lent to it.
    pub(super) fn give_back(&self, fd: BorrowedFd<'_>) {
        let state = &mut *self.state.borrow_mut();
        let Entry::Occupied(mut lent) = state.lent.entry(fd.as_raw_fd()) else { return };
        let (source, users) = lent.get_mut();
        *users -= 1;
        if *users == 0 {
            // it fails for what is not looked after
            let _ = self.poller.remove(fd, Interest::BOTH);
            state.sources.remove(*source);
            lent.remove();
        }
    }

    /// A call has found the descriptor not ready, or has done less than it was asked for: then there is no
    /// more (epoll(7), question 9), except for the end of a peer that has ended.
    pub(super) fn exhausted(&self, source: Key, ready: Ready, would_block: bool) {
        if let Some(source) = self.state.borrow_mut().sources.get_mut(source) {
            let end_is_left = source.ended && ready == Ready::Read && !would_block;
            source.side(ready).is_ready = end_is_left;
        }
    }

    /// Waits until the descriptor may be ready, or until then; tells whether it may be.
    pub(super) fn wait(&self, source: Key, ready: Ready, until: Option<Instant>) -> io::Result<bool> {
        let id = self.current();
        loop {
            {
                let state = &mut *self.state.borrow_mut();
                match state.sources.get_mut(source).map(|source| source.side(ready)) {
                    Some(side) if !side.is_ready => side.waiting.push(id),
                    _ => return Ok(true),
                }
                state.listening += 1;
            }
            let waited = self.park(until);
            let state = &mut *self.state.borrow_mut();
            state.listening -= 1;
            if let Some(source) = state.sources.get_mut(source) {
                let side = source.side(ready);
                side.waiting.retain(|other| *other != id);
                if !side.is_ready && until.is_some_and(|at| Instant::now() >= at) {
                    return Ok(false);
                }
            }
            if !waited {
                return Err(unwinding());
            }
        }
    }

    /// Waits until the descriptor may be ready as awaited, or is called for, or until then; tells whether there may be
    /// input.
    pub(super) fn wait_any(&self, source: Key, awaited: Awaited) -> io::Result<bool> {
        let id = self.current();
        {
            let state = &mut *self.state.borrow_mut();
            if let Some(there) = state.sources.get_mut(source)
                && there.await_any(awaited, id)
            {
                return Ok(there.side(Ready::Read).is_ready);
            }
            state.listening += 1;
        }
        let waited = self.park(awaited.until);
        let state = &mut *self.state.borrow_mut();
        state.listening -= 1;
        let has_input = state.sources.get_mut(source).is_some_and(|there| there.has_awaited(id));
        if waited { Ok(has_input) } else { Err(unwinding()) }
    }

    /// Has those that wait for a descriptor look again.
    pub(super) fn rouse(&self, source: Key) {
        let token = source.token();
        self.state.borrow_mut().on_event(Event { token, readable: true, writable: true, ended: false });
    }

    /// Ends all coroutines where they wait: what is on their stacks is dropped.
    fn end(&self) {
        self.ending.set(true);
        loop {
            let mut state = self.state.borrow_mut();
            let Some(id) = state.tasks.any() else { return };
            let task = state.tasks.remove(id);
            drop(state);
            self.current.set(id);
            drop(task);
        }
    }
}

fn unwinding() -> io::Error {
    io::Error::other("a coroutine that is being unwound can't wait")
}

/// gevent's `LoopExit`.
fn deadlock() -> ! {
    panic!(
        "every coroutine waits for another one, and none for a descriptor or a time: this would last for ever"
    )
}

impl std::fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scheduler").field("current", &self.current).finish_non_exhaustive()
    }
}
