//! What a process gives up for good, with all that it starts: privileges of programs that it executes, system calls
//! (seccomp(2)), and what lies outside of it (landlock(7)).
//!
//! Nothing here can be taken back, and a child has what its parent has. So what is the same for all children costs
//! them nothing. The filter is of the crate seccompiler; the rules of Landlock, down to what an old kernel knows of
//! them, of the crate landlock. Both ask the kernel; elsewhere than on Linux there is nothing to give up.

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

/// When a system call is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// Always, with EPERM.
    Always,
    /// Where the bits of the mask are all set in this argument.
    If {
        /// Its number, from 0.
        argument: u8,
        /// The bits.
        mask: u64,
    },
    /// Where none of the bits is set in this argument.
    Unless {
        /// Its number, from 0.
        argument: u8,
        /// The bit.
        bit: u64,
    },
    /// Where this argument is none of these, each of 32 bits.
    But {
        /// Its number, from 0.
        argument: u8,
        /// What it may be.
        values: Vec<u64>,
    },
    /// With ENOSYS, as by a kernel that does not have it: the C library takes the older call.
    Unknown,
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

pub use system::{Filter, filters_calls, has_all_rules};

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod system {
    use std::collections::BTreeMap;
    use std::os::fd::AsFd;

    use landlock::{
        ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset,
        RulesetAttr, RulesetCreated, RulesetCreatedAttr,
    };
    use seccompiler::{
        BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
        SeccompRule, sock_filter,
    };

    use super::{AsRawFd, Domain, OwnedFd, Refused, Scope, io};

    /// The newest rules that are asked for: signals and abstract sockets.
    const NEWEST: ABI = ABI::V6;

    /// Calls from this number on are newer than the lists (Linux 6.10); so are those of other calling conventions
    /// (x32).
    const NEW: u32 = 463;

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

    /// Refuses system calls.
    #[derive(Debug, Clone)]
    pub struct Filter(BpfProgram);

    impl Filter {
        /// Makes one; calls of which nothing is said are let through, if they are not newer than this program.
        ///
        /// # Errors
        ///
        /// If there are too many.
        pub fn new(calls: impl IntoIterator<Item = (libc::c_long, Refused)>) -> io::Result<Self> {
            let (mut refused, mut unknown) = (BTreeMap::<i64, Vec<SeccompRule>>::new(), Vec::new());
            for (number, how) in calls {
                use SeccompCmpArgLen::{Dword, Qword};
                use SeccompCmpOp::{MaskedEq, Ne};
                let condition = |argument, length, operator, value| {
                    SeccompCondition::new(argument, length, operator, value).map_err(other)
                };
                let conditions = match how {
                    Refused::Unknown => {
                        unknown.push(number as u32);
                        continue;
                    }
                    Refused::Always => {
                        refused.insert(number, Vec::new());
                        continue;
                    }
                    Refused::If { argument, mask } => vec![condition(argument, Qword, MaskedEq(mask), mask)?],
                    Refused::Unless { argument, bit } => vec![condition(argument, Qword, MaskedEq(bit), 0)?],
                    Refused::But { argument, values } => {
                        let is_other = |value| condition(argument, Dword, Ne, value);
                        values.into_iter().map(is_other).collect::<io::Result<_>>()?
                    }
                };
                let rule = SeccompRule::new(conditions).map_err(other)?;
                match refused.get_mut(&number) {
                    // it is refused whatever its arguments
                    Some(rules) if rules.is_empty() => {}
                    Some(rules) => rules.push(rule),
                    None => _ = refused.insert(number, vec![rule]),
                }
            }
            let arch = std::env::consts::ARCH.try_into().map_err(other)?;
            let no = SeccompAction::Errno(libc::EPERM as u32);
            let filter = SeccompFilter::new(refused, SeccompAction::Allow, no, arch).map_err(other)?;
            let mut program = unknown_to_the_kernel(&unknown);
            program.extend(BpfProgram::try_from(filter).map_err(other)?);
            Ok(Self(program))
        }

        /// Puts it on this process, its threads to come and its children.
        ///
        /// # Errors
        ///
        /// As seccomp(2).
        pub fn put_on(&self) -> io::Result<()> {
            seccompiler::apply_filter(&self.0).map_err(|error| match error {
                seccompiler::Error::Prctl(cause) | seccompiler::Error::Seccomp(cause) => cause,
                error => other(error),
            })
        }
    }

    /// What comes before the filter: these calls, and those that are newer than it, get ENOSYS.
    fn unknown_to_the_kernel(calls: &[u32]) -> BpfProgram {
        // linux/bpf_common.h, linux/seccomp.h
        let (load, is_equal, is_at_least, go_on, answer) = (0x20, 0x15, 0x35, 0x05, 0x06);
        let step = |code, jt, jf, k| sock_filter { code, jt, jf, k };
        // each jump leads to the answer, which is the last step, and the one before it over that
        let (last, number_of_call) = (calls.len() + 3, 0);
        let to_answer = |from: usize| (last - from - 1) as u8;
        let mut program = vec![step(load, 0, 0, number_of_call), step(is_at_least, to_answer(1), 0, NEW)];
        let each = (2..).zip(calls);
        program.extend(each.map(|(at, &call)| step(is_equal, to_answer(at), 0, call)));
        program.push(step(go_on, 0, 0, 1));
        program.push(step(answer, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32));
        program
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

    /// Whether this process may put on filters.
    pub fn filters_calls() -> bool {
        let action = libc::SECCOMP_RET_ERRNO;
        let (operation, action) = (libc::SECCOMP_GET_ACTION_AVAIL as usize, (&raw const action).addr());
        // SAFETY: the call reads four bytes at the address of a local.
        unsafe { crate::raw::syscall4(libc::SYS_seccomp, operation, 0, action, 0) }.is_ok()
    }

    /// Whether the kernel has all rules for domains that are asked for.
    pub fn has_all_rules() -> bool {
        let (net, scope) = (AccessNet::from_all(NEWEST), landlock::Scope::from_all(NEWEST));
        rules(CompatLevel::HardRequirement, net, scope).is_ok()
    }
}

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
mod system {
    use super::{Domain, Refused, Scope, io};

    /// Refuses nothing here.
    #[derive(Debug, Clone)]
    pub struct Filter(());

    impl Filter {
        /// Makes one that refuses nothing.
        pub fn new(_: impl IntoIterator<Item = (libc::c_long, Refused)>) -> io::Result<Self> {
            Ok(Self(()))
        }

        /// Does nothing.
        pub fn put_on(&self) -> io::Result<()> {
            Ok(())
        }
    }

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

    /// There are no filters.
    pub fn filters_calls() -> bool {
        false
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

    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    #[test]
    fn a_filter_refuses_by_number_and_by_argument() {
        use rustix::io::Errno;
        let calls = [
            (libc::SYS_getppid, Refused::Always),
            (libc::SYS_getpgid, Refused::But { argument: 0, values: vec![0, 0x7fff_0000] }),
            (libc::SYS_umask, Refused::If { argument: 0, mask: 0o700 }),
            (libc::SYS_getpriority, Refused::Unless { argument: 0, bit: 2 }),
            (libc::SYS_getsid, Refused::Unknown),
        ];
        let call = |number, argument| {
            // SAFETY: these calls take numbers and touch no memory.
            let answer = unsafe { crate::raw::syscall4(number, argument, 0, 0, 0) };
            answer.err().and_then(|error| Errno::from_io_error(&error))
        };
        confined(|| {
            Filter::new(calls).expect("a filter").put_on().expect("put on");
            assert_eq!(call(libc::SYS_getppid, 0), Some(Errno::PERM));
            assert_eq!((call(libc::SYS_getpgid, 0), call(libc::SYS_getpgid, 1)), (None, Some(Errno::PERM)));
            assert_eq!(
                (call(libc::SYS_umask, 0o700), call(libc::SYS_umask, 0o022)),
                (Some(Errno::PERM), None)
            );
            assert_eq!(
                (call(libc::SYS_getpriority, 0), call(libc::SYS_getpriority, 2)),
                (Some(Errno::PERM), None)
            );
            assert_eq!(call(libc::SYS_getsid, 0), Some(Errno::NOSYS));
            assert_eq!(call(500, 0), Some(Errno::NOSYS), "a call that is newer");
            assert_eq!(call(libc::SYS_getppid | 0x4000_0000, 0), Some(Errno::NOSYS), "the same by x32");
            assert_eq!(call(libc::SYS_getpid, 0), None);
        });
        assert_eq!(call(libc::SYS_getppid, 0), None);
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
