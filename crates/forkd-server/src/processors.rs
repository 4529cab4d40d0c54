//! How many processors this process may use, and what leaves no more.
//!
//! Invariant: the reason is made of the same numbers as the count, so that it is true whatever the system counts.

use std::fmt;
use std::num::NonZero;
use std::sync::OnceLock;
use std::thread::available_parallelism;

/// The processors of this process, as of the first time that they are asked for: after a change of the root directory they
/// can't be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Processors {
    /// How many may be busy on its behalf all the time; at least 1.
    pub count: u32,
    /// How many it may run on: sched_setaffinity(2), cpuset(7).
    allowed: u32,
    /// How many the machine has.
    online: u32,
}

impl Processors {
    /// Asks the system.
    #[must_use]
    pub fn here() -> Self {
        static HERE: OnceLock<Processors> = OnceLock::new();
        *HERE.get_or_init(|| {
            // on Linux it is the affinity, or less by the quotas of the control group and those around it (cpu.max,
            // cpu.cfs_quota_us), in whole processors
            let count = available_parallelism().map_or(1, NonZero::get);
            // where the affinity can't be told, it can't be counted with either
            let online = online().unwrap_or(count).max(count);
            let allowed = allowed().unwrap_or(online).clamp(count, online);
            let [count, allowed, online] =
                [count, allowed, online].map(|n| u32::try_from(n).unwrap_or(u32::MAX));
            Self { count, allowed, online }
        })
    }

    /// How many are worth a worker that waits for nothing but datagrams; of more, each datagram wakes another. One
    /// processor is the kernel's, which brings the datagrams, or the clients' on this machine.
    #[must_use]
    pub fn for_datagrams(&self) -> u32 {
        self.count.saturating_sub(1).max(1)
    }
}

/// The count with its reason.
impl fmt::Display for Processors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, allowed, online } = self;
        match self {
            _ if count < allowed => {
                write!(f, "{count} of {allowed} processors, which the quota of the control group leaves")
            }
            _ if allowed < online => {
                write!(f, "{count} of {online} processors, which affinity leaves (sched_setaffinity, cpuset)")
            }
            _ => write!(f, "{count}, as many processors as the machine has"),
        }
    }
}

#[cfg(target_os = "linux")]
fn allowed() -> Option<usize> {
    Some(rustix::thread::sched_getaffinity(None).ok()?.count() as usize)
}

#[cfg(not(target_os = "linux"))]
fn allowed() -> Option<usize> {
    None
}

#[cfg(target_os = "linux")]
fn online() -> Option<usize> {
    let online = nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_ONLN).ok().flatten();
    usize::try_from(online?).ok()
}

#[cfg(not(target_os = "linux"))]
fn online() -> Option<usize> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_what_leaves_no_more() {
        let reason = |count, allowed, online| Processors { count, allowed, online }.to_string();
        assert_eq!(reason(4, 4, 4), "4, as many processors as the machine has");
        assert!(reason(2, 2, 4).starts_with("2 of 4 processors, which affinity leaves"));
        assert!(
            reason(1, 2, 4).starts_with("1 of 2 processors, which the quota of the control group leaves")
        );
    }

    #[test]
    fn it_is_never_none() {
        let here = Processors::here();
        assert!(here.count >= 1 && here.for_datagrams() >= 1);
        assert_eq!(Processors { count: 1, ..here }.for_datagrams(), 1);
        assert_eq!(Processors { count: 3, ..here }.for_datagrams(), 2);
    }
}
