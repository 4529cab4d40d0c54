//! A registry of event objects: each is run in its turn, and one that does not implement its method is
//! refused. Python finds that out when it runs; here the compiler says it: "the trait bound `Silent: Event` is not
//! satisfied".
//!
//!     cargo run --example event_registry

/// Something that is done when its turn has come.
trait Event {
    /// Does it.
    fn run(&mut self);
}

impl<F: FnMut()> Event for F {
    fn run(&mut self) {
        self();
    }
}

/// Events of any types, which are run in the order in which they were registered.
#[derive(Default)]
struct Registry<'a> {
    events: Vec<Box<dyn Event + 'a>>,
}

impl<'a> Registry<'a> {
    /// Puts an event behind all others.
    fn register(&mut self, event: impl Event + 'a) -> &mut Self {
        self.events.push(Box::new(event));
        self
    }

    /// Runs each event once.
    fn run(&mut self) {
        self.events.iter_mut().for_each(|event| event.run());
    }
}

struct Connect {
    host: &'static str,
}

impl Event for Connect {
    fn run(&mut self) {
        println!("connect to {}", self.host);
    }
}

struct Count {
    turns: u32,
}

impl Event for Count {
    fn run(&mut self) {
        self.turns += 1;
        println!("turn {}", self.turns);
    }
}

/// Without `impl Event`, this line would not compile: `registry.register(Silent);`
#[allow(dead_code)]
struct Silent;

fn main() -> Result<(), forkd_server::Error> {
    let mut registry = Registry::default();
    registry.register(Connect { host: "localhost" }).register(Count { turns: 0 });
    registry.register(|| println!("a closure is an event, too"));
    registry.run();
    // and once more, when a reactor's clock says so
    let mut reactor = forkd_server::reactor::Reactor::new()?;
    reactor.call_later(std::time::Duration::from_millis(1), |_| registry.run());
    reactor.run()
}
