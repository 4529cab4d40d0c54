//! Objects that each do something when it is their turn: a registry of events.
//!
//! The textbook's programs register objects of any class and call the same method of each. What is
//! an error at run time there, an object that has no such method, is none that can be made here: the
//! compiler refuses it.
//!
//! # Examples
//!
//! ```
//! use std::cell::RefCell;
//!
//! use forkd::registry::{Event, Registry};
//!
//! let log = RefCell::new(Vec::new());
//!
//! struct Greet<'a>(&'a str, &'a RefCell<Vec<String>>);
//! impl Event for Greet<'_> {
//!     fn run(&mut self) {
//!         self.1.borrow_mut().push(format!("hello, {}", self.0));
//!     }
//! }
//!
//! let mut registry = Registry::new();
//! registry.register(Greet("one", &log)).register(Greet("two", &log));
//! // a closure is an event, too
//! registry.register(|| log.borrow_mut().push("and a closure".to_owned()));
//! registry.run();
//! assert_eq!(*log.borrow(), ["hello, one", "hello, two", "and a closure"]);
//! ```
//!
//! An object that does not implement [`Event`] can't be registered: the compiler says "the trait bound
//! `NoEvent: Event` is not satisfied".
//!
//! ```compile_fail,E0277
//! struct NoEvent;
//! forkd::registry::Registry::new().register(NoEvent);
//! ```
//!
//! Neither does one compile that claims to implement it and leaves the method out.
//!
//! ```compile_fail,E0046
//! struct Lazy;
//! impl forkd::registry::Event for Lazy {}
//! ```

/// Something that is done when its turn has come.
///
/// ```
/// let mut count = 0;
/// forkd::registry::Event::run(&mut || count += 1);
/// assert_eq!(count, 1);
/// ```
pub trait Event {
    /// Does it.
    fn run(&mut self);
}

impl<F: FnMut()> Event for F {
    fn run(&mut self) {
        self();
    }
}

/// Events of any types, which are run in the order in which they were registered.
///
/// It holds each event until it is dropped itself, and runs it as often as it is asked to. A reactor can
/// [do that at some time](crate::reactor::Reactor::call_later):
///
/// ```
/// use std::time::Duration;
///
/// let mut registry = forkd::registry::Registry::new();
/// registry.register(|| println!("it is time"));
/// let mut reactor = forkd::reactor::Reactor::new()?;
/// reactor.call_later(Duration::from_millis(1), |_| registry.run());
/// reactor.run()?;
/// # Ok::<(), forkd::Error>(())
/// ```
#[derive(Default)]
pub struct Registry<'a> {
    events: Vec<Box<dyn Event + 'a>>,
}

impl<'a> Registry<'a> {
    /// A registry without events.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts an event behind all others.
    pub fn register(&mut self, event: impl Event + 'a) -> &mut Self {
        self.events.push(Box::new(event));
        self
    }

    /// Runs each event once, the first that was registered first. One that panics ends the run in that panic.
    ///
    /// ```
    /// let mut count = 0;
    /// let mut registry = forkd::registry::Registry::new();
    /// registry.register(|| count += 1);
    /// registry.run();
    /// registry.run();
    /// drop(registry);
    /// assert_eq!(count, 2);
    /// ```
    pub fn run(&mut self) {
        self.events.iter_mut().for_each(|event| event.run());
    }

    /// How many events there are.
    ///
    /// ```
    /// let mut registry = forkd::registry::Registry::new();
    /// assert!(registry.is_empty());
    /// registry.register(|| ()).register(|| ());
    /// assert_eq!(registry.len(), 2);
    /// ```
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

impl std::fmt::Debug for Registry<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("len", &self.len()).finish()
    }
}
