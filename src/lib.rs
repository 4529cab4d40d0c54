#![deny(unsafe_code)]
//! forkd.
pub mod cli;
pub mod config;
pub mod daemon;
pub mod error;
mod events;
mod getent;
pub mod log;
pub mod model;
mod scoreboard;
pub mod server;
pub mod service;
#[allow(unsafe_code)]
mod sys;
pub mod transport;

pub use error::{Error, Failure};
pub use server::Server;
pub use service::{Echo, Handler, Protocol, Reply, Service};
pub use transport::{Connection, Endpoint, Peer};
