//! What a process gives up for good, with all that it starts: privileges of programs that it executes, system calls
//! (seccomp(2)), and what lies outside of it (landlock(7)).
//!
//! Nothing here can be taken back, and a child has what its parent has. So what is the same for all children costs
//! them nothing. The rules of Landlock, down to what an old kernel knows of them, are of the crate landlock. Elsewhere than
//! on Linux there is nothing to give up.

mod filter;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// Executed programs get no privileges by their file (prctl(2), `PR_SET_NO_NEW_PRIVS`).
///
/// # Errors
///
/// As prctl(2).
pub fn refuse_new_privileges() -> io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::thread::set_no_new_privs(true)?;
    Ok(())
}

/// Whether this process may be confined at all: prctl(2) can be forbidden by a filter.
pub fn may_be_confined() -> bool {
    #[cfg(target_os = "linux")]
    return rustix::thread::no_new_privs().is_ok();
    #[cfg(not(target_os = "linux"))]
    return false;
}

/// Other processes of this user can't look into this one, nor into its children (prctl(2), `PR_SET_DUMPABLE`).
///
/// # Errors
///
/// As prctl(2).
pub fn hide_memory() -> io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// In a child: its user may look into it again, if that can be had.
pub fn show_memory() {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable);
}

/// A landlock(7) domain that processes can enter.
#[derive(Debug)]
pub struct Domain(OwnedFd);

impl Domain {
    /// Its number, for a child to close.
    pub fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// The same with a lower number, if one is free: a child closes numbers side by side by one call.
    #[must_use]
    pub fn lowered(self) -> Self {
        match self.0.try_clone() {
            Ok(copy) if copy.as_raw_fd() < self.descriptor() => Self(copy),
            _ => self,
        }
    }
}

/// What is left to a process in a domain.
#[derive(Debug, Default)]
pub struct Scope {
    /// It reads what lies below these directories.
    pub reads: Vec<OwnedFd>,
    /// It changes what lies below these.
    pub writes: Vec<OwnedFd>,
    /// It connects by TCP.
    pub connects: bool,
    /// It sends to Unix sockets with an abstract name.
    pub sends_to_abstract: bool,
}

