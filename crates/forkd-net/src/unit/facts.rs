//! What this process can find out about the unit that it runs in.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use super::mounts::Mounts;
use forkd_sys::namespace::network_of;
use forkd_sys::procfs;

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
    /// Whether it is in a network without links, and not in that of the service manager.
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
            has_own_network: is_in_another_network().unwrap_or_default()
                && !has_links(&text(c"/proc/self/net/route"), &text(c"/proc/self/net/if_inet6")),
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

/// systemd connects the standard streams to the journal before it gives the process a network of its own.
fn is_in_another_network() -> Option<bool> {
    let managers = network_of(io::stderr()).or_else(|| network_of(io::stdout()))?;
    Some(managers != network_of(UnixDatagram::unbound().ok()?)?)
}

/// Whether there is a way out of this machine or to another network on it, by the routes of IPv4 and the addresses of IPv6.
/// One that `NetworkNamespacePath=` names may have one.
fn has_links(routes: &str, addresses: &str) -> bool {
    // behind a heading, the interface comes first, and last in the other file
    let interfaces = routes.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    interfaces
        .chain(addresses.lines().filter_map(|line| line.split_whitespace().last()))
        .any(|name| name != "lo")
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
    fn a_network_with_links_is_not_a_unit_s_own() {
        let heading = "Iface\tDestination\tGateway\n";
        let loopback = "00000000000000000000000000000001 01 80 10 80       lo\n";
        assert!(!has_links("", "") && !has_links(heading, loopback));
        assert!(has_links(&format!("{heading}eth0\t00000000\t010011AC\n"), ""));
        assert!(has_links(
            heading,
            &format!("{loopback}fe800000000000000042acfffe110002 02 40 20 80     veth0\n")
        ));
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
