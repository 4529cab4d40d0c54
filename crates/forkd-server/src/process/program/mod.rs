//! What a program that is a worker says of itself: by sd_notify(3), and on its standard output and error.
//!
//! Invariant: it is bounded, and no terminal obeys it.
#![allow(dead_code)] // used by the pool soon

pub(super) mod lines;
pub(super) mod notice;
mod shown;
