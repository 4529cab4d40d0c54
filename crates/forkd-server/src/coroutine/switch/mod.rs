//! Coroutines that say themselves which goes on: greenlet's `switch`.

mod error;
mod target;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;

pub use error::SwitchError;
pub(super) use target::apart;
use target::{Status, Target, drive, here, leave};

use super::stacks::STACK_SIZE;
use crate::sys::context::{Context, Stack};

/// Where a [`Coroutine`] can be switched to: its name, which may be known before there is the coroutine.
///
/// Cloning is cheap, and gives the same target. It does not keep its coroutine alive.
///
/// # Examples
///
/// Two that call each other by name, which neither the other's existence nor its end gets in the way of:
///
/// ```
/// use forkd_server::coroutine::{Switch, back};
///
/// let (ping, pong) = (Switch::new(), Switch::new());
/// let to_pong = pong.clone();
/// let _ping = ping.becomes(move |ball: Vec<&str>| {
///     let ball = to_pong.switch([ball, vec!["ping"]].concat()).unwrap();
///     to_pong.switch([ball, vec!["ping again"]].concat()).unwrap()
/// });
/// let to_ping = ping.clone();
/// let _pong = pong.becomes(move |ball| {
///     let ball = to_ping.switch([ball, vec!["pong"]].concat()).unwrap();
///     // what a function returns goes outside
///     [ball, vec!["out"]].concat()
/// });
/// assert_eq!(ping.switch(vec!["serve"]).unwrap(), ["serve", "ping", "pong", "ping again", "out"]);
/// // ping still waits for its turn, and pong is no more
/// assert!(pong.switch(vec![]).is_err());
/// assert_eq!(ping.switch(vec!["late"]).unwrap(), ["late"]);
/// ```
pub struct Switch<T>(Rc<Target<T>>);

/// A function with a stack of its own, which goes on when it is switched to, and stops when it switches to
/// another or back outside.
///
/// Values of type `T` go along. When it is dropped before its end, it is unwound where it has stopped.
///
/// It needs no scheduler. Within one, when it waits for a socket, the coroutine that has switched to it waits,
/// and others go on.
///
/// # Panics
///
/// A panic in it goes on in the [`switch`](Self::switch) that came from outside.
///
/// # Examples
///
/// ```
/// use forkd_server::coroutine::{Coroutine, back};
///
/// let squares = Coroutine::new(|first: u32| {
///     let mut n = first;
///     loop {
///         n = back(n * n).unwrap();
///     }
/// });
/// assert_eq!([2, 3, 12].map(|n| squares.switch(n).unwrap()), [4, 9, 144]);
/// ```
#[derive(Debug)]
pub struct Coroutine<T>(Switch<T>);

impl<T: 'static> Switch<T> {
    /// A name for a coroutine to come.
    #[must_use]
    pub fn new() -> Self {
        Self(Rc::new(Target {
            status: Cell::new(Status::Vacant),
            context: RefCell::default(),
            arriving: RefCell::default(),
            leaving: RefCell::default(),
            abandoned: Cell::default(),
        }))
    }

    /// Makes the coroutine of this name: `f` gets the value of the first switch to it, and what it returns
    /// goes outside.
    ///
    /// # Panics
    ///
    /// If there is or was one of this name already, and where no stack can be had.
    #[must_use = "a coroutine that is dropped ends"]
    pub fn becomes(&self, f: impl FnOnce(T) -> T + 'static) -> Coroutine<T> {
        assert!(self.0.status.get() == Status::Vacant, "a name is for one coroutine");
        let stack = Stack::new(STACK_SIZE).unwrap_or_else(|error| panic!("cannot make a coroutine: {error}"));
        let target = Rc::clone(&self.0);
        let context = Context::new(stack, move || {
            let arrived = target.arriving.take();
            if let Some(value) = arrived {
                let value = f(value);
                target.leaving.replace(Some((None, value)));
            }
        });
        self.0.context.replace(Some(context));
        self.0.status.set(Status::Stopped);
        Coroutine(self.clone())
    }

    /// Lets the coroutine of this name go on with `value`, and stops this one; returns what this one is
    /// switched to with, or, outside, what comes back.
    ///
    /// # Errors
    ///
    /// If it has not begun to be, has ended, or is running; then nothing has happened.
    ///
    /// # Panics
    ///
    /// Outside, with what a coroutine panics with.
    pub fn switch(&self, value: T) -> Result<T, SwitchError<T>> {
        match self.0.status.get() {
            Status::Vacant => Err(SwitchError::Vacant(value)),
            Status::Running => Err(SwitchError::Running(value)),
            Status::Ended => Err(SwitchError::Ended(value)),
            Status::Stopped => match here() {
                Some(here) => leave(&here, Some(Rc::clone(&self.0)), value),
                None => Ok(drive(Rc::clone(&self.0), value)),
            },
        }
    }
}

/// Goes back outside with `value`: to the code that switched to a coroutine without being one of this type. Returns
/// what this one is switched to with the next time.
///
/// # Errors
///
/// Where there is no coroutine to leave.
///
/// # Examples
///
/// ```
/// use forkd_server::coroutine::{Coroutine, back};
///
/// let counter = Coroutine::new(|start: u32| {
///     let step = back(start).unwrap();
///     start + step
/// });
/// assert_eq!(counter.switch(40), Ok(40));
/// assert_eq!(counter.switch(2), Ok(42));
/// ```
pub fn back<T: 'static>(value: T) -> Result<T, SwitchError<T>> {
    match here() {
        Some(here) => leave(&here, None, value),
        None => Err(SwitchError::Outside(value)),
    }
}

impl<T: 'static> Coroutine<T> {
    /// A coroutine without another name: `f` gets the value of the first switch to it, and what it returns
    /// goes outside.
    ///
    /// # Panics
    ///
    /// Where no stack can be had.
    #[must_use]
    pub fn new(f: impl FnOnce(T) -> T + 'static) -> Self {
        Switch::new().becomes(f)
    }

    /// The name by which others switch to it.
    ///
    /// ```
    /// let doubles = forkd_server::coroutine::Coroutine::new(|n: u32| 2 * n);
    /// let name = doubles.name();
    /// assert_eq!(name.switch(21), Ok(42));
    /// assert!(doubles.is_finished());
    /// ```
    #[must_use]
    pub fn name(&self) -> Switch<T> {
        self.0.clone()
    }

    /// As [`Switch::switch`].
    ///
    /// # Errors
    ///
    /// As of [`Switch::switch`].
    pub fn switch(&self, value: T) -> Result<T, SwitchError<T>> {
        self.0.switch(value)
    }

    /// Whether it has returned or panicked.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.0.0.status.get() == Status::Ended
    }
}

impl<T> Drop for Coroutine<T> {
    fn drop(&mut self) {
        let target = &*self.0.0;
        match target.status.get() {
            Status::Running => target.abandoned.set(true),
            _ => {
                target.status.set(Status::Ended);
                let context = target.context.take();
                drop(context);
            }
        }
    }
}

impl<T> Clone for Switch<T> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<T: 'static> Default for Switch<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for Switch<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Switch").field(&self.0.status.get()).finish()
    }
}
