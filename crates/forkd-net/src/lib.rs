#![forbid(unsafe_code)]
//! What forkd's crates have in common: how an [`Endpoint`] is written, how a host is looked up, and how an [`Error`]
//! speaks.
//!
//! The server, the load generator and the program that compares servers name the same things by the same words, and do
//! not know each other.

pub mod endpoint;
mod error;
pub mod getent;
pub mod resolve;
#[cfg(feature = "serde")]
mod serial;
pub mod unit;
mod unprintable;

pub use endpoint::{Endpoint, ParseEndpointError};
pub use error::{Error, Failure};
pub use unprintable::is_unprintable;
