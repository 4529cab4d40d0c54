//! Which setting of a systemd unit forbids what this process has tried, and what to write instead.
//!
//! systemd confines a unit by means of the kernel, so what it forbids fails as other things do: "permission denied",
//! "read-only file system". Here what was tried, the error, and what can be seen of the unit are turned into the name of
//! a setting (systemd.exec(5)).
//!
//! Invariant: a setting is said to forbid something only where a fact shows that it does; where other causes fail in
//! the same way, the sentence says "may". Of a process that is no unit's, nothing is said.

mod facts;
mod mounts;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use facts::{Facts, real};
use mounts::Mount;

/// What was tried.
#[derive(Debug, Clone, Copy)]
pub enum Attempt<'a> {
    /// To read the file or directory with this path.
    Read(&'a Path),
    /// To make a file or a socket file with this path.
    Make(&'a Path),
    /// To execute this one of the files that a program consists of: itself, its interpreter, its loader.
    Execute {
        /// The one that is not executed.
        file: &'a Path,
        /// All of them.
        files: &'a [PathBuf],
    },
    /// To bind a TCP address, or if `datagrams` one of UDP.
    Bind {
        /// The address.
        address: SocketAddr,
        /// Whether for UDP.
        datagrams: bool,
    },
    /// To connect to the service manager.
    ReachManager,
    /// To have getent(1) look a name up, as a static program must.
    #[cfg(any(test, all(target_env = "gnu", target_feature = "crt-static")))]
    LookUp,
    /// To become another user or group.
    ChangeUser,
    /// To change the root directory.
    ChangeRoot,
}

/// Whether systemd has started this program for a unit; decided by the process that asks first, which is the master.
pub fn is_one() -> bool {
    static IS_ONE: OnceLock<bool> = OnceLock::new();
    let processes = [std::process::id(), std::os::unix::process::parent_id()];
    *IS_ONE.get_or_init(|| is_started_by_systemd(|name| std::env::var(name).ok(), &processes))
}

/// `INVOCATION_ID` alone is handed down, also to the shells of a desktop, whose terminal is a unit. So the process that
/// systemd has started must be one of these, as far as it says which (systemd.exec(5), since version 248).
fn is_started_by_systemd(variable: impl Fn(&str) -> Option<String>, processes: &[u32]) -> bool {
    let started = variable("SYSTEMD_EXEC_PID");
    variable("INVOCATION_ID").is_some()
        && started.is_none_or(|pid| pid.parse().is_ok_and(|pid| processes.contains(&pid)))
}

/// What systemd calls this run of the unit, which all its processes have in common (systemd.exec(5)).
pub fn invocation() -> Option<String> {
    std::env::var("INVOCATION_ID").ok()
}

/// Which setting of the unit that this process runs in forbids it, and the way out; to follow the error in a sentence.
pub fn hint(attempt: Attempt<'_>, error: &io::Error) -> Option<String> {
    let facts = is_one().then(Facts::look)?;
    let errno = error.raw_os_error();
    match attempt {
        Attempt::Read(path) => advice(Attempt::Read(&real(path)), errno, &facts),
        Attempt::Make(path) => advice(Attempt::Make(&real(path)), errno, &facts),
        Attempt::Execute { file, files } => {
            let files: Vec<PathBuf> = files.iter().map(|file| real(file)).collect();
            advice(Attempt::Execute { file: &real(file), files: &files }, errno, &facts)
        }
        attempt => advice(attempt, errno, &facts),
    }
}

/// Why only processes of the unit that this one runs in reach what it has bound, if that is so: a socket file with this
/// path, or an address.
pub fn seclusion(path: Option<&Path>) -> Option<String> {
    secluded(path.map(real).as_deref(), &is_one().then(Facts::look)?)
}

fn secluded(path: Option<&Path>, facts: &Facts) -> Option<String> {
    if let Some(path) = path {
        let tmp = facts.mounts.of(path).filter(|mount| mount.is_private())?.point.display();
        let way_out = make_elsewhere(facts);
        return Some(format!(
            "PrivateTmp= gives this unit its own {tmp}, which others do not see: {way_out}"
        ));
    }
    facts.has_own_network.then(|| {
        "PrivateNetwork= gives this unit its own network, which others do not reach: let its .socket unit listen, or set \
         PrivateNetwork=no, as bind.conf does"
            .into()
    })
}

/// The same of paths without links, for a unit of which this is known.
fn advice(attempt: Attempt<'_>, errno: Option<i32>, facts: &Facts) -> Option<String> {
    match attempt {
        Attempt::Read(path) => of_reading(path, errno?, facts),
        Attempt::Make(path) => of_making(path, errno?, facts),
        Attempt::Execute { file, files } => of_executing(file, files, errno?, facts),
        Attempt::Bind { address, datagrams } => of_binding(address, datagrams, errno?, facts),
        Attempt::ReachManager => lacks_unix_sockets(errno?, facts),
        #[cfg(any(test, all(target_env = "gnu", target_feature = "crt-static")))]
        Attempt::LookUp => forbids_exec(Path::new(GETENT), facts).then(|| {
            "NoExecPaths= forbids this unit to execute that: write an address".into()
        }),
        Attempt::ChangeUser => of_changing_user(errno?, facts),
        Attempt::ChangeRoot if facts.is_root => {
            let instead = "let RootDirectory= change the root instead";
            lacks(&[("CAP_SYS_CHROOT", 18)], facts, instead)
                .or_else(|| may_be_filtered("chroot", errno?, facts, instead))
        }
        Attempt::ChangeRoot => {
            Some("User= or DynamicUser= of this unit is not root: leave `chroot` out, or let RootDirectory= change the root".into())
        }
    }
}

/// Where it is on all systems that have it.
#[cfg(any(test, all(target_env = "gnu", target_feature = "crt-static")))]
const GETENT: &str = "/usr/bin/getent";

/// What `ProtectHome=` hides.
fn is_home(point: &Path) -> bool {
    ["/home", "/root", "/run/user"].iter().any(|home| point == Path::new(home))
}

/// Which setting keeps a unit from seeing what is there in truth.
fn hides(mount: &Mount) -> Option<String> {
    let (point, is_home) = (mount.point.display(), is_home(&mount.point));
    match mount.is_inaccessible() {
        true if is_home => Some(format!("ProtectHome= hides {point} from this unit")),
        true => Some(format!("InaccessiblePaths= hides {point} from this unit")),
        // this machine may have it in memory
        false if is_home && mount.is_in_memory() => {
            Some(format!("ProtectHome=tmpfs may hide {point} from this unit"))
        }
        false => None,
    }
}

fn of_reading(path: &Path, errno: i32, facts: &Facts) -> Option<String> {
    of_hiding(path, errno, facts).or_else(|| {
        (errno == libc::EACCES && !facts.is_root).then(|| {
            "the user of this unit (User=, DynamicUser=) has no right to it: let all users read it (chmod a+r) and search \
             the directories on the way (chmod a+x)"
                .into()
        })
    })
}

/// Why what is there is not there for this unit.
fn of_hiding(path: &Path, errno: i32, facts: &Facts) -> Option<String> {
    let mount = facts.mounts.of(path)?;
    if let Some(hides) = hides(mount) {
        let or = if is_home(&mount.point) { ", or show it to this unit, as home.conf does" } else { "" };
        return Some(format!("{hides}: put it elsewhere, such as below /srv{or}"));
    }
    (errno == libc::ENOENT && mount.is_private()).then(|| {
        let point = mount.point.display();
        format!(
            "PrivateTmp= gives this unit its own {point}, without the files of others: put it elsewhere, such as below /srv"
        )
    })
}

fn lacks_unix_sockets(errno: i32, facts: &Facts) -> Option<String> {
    (errno == libc::EAFNOSUPPORT && facts.is_filtered)
        .then(|| "RestrictAddressFamilies= of this unit leaves AF_UNIX out: add it".into())
}

fn of_making(path: &Path, errno: i32, facts: &Facts) -> Option<String> {
    let lacking = lacks_unix_sockets(errno, facts);
    if lacking.is_some() {
        return lacking;
    }
    if facts.runtime_directory.as_ref().is_some_and(|directory| path.starts_with(directory)) {
        return None;
    }
    let directory = path.parent().unwrap_or(path).display();
    let mount = facts.mounts.of(path);
    let why = match (errno, mount) {
        (libc::EACCES | libc::ENOENT | libc::EROFS, Some(mount)) if hides(mount).is_some() => hides(mount)?,
        (libc::EROFS, Some(mount)) if is_home(&mount.point) => {
            format!("ProtectHome= lets this unit only read {}", mount.point.display())
        }
        (libc::EROFS, _) => format!("ProtectSystem= or ReadOnlyPaths= lets this unit only read {directory}"),
        (libc::EACCES, _) if !facts.is_root => {
            format!("the user of this unit (User=, DynamicUser=) has no right to write to {directory}")
        }
        (libc::ENOENT, _) => format!("this unit sees no directory {directory}"),
        _ => return None,
    };
    Some(format!("{why}: {}", make_elsewhere(facts)))
}

/// Where a unit may make files.
fn make_elsewhere(facts: &Facts) -> String {
    match &facts.runtime_directory {
        Some(directory) => {
            format!("choose a path in {}, its RuntimeDirectory=", directory.display())
        }
        None => "set RuntimeDirectory=NAME, and choose a path in /run/NAME".into(),
    }
}

fn forbids_exec(path: &Path, facts: &Facts) -> bool {
    facts.mounts.of(path).is_some_and(|mount| mount.forbids_exec)
}

/// All that is lacking is named at once: with one of them alone, the next would be forbidden.
fn of_executing(file: &Path, files: &[PathBuf], errno: i32, facts: &Facts) -> Option<String> {
    let hidden = of_hiding(file, errno, facts);
    if hidden.is_some() || errno != libc::EACCES || !forbids_exec(file, facts) {
        return hidden;
    }
    let mut forbidden: Vec<String> = Vec::new();
    for file in files.iter().filter(|file| forbids_exec(file, facts)) {
        let file = library_directory(file).unwrap_or(file).display().to_string();
        if !forbidden.contains(&file) {
            forbidden.push(file);
        }
    }
    let forbidden = forbidden.join(" ");
    Some(format!("NoExecPaths= forbids this unit to execute that: add ExecPaths={forbidden}"))
}

/// The directory of a loader, such as `ld-linux.so.2`, with libraries that the program needs as well.
fn library_directory(file: &Path) -> Option<&Path> {
    let begins = |path: &Path, with: &[u8]| {
        path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(with))
    };
    let directories = file.parent().filter(|_| begins(file, b"ld"))?.ancestors();
    directories.filter(|directory| begins(directory, b"lib")).last()
}

