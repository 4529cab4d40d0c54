//! What the whole machine has done so far: /proc/stat.

use std::fs;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// What /proc/stat counts by.
#[cfg(target_os = "linux")]
const CLOCK: ClockId = ClockId::CLOCK_BOOTTIME;
/// Where there is no such file, any.
#[cfg(not(target_os = "linux"))]
const CLOCK: ClockId = ClockId::CLOCK_MONOTONIC;

/// Counts since the machine started.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct System {
    /// Time that processors worked, in whatever mode: what they weren't idle. What /proc/stat says of work itself
    /// is found out by looking at each tick; a process that sleeps by exact timers, as an open loop does, is
    /// never seen at one, or always.
    pub(super) busy: Duration,
    /// Time that another machine, on the same hardware, had a processor that this one wanted.
    pub(super) stolen: Duration,
    /// Context switches.
    pub(super) switches: u64,
    /// Processes and threads that were started.
    pub(super) forks: u64,
}

impl System {
    /// `None` where there is no /proc/stat.
    pub(super) fn now() -> Option<Self> {
        let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten()?;
        let text = fs::read_to_string("/proc/stat").ok()?;
        let now = clock_gettime(CLOCK).ok()?;
        Self::parse(&text, ticks as f64, now.into())
    }

    fn parse(text: &str, ticks_per_second: f64, now: Duration) -> Option<Self> {
        let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let times: Vec<f64> = line("cpu")?.split_whitespace().filter_map(|time| time.parse().ok()).collect();
        // user, nice, system, idle, iowait, irq, softirq, steal, and guests, which are in user already
        let [_, _, _, idle, waiting, _, _, stolen, ..] = times[..] else { return None };
        let span = |ticks: f64| Duration::from_secs_f64(ticks / ticks_per_second);
        let is_processor = |line: &&str| line.starts_with("cpu") && !line.starts_with("cpu ");
        let processors = text.lines().filter(is_processor).count() as u32;
        Some(Self {
            busy: (now * processors).saturating_sub(span(idle + waiting + stolen)),
            stolen: span(stolen),
            switches: line("ctxt")?.trim().parse().ok()?,
            forks: line("processes")?.trim().parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_processors_have_done() {
        let text = "cpu  100 20 30 4000 50 1 9 7 3 0\ncpu0 1 2 3 4 5 6 7 8 9 0\ncpu1 1 2 3 4 5 6 7 8 9 0\nintr 5 0\n\
                    ctxt 777\nbtime 1\nprocesses 42\nprocs_running 1\n";
        let expected = System {
            busy: Duration::from_millis(9430),
            stolen: Duration::from_millis(70),
            switches: 777,
            forks: 42,
        };
        let now = Duration::from_secs(25);
        assert_eq!(System::parse(text, 100.0, now), Some(expected));
        assert_eq!(System::parse("cpu  1 2 3\n", 100.0, now), None);
    }
}
