//! Which coroutine goes on when one switches.
//!
//! The first switch, from outside, becomes a loop that resumes each that is switched to, one after the other,
//! until one of them switches back outside. Where one waits for a socket or a time, the loop waits in its
//! place, as the coroutine that it runs in.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::SwitchError;
use crate::coroutine::scheduler::scheduler;
use crate::sys::context::{Context, Step, Why, suspend};

/// Where a coroutine is while it is stopped, and what goes along with a switch.
pub(super) struct Target<T> {
    pub(super) status: Cell<Status>,
    /// Here while it is stopped.
    pub(super) context: RefCell<Option<Context>>,
    /// What it is switched to with.
    pub(super) arriving: RefCell<Option<T>>,
    /// Where it switches to, and with what.
    pub(super) leaving: RefCell<Option<Leaving<T>>>,
    /// Its owner has gone while it was running: it ends when it stops.
    pub(super) abandoned: Cell<bool>,
}

/// Where a coroutine switches to (nowhere is outside), and with what.
type Leaving<T> = (Option<Rc<Target<T>>>, T);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Vacant,
    Stopped,
    Running,
    Ended,
}

thread_local! {
    /// The target whose coroutine runs now, if the innermost that runs is one of this module's.
    static HERE: RefCell<Option<Rc<dyn Any>>> = const { RefCell::new(None) };
}

/// Runs `f` as if it were outside.
pub(in crate::coroutine) fn apart<R>(f: impl FnOnce() -> R) -> R {
    let _here = Restore(HERE.take());
    f()
}

struct Restore(Option<Rc<dyn Any>>);

impl Drop for Restore {
    fn drop(&mut self) {
        HERE.set(self.0.take());
    }
}

/// The target of the coroutine that runs now, if that is one of this type.
pub(super) fn here<T: 'static>() -> Option<Rc<Target<T>>> {
    HERE.with_borrow(Clone::clone)?.downcast().ok()
}

/// Stops the coroutine that runs here until it is switched to.
pub(super) fn leave<T>(
    here: &Rc<Target<T>>,
    to: Option<Rc<Target<T>>>,
    value: T,
) -> Result<T, SwitchError<T>> {
    here.leaving.replace(Some((to, value)));
    if suspend(Why::Switches) {
        let Some(value) = here.arriving.take() else { unreachable!("one is switched to with a value") };
        return Ok(value);
    }
    let Some((_, value)) = here.leaving.take() else { unreachable!("it has not been taken") };
    Err(SwitchError::Outside(value))
}

/// Runs those that are switched to until one switches back.
pub(super) fn drive<T: 'static>(mut target: Rc<Target<T>>, value: T) -> T {
    /// The one that runs when a panic comes out has ended.
    struct Ended<'a, T>(&'a Target<T>);
    impl<T> Drop for Ended<'_, T> {
        fn drop(&mut self) {
            self.0.status.set(Status::Ended);
        }
    }
    let _outer = Restore(HERE.take());
    target.arriving.replace(Some(value));
    loop {
        target.status.set(Status::Running);
        let ended = Ended(&target);
        let Some(mut context) = target.context.take() else { unreachable!("a stopped one has a context") };
        let step = resume(&target, &mut context);
        std::mem::forget(ended);
        let stops = step == Step::Stopped(Why::Switches) && !target.abandoned.get();
        if stops {
            target.context.replace(Some(context));
            target.status.set(Status::Stopped);
        } else {
            target.status.set(Status::Ended);
            drop(context);
        }
        let left = target.leaving.take();
        match left {
            Some((Some(next), value)) => {
                next.arriving.replace(Some(value));
                target = next;
            }
            Some((None, value)) => return value,
            None => unreachable!("one that stops, and one that returns, leaves a value"),
        }
    }
}

/// Lets it go on until it leaves; where it waits, the caller waits.
fn resume<T: 'static>(target: &Rc<Target<T>>, context: &mut Context) -> Step {
    loop {
        HERE.set(Some(Rc::clone(target) as Rc<dyn Any>));
        let _outside = Restore(None);
        match context.resume() {
            Step::Stopped(Why::Waits) => {
                HERE.set(None);
                if let Some(scheduler) = scheduler() {
                    scheduler.park(None);
                }
            }
            step => return step,
        }
    }
}