fn of_binding(address: SocketAddr, datagrams: bool, errno: i32, facts: &Facts) -> Option<String> {
    const CAP_NET_BIND_SERVICE: u64 = 1 << 10;
    let listen = if datagrams { "ListenDatagram" } else { "ListenStream" };
    let takes_a_right = (1..facts.first_free_port).contains(&address.port());
    let (family, name) = if address.is_ipv4() { ("AF_INET", "ipv4") } else { ("AF_INET6", "ipv6") };
    let why = match errno {
        libc::EAFNOSUPPORT if facts.is_filtered => {
            format!("RestrictAddressFamilies= of this unit leaves {family} out")
        }
        libc::EACCES if !takes_a_right => return None,
        libc::EACCES if facts.capabilities.effective & CAP_NET_BIND_SERVICE != 0 => {
            return facts.has_own_users.then(|| {
                "PrivateUsers= has the capabilities of this unit count in its own user namespace alone: set \
                 PrivateUsers=no, as bind.conf does"
                    .into()
            });
        }
        libc::EACCES if facts.capabilities.bounding & CAP_NET_BIND_SERVICE == 0 => {
            "CapabilityBoundingSet= of this unit leaves CAP_NET_BIND_SERVICE out".into()
        }
        libc::EACCES => "AmbientCapabilities= of this unit leaves CAP_NET_BIND_SERVICE out".into(),
        libc::EPERM => {
            let (protocol, port) = (if datagrams { "udp" } else { "tcp" }, address.port());
            return Some(format!(
                "SocketBindDeny= of this unit may forbid it: add SocketBindAllow={name}:{protocol}:{port}"
            ));
        }
        libc::EADDRNOTAVAIL if facts.has_own_network => {
            "PrivateNetwork= gives this unit its own network, with no address but those of lo".into()
        }
        _ => return None,
    };
    Some(format!(
        "{why}: let its .socket unit listen there ({listen}={address}), or allow it, as bind.conf does"
    ))
}

