#![forbid(unsafe_code)]
//! Experiments of a few seconds that show how processes, sockets and servers behave, on the machine of who asks.
//!
//! Each [`Lab`] has a question with answers to choose from, does what it says, and [judges](Outcome::claims) whether
//! the machine did what the book says. What an experiment finds are facts; what they come to is a pure function of them.

mod busy;
mod daemon;
mod lab;
mod labs;
#[cfg(target_os = "linux")]
mod look;
#[cfg(target_os = "linux")]
mod subject;

pub use lab::{Claim, Experiment, Lab, Outcome, Verdict};

/// All experiments that this system has, in the order of a lecture.
pub static LABS: &[Lab] = labs::ALL;

/// Finds an experiment.
///
/// ```
/// assert_eq!(forkd_lab::find("backlog").unwrap().name, "backlog");
/// assert!(forkd_lab::find("bogus").is_none());
/// ```
#[must_use]
pub fn find(name: &str) -> Option<&'static Lab> {
    LABS.iter().find(|lab| lab.name == name)
}
