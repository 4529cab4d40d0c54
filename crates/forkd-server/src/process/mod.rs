//! The processes: the master's loop, and the children that it forks.

pub(crate) mod attendant;
mod child;
mod children;
pub(crate) mod companion;
mod context;
mod descriptors;
mod forking;
mod generations;
mod given_up;
mod idle_exit;
pub(crate) mod lifecycle;
mod listeners;
pub(crate) mod master;
mod oom;
mod pending;
mod pooling;
mod post_fork;
mod program;
pub(crate) mod reload;
pub(crate) mod sample;
pub(crate) mod saved;
mod signals;
pub(crate) mod sockets;
mod spares;
mod station;
#[cfg(feature = "coroutine")]
pub(crate) mod stdin;
pub(crate) mod upgrade;
pub(crate) mod view;
mod worker;
