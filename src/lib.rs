// tests count what they skip by atexit(3)
#![cfg_attr(not(test), forbid(unsafe_code))]
//! The program forkd. It has no library for others: that is the crate `forkd_server`. The modules are public for the
//! program's own tests, and for the one that makes its manual pages.

#[doc(hidden)]
pub mod cli;
#[doc(hidden)]
pub mod config;
#[doc(hidden)]
pub mod daemon;
#[doc(hidden)]
pub mod doctor;
mod failed;
mod foreign;
// what fuzz/ runs, and the tests over its seeds
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
#[doc(hidden)]
pub mod log;
mod metrics;
#[cfg(test)]
#[allow(unsafe_code, dead_code, unreachable_pub, clippy::panic)]
#[path = "../tests/common/skips.rs"]
mod skips;

use forkd_net::{Error, Failure};
use forkd_sys as sys;
