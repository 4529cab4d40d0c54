//! Two coroutines that switch to each other by name: greenlet's first example.
//!
//!     cargo run --example two_coroutines
//!
//! It prints 12, 56, 34, in this order: the second one is left where it has switched away, and never prints
//! 78.

use forkd_server::coroutine::Switch;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (first, second) = (Switch::new(), Switch::new());
    let (to_first, to_second) = (first.clone(), second.clone());
    let _first = first.becomes(move |()| {
        println!("12");
        let _ = to_second.switch(());
        println!("34");
    });
    let _second = second.becomes(move |()| {
        println!("56");
        let _ = to_first.switch(());
        println!("78");
    });
    first.switch(())?;
    Ok(())
}
