//! The processes: the master's loop, and the children that it forks.

mod accepting;
pub(crate) mod attendant;
mod birth;
pub(crate) mod companion;
mod context;
mod descriptors;
mod forking;
mod held;
pub(crate) mod master;
mod oom;
mod phase;
mod pooling;
pub(crate) mod reload;
pub(crate) mod sample;
mod signals;
mod single;
pub(crate) mod sockets;
mod station;
#[cfg(feature = "coroutine")]
pub(crate) mod stdin;
mod stop;
pub(crate) mod view;
mod watch;
