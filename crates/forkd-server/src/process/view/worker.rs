//! What is known of a worker that accepts by itself.

use std::time::Duration;

use crate::scoreboard::{Child, Place};
use crate::sys::usage::Usage;

/// A worker that accepts by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerActivity {
    /// Its number in its pool, from 0 on.
    pub number: u32,
    /// The generation of its pool: 1 at the start, and one more with each reload.
    pub generation: u32,
    /// What it says of itself (`STATUS=`).
    pub status: Option<String>,
    /// The processor time that it has used so far; `None` where /proc doesn't tell.
    pub cpu: Option<Duration>,
    /// The bytes of memory that it has, those that it shares with others included; `None` where /proc doesn't tell.
    pub rss: Option<u64>,
}

impl WorkerActivity {
    /// Of a child that is such a worker; `usage` asks /proc.
    pub(in crate::process) fn of(
        child: &Child<'_>,
        status: Option<&str>,
        usage: impl Fn(u32) -> Option<Usage>,
    ) -> Option<Self> {
        let Place { number, generation } = child.place()?;
        let usage = usage(child.pid());
        Some(Self {
            number,
            generation,
            status: status.map(str::to_owned),
            cpu: usage.map(|usage| usage.cpu),
            rss: usage.map(|usage| usage.rss),
        })
    }
}
