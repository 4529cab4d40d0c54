//! What this process can find out about the unit that it runs in.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use super::mounts::Mounts;
use crate::sys::namespace::network_of;
use crate::sys::procfs;

/// What of a unit shows in its processes.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) is_root: bool,
    /// The first directory of `RuntimeDirectory=`.
    pub(super) runtime_directory: Option<PathBuf>,
    pub(super) mounts: Mounts,
    pub(super) capabilities: Capabilities,
    /// The lowest port that needs no right: ip(7).
    pub(super) first_free_port: u16,
    /// Whether system calls are filtered.
    pub(super) is_filtered: bool,
    /// Whether it is in a user namespace of its own.
    pub(super) has_own_users: bool,
    /// Whether it is in another network than the one that has made its standard error, which is the service manager's.
    pub(super) has_own_network: bool,
}

/// Capabilities, as bits: capabilities(7).
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Capabilities {
    pub(super) effective: u64,
    pub(super) bounding: u64,
}

impl Facts {
    /// Looks at this process, which is a unit's.
    pub(super) fn look() -> Self {
        let text = |path| procfs::read(path).unwrap_or_default();
        let directories = std::env::var_os("RUNTIME_DIRECTORY").unwrap_or_default();
        let status = text(c"/proc/self/status");
        let users = text(c"/proc/self/uid_map");
        Self {
            is_root: rustix::process::geteuid().is_root(),
            runtime_directory: std::env::split_paths(&directories).find(|path| path.is_absolute()),
            mounts: Mounts::parse(&text(c"/proc/self/mountinfo")),
            capabilities: Capabilities::of(&status),
            // ProcSubset=pid hides it
            first_free_port: text(c"/proc/sys/net/ipv4/ip_unprivileged_port_start")
                .trim()
                .parse()
                .unwrap_or(1024),
            is_filtered: field(&status, "Seccomp:") == Some("2"),
            // user_namespaces(7): the first one has all numbers
            has_own_users: !users.split_whitespace().eq(["0", "0", "4294967295"]),
            has_own_network: has_own_network().unwrap_or_default(),
        }
    }
}

impl Capabilities {
    /// As `/proc/self/status` has them.
    pub(super) fn of(status: &str) -> Self {
        let bits = |name| {
            field(status, name).and_then(|bits| u64::from_str_radix(bits, 16).ok()).unwrap_or_default()
        };
        Self { effective: bits("CapEff:"), bounding: bits("CapBnd:") }
    }
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// systemd connects standard error to the journal before it gives the process a network of its own.
fn has_own_network() -> Option<bool> {
    Some(network_of(io::stderr())? != network_of(UnixDatagram::unbound().ok()?)?)
}

/// Where a path leads, as far as that is there and may be found out.
pub(super) fn real(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let there = path.ancestors().find_map(|part| Some((part, part.canonicalize().ok()?)));
    match there.and_then(|(part, real)| Some((path.strip_prefix(part).ok()?, real))) {
        Some((rest, real)) if rest.as_os_str().is_empty() => real,
        Some((rest, real)) => real.join(rest),
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read() {
        let status =
            "Name:\tforkd\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000400\nCapBnd:\t000001ffffffffff\n";
        let capabilities = Capabilities::of(status);
        assert_eq!((capabilities.effective, capabilities.bounding), (1 << 10, (1 << 41) - 1));
        assert_eq!(Capabilities::of("").bounding, 0);
    }

    #[test]
    fn a_path_is_followed_as_far_as_it_goes() {
        let room = tempfile::tempdir().unwrap();
        let at = |name: &str| room.path().canonicalize().unwrap().join(name);
        std::fs::create_dir(at("there")).unwrap();
        std::os::unix::fs::symlink("there", at("link")).unwrap();
        assert_eq!(real(&at("link")), at("there"));
        assert_eq!(real(&at("link/no/file")), at("there/no/file"));
        assert_eq!(real(Path::new("/no/file")), Path::new("/no/file"));
    }
}
