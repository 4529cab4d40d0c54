//! The processes: the master's loop, and the children that it forks.

mod accepting;
pub(crate) mod attendant;
mod birth;
mod children;
pub(crate) mod companion;
mod context;
mod descriptors;
mod forking;
mod lifecycle;
mod listeners;
pub(crate) mod master;
mod oom;
mod pending;
mod pooling;
pub(crate) mod reload;
pub(crate) mod sample;
mod signals;
pub(crate) mod sockets;
mod station;
#[cfg(feature = "coroutine")]
pub(crate) mod stdin;
pub(crate) mod view;
