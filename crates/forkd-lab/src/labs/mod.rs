//! The experiments, each in a file of its own.

mod backlog;
mod c10k;
#[cfg(target_os = "linux")]
mod copy_on_write;
mod crash;
#[cfg(target_os = "linux")]
mod fork_fat_parent;
#[cfg(target_os = "linux")]
mod lifo;
mod slow_client;
mod stevens;
#[cfg(target_os = "linux")]
mod thundering_herd;
#[cfg(target_os = "linux")]
mod udp_loop;
#[cfg(target_os = "linux")]
mod waiters;
#[cfg(target_os = "linux")]
mod zombie;

use crate::lab::Lab;

/// What forks by itself, and asks /proc, is for Linux.
#[cfg(target_os = "linux")]
pub(crate) const ALL: &[Lab] = &[
    zombie::LAB,
    slow_client::LAB,
    crash::LAB,
    copy_on_write::LAB,
    fork_fat_parent::LAB,
    backlog::LAB,
    thundering_herd::LAB,
    lifo::LAB,
    stevens::LAB,
    c10k::LAB,
    udp_loop::LAB,
];

/// What needs servers and clients only.
#[cfg(not(target_os = "linux"))]
pub(crate) const ALL: &[Lab] = &[slow_client::LAB, crash::LAB, backlog::LAB, stevens::LAB, c10k::LAB];
