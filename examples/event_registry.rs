//! A registry of event objects: each is run in its turn, and one that does not implement its method is
//! refused. Python finds that out when it runs; here the compiler says it, and `cargo test --doc registry` shows it.
//!
//!     cargo run --example event_registry

use forkd::registry::{Event, Registry};

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

fn main() {
    let mut registry = Registry::new();
    registry.register(Connect { host: "localhost" }).register(Count { turns: 0 });
    registry.register(|| println!("a closure is an event, too"));
    registry.run();
    registry.run();
}
