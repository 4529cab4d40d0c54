//! The last test program of `cargo test` says how many tests were skipped, and for want of what.
//!
//! It has no tests, and its name puts it behind the others; after it come the documentation tests alone, which skip
//! nothing.
#![allow(missing_docs)]

#[path = "common/skips.rs"]
#[allow(dead_code, unreachable_pub)]
mod skips;

fn main() {
    // the list of tests is empty
    if !std::env::args().any(|arg| arg == "--list") {
        let summary = skips::Skips::take_all().summary();
        skips::say(&format!("\nIn all, {summary}\n\n"));
    }
}
