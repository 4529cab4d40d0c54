//! gevent's first example: spawn, sleep, joinall.
//!
//!     cargo run --example spawn_join_sleep
//!
//! Three coroutines count with a pause after each number, so they take turns in one thread; then one that takes
//! too long is not waited for.

use std::time::{Duration, Instant};

use forkd_server::coroutine::{self, join_all, sleep, spawn};

fn count(name: &'static str, pause: Duration) -> &'static str {
    for number in 1..=3 {
        println!("{name} {number}");
        sleep(pause);
    }
    name
}

fn main() -> std::io::Result<()> {
    coroutine::run(|| {
        let start = Instant::now();
        let pause = Duration::from_millis(50);
        let all = ["one", "two", "three"].map(|name| spawn(move || count(name, pause)));
        for name in join_all(all, None).into_iter().flatten().flatten() {
            println!("{name} has counted to 3 after {} ms", start.elapsed().as_millis());
        }

        let slow = spawn(|| sleep(Duration::from_secs(60)));
        match join_all([slow], Some(pause)).as_slice() {
            [Err(_)] => println!("the slow one is not waited for"),
            _ => println!("that was quick"),
        }
    })
}
