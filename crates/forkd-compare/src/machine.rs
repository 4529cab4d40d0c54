//! On what a comparison is made.

use std::ffi::OsStr;
use std::fs;

use nix::sys::utsname::UtsName;
use rustix::process::{Resource, getrlimit};

use super::record::Machine;

/// Asks the system; the caller knows `cpu_by`.
pub(super) fn machine(cpu_by: &str) -> Machine {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let name = nix::sys::utsname::uname().ok();
    let word = |of: fn(&UtsName) -> &OsStr| name.as_ref().map(|name| of(name).to_string_lossy().into_owned());
    let word = |of| word(of).unwrap_or_else(|| "unknown".into());
    let kernel = format!("{} {}", word(UtsName::sysname), word(UtsName::release));
    Machine {
        processor: processor(&read("/proc/cpuinfo")).unwrap_or_else(|| word(UtsName::machine)),
        processors: processors(),
        memory_mib: memory_mib(&read("/proc/meminfo")).unwrap_or(0),
        kernel,
        forkd: env!("CARGO_PKG_VERSION").into(),
        cpu_by: cpu_by.into(),
        load_before: read("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()),
        // without a limit there are as many as there are numbers
        open_files: getrlimit(Resource::Nofile).maximum.unwrap_or(i32::MAX as u64),
    }
}

/// How many processors this process may use.
pub(super) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn processor(cpuinfo: &str) -> Option<String> {
    let value = |line: &str| Some(line.strip_prefix("model name")?.split_once(':')?.1.trim().to_owned());
    cpuinfo.lines().find_map(value).filter(|name| !name.is_empty())
}

fn memory_mib(meminfo: &str) -> Option<u64> {
    let kib = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(kib.split_whitespace().next()?.parse::<u64>().ok()? / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_runs_on() {
        assert_eq!(processor("processor : 0\nmodel name\t: A B  C\n"), Some("A B  C".into()));
        assert_eq!(processor("processor : 0\n"), None);
        assert_eq!(memory_mib("MemTotal:        4194304 kB\nMemFree: 1 kB\n"), Some(4096));
        let machine = machine("x");
        assert!(
            machine.processors > 0 && machine.open_files > 0 && machine.kernel.contains(' '),
            "{machine:?}"
        );
    }
}
