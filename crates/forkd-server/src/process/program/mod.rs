//! A worker that is a program: how it starts, and what it says of itself, by sd_notify(3) and on its standard output and
//! error.
//!
//! Invariant: what it says is bounded, and no terminal obeys it.

mod attached;
mod lines;
mod notice;
mod notices;
mod shown;
pub(super) mod start;

pub(super) use attached::{Attached, LeftOfProgram, Said};
