//! Stacks of their own for functions that can stop in the middle.
//!
//! A [`Context`] runs a closure on its own stack; [`suspend`] stops the innermost one that runs, and
//! its resumer goes on. What is switched when, nothing here knows.

use std::cell::Cell;
use std::io;
use std::ptr;

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};

/// A stack with a guard page below it: what overflows is a SIGSEGV, and no other memory is touched.
pub struct Stack(DefaultStack);

impl Stack {
    /// Only pages that are touched take memory.
    ///
    /// # Errors
    ///
    /// As mmap(2): `ENOMEM` also where the process has as many mappings as it may have (two for each
    /// stack, `vm.max_map_count`).
    pub fn new(bytes: usize) -> io::Result<Self> {
        DefaultStack::new(bytes).map(Self)
    }
}

/// Why a context stops, for its resumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It waits for something.
    Waits,
    /// Another one shall go on in its place.
    Switches,
}

/// What came of resuming a context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It has stopped, and can be resumed.
    Stopped(Why),
    /// The closure has returned.
    Ended,
}

type Raw = Coroutine<(), Why, (), DefaultStack>;

/// A closure with a stack of its own, which has run as far as it has run.
///
/// When it is dropped before its end, it is unwound as by a panic, so that what is on its stack is
/// dropped, too.
pub struct Context(Option<Raw>);

thread_local! {
    /// The way out of the innermost context that runs in this thread; null where none does.
    static INNERMOST: Cell<*const Yielder<(), Why>> = const { Cell::new(ptr::null()) };
}

/// Puts [`INNERMOST`] back when the stack on which this lies goes on, or is unwound.
struct Restore(*const Yielder<(), Why>);

impl Drop for Restore {
    fn drop(&mut self) {
        INNERMOST.set(self.0);
    }
}

impl Context {
    /// Makes a context that runs `body` on `stack` when it is resumed for the first time.
    pub fn new(stack: Stack, body: impl FnOnce() + 'static) -> Self {
        Self(Some(Raw::with_stack(stack.0, |yielder, ()| {
            INNERMOST.set(yielder);
            body();
        })))
    }

    /// Goes on until it stops again, or ends. A panic in it goes on here.
    pub fn resume(&mut self) -> Step {
        let _outer = Restore(INNERMOST.get());
        match &mut self.0 {
            Some(raw) if !raw.done() => match raw.resume(()) {
                CoroutineResult::Yield(why) => Step::Stopped(why),
                CoroutineResult::Return(()) => Step::Ended,
            },
            _ => Step::Ended,
        }
    }

    /// The stack of one that has ended.
    pub fn into_stack(mut self) -> Option<Stack> {
        let raw = self.0.take_if(|raw| raw.done())?;
        Some(Stack(raw.into_stack()))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        let _outer = Restore(INNERMOST.get());
        self.0 = None;
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Context")
    }
}

/// Whether the caller runs in a context, and can be stopped.
pub fn is_inside() -> bool {
    !INNERMOST.get().is_null()
}

/// Stops the innermost context until it is resumed. Returns false, at once, where there is none, and
/// where it is being unwound: no other context may run between a panic and where it is caught.
pub fn suspend(why: Why) -> bool {
    let here = INNERMOST.get();
    if here.is_null() || std::thread::panicking() {
        return false;
    }
    let _here = Restore(here);
    // SAFETY: INNERMOST names the yielder of the context that runs now: it is set when a body begins, and
    // put back whenever `suspend`, `resume` or a drop comes back to a stack. The yielder lives on this
    // very stack, below all frames of the body, so it is there as long as this function runs.
    unsafe { (*here).suspend(why) };
    true
}

/// Runs `f` as if no context were around it: what waits in `f` does not stop one outside.
pub fn apart<T>(f: impl FnOnce() -> T) -> T {
    let _outer = Restore(INNERMOST.replace(ptr::null()));
    f()
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::rc::Rc;

    use super::*;

    fn context(body: impl FnOnce() + 'static) -> Context {
        Context::new(Stack::new(64 * 1024).expect("a stack"), body)
    }

    #[test]
    fn a_context_stops_and_goes_on_with_others_inside_it() {
        let log = Rc::new(Cell::new(0));
        let count = Rc::clone(&log);
        let mut outer = context(move || {
            let inner_count = Rc::clone(&count);
            let mut inner = context(move || {
                inner_count.set(inner_count.get() + 1);
                assert!(suspend(Why::Switches));
                inner_count.set(inner_count.get() + 10);
            });
            assert_eq!(inner.resume(), Step::Stopped(Why::Switches));
            assert!(suspend(Why::Waits));
            assert_eq!(inner.resume(), Step::Ended);
            assert!(inner.into_stack().is_some());
            count.set(count.get() + 100);
        });
        assert!(!is_inside() && !suspend(Why::Waits));
        assert_eq!(outer.resume(), Step::Stopped(Why::Waits));
        assert_eq!(log.get(), 1);
        assert_eq!(outer.resume(), Step::Ended);
        assert_eq!((log.get(), outer.resume()), (111, Step::Ended));
        assert!(!is_inside());
    }

    #[test]
    fn what_is_on_the_stack_of_one_that_is_dropped_is_dropped_and_cannot_stop_it() {
        struct OnDrop(Rc<Cell<u32>>);
        impl Drop for OnDrop {
            fn drop(&mut self) {
                let stopped = suspend(Why::Waits);
                self.0.set(self.0.get() + if stopped { 100 } else { 1 });
            }
        }
        let drops = Rc::new(Cell::new(0));
        let (one, two) = (OnDrop(Rc::clone(&drops)), OnDrop(Rc::clone(&drops)));
        let mut begun = context(move || {
            let _one = one;
            suspend(Why::Waits);
            unreachable!("it is never resumed");
        });
        let never_begun = context(move || drop(two));
        begun.resume();
        drop(begun);
        assert_eq!(drops.get(), 1);
        drop(never_begun);
        assert_eq!(drops.get(), 2);
    }

    #[test]
    fn a_panic_comes_out_where_it_was_resumed() {
        let mut failing = context(|| {
            suspend(Why::Waits);
            std::panic::resume_unwind(Box::new("as was wished"));
        });
        failing.resume();
        let outcome = catch_unwind(AssertUnwindSafe(|| failing.resume()));
        assert!(outcome.is_err() && !is_inside());
        assert!(failing.into_stack().is_some());
    }
}
