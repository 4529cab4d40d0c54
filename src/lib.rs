#![deny(unsafe_code)]
//! forkd.
pub mod config;
pub mod error;
pub mod log;
pub mod model;
pub mod transport;

pub use error::{Error, Failure};
