mod sockets;
mod switches;
mod turns;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(600);

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// What was done, in order.
#[derive(Clone, Default)]
struct Log(Rc<RefCell<Vec<&'static str>>>);

impl Log {
    fn add(&self, what: &'static str) {
        self.0.borrow_mut().push(what);
    }

    fn take(&self) -> Vec<&'static str> {
        self.0.take()
    }
}
