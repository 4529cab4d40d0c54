//! The daemon: the master's loop, and its life as a process of the system.
//!
//! `master` is the loop, `watch` what it waits for; `station` a listening socket with its children, under one of two models
//! (`forking`, `pooling`); `birth` the first steps of a forked child; `reload` the way from one
//! configuration to the next, `phase` and `stop` the way to the end; `control`, [`status`] and
//! [`notify`] what is told to others. [`background`], [`pidfile`] and
//! [`privileges`] are what a SysV daemon does around all that.

mod accepting;
mod ask;
pub(crate) mod attendant;
pub mod background;
mod birth;
pub(crate) mod companion;
mod context;
pub(crate) mod control;
mod descriptors;
mod forking;
mod held;
pub(crate) mod lines;
pub(crate) mod master;
pub mod names;
pub mod notify;
mod oom;
mod phase;
pub mod pidfile;
mod pooling;
pub mod privileges;
pub mod rates;
pub(crate) mod reload;
mod report;
mod signals;
mod single;
pub(crate) mod sockets;
pub(crate) mod source;
mod station;
pub mod status;
pub(crate) mod stdin;
mod stop;
pub(crate) mod view;
mod watch;

pub(crate) use ask::Question;
