//! What the whole machine has done so far: /proc/stat.

use std::fs;
use std::time::Duration;

/// Counts since the machine started.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct System {
    /// Time that processors worked, in whatever mode.
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
        Self::parse(&fs::read_to_string("/proc/stat").ok()?, ticks as f64)
    }

    fn parse(text: &str, ticks_per_second: f64) -> Option<Self> {
        let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let times: Vec<f64> = line("cpu")?.split_whitespace().filter_map(|time| time.parse().ok()).collect();
        // user, nice, system, idle, iowait, irq, softirq, steal, and guests, who are in user already
        let [user, nice, system, _, _, irq, softirq, stolen, ..] = times[..] else { return None };
        let span = |ticks: f64| Duration::from_secs_f64(ticks / ticks_per_second);
        Some(Self {
            busy: span(user + nice + system + irq + softirq),
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
        let text = "cpu  100 20 30 4000 50 1 9 7 3 0\ncpu0 1 2 3 4 5 6 7 8 9 0\nintr 5 0\nctxt 777\nbtime 1\n\
                    processes 42\nprocs_running 1\n";
        let expected = System {
            busy: Duration::from_millis(1600),
            stolen: Duration::from_millis(70),
            switches: 777,
            forks: 42,
        };
        assert_eq!(System::parse(text, 100.0), Some(expected));
        assert_eq!(System::parse("cpu  1 2 3\n", 100.0), None);
    }
}
