//! What makes the master a process of the system.
//!
//! `source` is what it serves, by the configuration; `control`, [`status`] and [`notify`] are what it tells others;
//! [`background`], [`pidfile`] and [`privileges`] are what a SysV daemon does around all that.

mod ask;
pub mod background;
pub(crate) mod control;
pub(crate) mod lines;
pub mod names;
pub mod notify;
pub mod pidfile;
pub mod privileges;
pub mod rates;
mod report;
pub(crate) mod source;
pub mod status;
pub(crate) mod upgrade;

pub(crate) use ask::Question;