fn of_changing_user(errno: i32, facts: &Facts) -> Option<String> {
    let instead = "let User= choose the user instead";
    if !facts.is_root {
        return Some(
            "User= or DynamicUser= of this unit has chosen its user: leave `user` and `group` out".into(),
        );
    }
    lacks(&[("CAP_SETGID", 6), ("CAP_SETUID", 7)], facts, instead).or_else(|| match facts.has_own_users {
        true => Some(format!("PrivateUsers= leaves this unit no users but root and its own: {instead}")),
        false => may_be_filtered("@setuid", errno, facts, instead),
    })
}

fn may_be_filtered(calls: &str, errno: i32, facts: &Facts, instead: &str) -> Option<String> {
    (errno == libc::EPERM && facts.is_filtered)
        .then(|| format!("SystemCallFilter= of this unit may forbid it: add {calls}, or {instead}"))
}

/// Which of these capabilities, each with its number, a unit of root's lacks.
fn lacks(needed: &[(&str, u32)], facts: &Facts, instead: &str) -> Option<String> {
    let missing: Vec<&str> = needed
        .iter()
        .filter(|(_, number)| facts.capabilities.effective & (1 << number) == 0)
        .map(|(name, _)| *name)
        .collect();
    let names = missing.join(" ");
    (!missing.is_empty())
        .then(|| format!("CapabilityBoundingSet= of this unit leaves {names} out: add that, or {instead}"))
}

#[cfg(test)]
mod tests;