pub use filter::{Filter, Refused, filters_calls};
pub use system::{has_all_rules, landlock_version};

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod system {
    use std::os::fd::AsFd;

    use landlock::{
        ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset,
        RulesetAttr, RulesetCreated, RulesetCreatedAttr,
    };

    use super::{AsRawFd, Domain, OwnedFd, Scope, io};

    /// The newest rules that are asked for: signals and abstract sockets.
    const NEWEST: ABI = ABI::V6;

    fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
        io::Error::other(error)
    }

    /// The error of the system call that a crate's error is made of.
    fn cause_of(error: landlock::RulesetError) -> io::Error {
        let first: &(dyn std::error::Error + 'static) = &error;
        let mut causes = std::iter::successors(Some(first), |error| error.source());
        let errno = causes.find_map(|error| error.downcast_ref::<io::Error>()?.raw_os_error());
        errno.map_or_else(|| other(error.to_string()), io::Error::from_raw_os_error)
    }

    impl Scope {
        /// The domain, as far as the kernel has such rules; `None` where it has none.
        ///
        /// # Errors
        ///
        /// As landlock_create_ruleset(2) and landlock_add_rule(2).
        pub fn domain(&self) -> io::Result<Option<Domain>> {
            let all = AccessFs::from_all(NEWEST);
            let read = AccessFs::ReadFile | AccessFs::ReadDir;
            let net = if self.connects { AccessNet::BindTcp.into() } else { AccessNet::from_all(NEWEST) };
            let scope = match self.sends_to_abstract {
                true => landlock::Scope::Signal.into(),
                false => landlock::Scope::from_all(NEWEST),
            };
            let rules = rules(CompatLevel::BestEffort, net, scope).map_err(cause_of)?;
            let beneath = |(directory, access)| Ok(PathBeneath::new(directory, access));
            let reads = self.reads.iter().map(|directory| (directory.as_fd(), read));
            let writes = self.writes.iter().map(|directory| (directory.as_fd(), all & !AccessFs::Execute));
            let rules = rules.add_rules(reads.chain(writes).map(beneath)).map_err(cause_of)?;
            Ok(Option::<OwnedFd>::from(rules).map(Domain))
        }
    }

    /// Rules about all access to files, this one to the network, and these processes and sockets.
    fn rules(
        level: CompatLevel,
        net: BitFlags<AccessNet>,
        scope: BitFlags<landlock::Scope>,
    ) -> Result<RulesetCreated, landlock::RulesetError> {
        Ruleset::default()
            .set_compatibility(level)
            .handle_access(AccessFs::from_all(NEWEST))
            .and_then(|rules| rules.handle_access(net))
            .and_then(|rules| rules.scope(scope))
            .and_then(Ruleset::create)
    }

    impl Domain {
        /// Has this process, its threads to come and its children be in the domain.
        ///
        /// # Errors
        ///
        /// As landlock_restrict_self(2).
        #[inline(always)]
        pub fn enter(&self) -> io::Result<()> {
            let enter = || {
                let ruleset = self.0.as_raw_fd() as usize;
                // SAFETY: the call takes a descriptor and flags, and touches no memory.
                unsafe { crate::raw::syscall4(libc::SYS_landlock_restrict_self, ruleset, 0, 0, 0) }
                    .map(|_| ())
            };
            match enter() {
                // a process that can gain privileges may not
                Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                    super::refuse_new_privileges()?;
                    enter()
                }
                entered => entered,
            }
        }
    }

    /// Which version of Landlock the kernel has; `None`: it has none, or this process may not use it.
    pub fn landlock_version() -> Option<u32> {
        /// `LANDLOCK_CREATE_RULESET_VERSION` of linux/landlock.h.
        const VERSION: usize = 1;
        // SAFETY: with this flag the call takes no rules and makes nothing; it returns a number.
        let version = unsafe { crate::raw::syscall4(libc::SYS_landlock_create_ruleset, 0, 0, VERSION, 0) };
        version.ok()?.try_into().ok()
    }

    /// Whether the kernel has all rules for domains that are asked for.
    pub fn has_all_rules() -> bool {
        let (net, scope) = (AccessNet::from_all(NEWEST), landlock::Scope::from_all(NEWEST));
        rules(CompatLevel::HardRequirement, net, scope).is_ok()
    }
}

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
mod system {
    use super::{Domain, Scope, io};

    impl Scope {
        /// There are no domains here.
        pub fn domain(&self) -> io::Result<Option<Domain>> {
            Ok(None)
        }
    }

    impl Domain {
        /// Does nothing.
        pub fn enter(&self) -> io::Result<()> {
            Ok(())
        }
    }

    /// There is none.
    pub fn landlock_version() -> Option<u32> {
        None
    }

    /// There are no rules.
    pub fn has_all_rules() -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs it in a thread, which alone is confined then.
    fn confined<T: Send>(work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| scope.spawn(work).join().expect("no panic"))
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_domain_leaves_what_lies_below_its_directories() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = |name: &str| dir.path().join(name).join("file");
        for name in ["mine", "other"] {
            std::fs::create_dir(dir.path().join(name)).expect("a directory");
            std::fs::write(file(name), "x").expect("a file");
        }
        let mine = std::fs::File::open(dir.path().join("mine")).expect("open").into();
        let Some(domain) = Scope { reads: vec![mine], ..Scope::default() }.domain().expect("a domain") else {
            return;
        };
        confined(|| {
            domain.enter().expect("entered");
            assert_eq!(std::fs::read_to_string(file("mine")).expect("read"), "x");
            assert!(std::fs::read(file("other")).is_err() && std::fs::write(file("mine"), "y").is_err());
        });
        assert!(std::fs::read(file("other")).is_ok());
    }
}
