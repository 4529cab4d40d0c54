//! What the processes that serve clients may do besides: as little as possible, should a client ever have one of them do
//! what it wants.
//!
//! A process of a pool puts on a filter for system calls (seccomp(2)) and enters a domain (landlock(7)) when it starts. A
//! child of [`Model::Fork`](crate::model::Model::Fork) enters a domain, and has the filter of its master, where that has
//! one. A filter of its own takes half as long as its fork; it has that, and all else that a process of a pool has, where
//! the sandbox is to be strict ([`Level::Strict`]).
//!
//! | | a process of a pool; each, if strict | a child under fork |
//! |---|---|---|
//! | files, but those that the service needs | none are opened, changed or removed | the same |
//! | TCP connections and listening ports | none | the same |
//! | sockets | none are made | UDP and Unix sockets can be made |
//! | signals | to itself only | the same |
//! | other processes' memory | out of reach | the same |
//! | capabilities | none, but those to read or change files that the service needs | those of its master |
//! | programs | none are executed | the same |
//! | processes | none; threads are | can be forked, in the same domain |
//! | system calls that no server needs (io_uring, mount, bpf, keyctl and the like) | refused | refused by the filter of a master that has one |
//!
//! What the kernel does not have of it is left out, or not ([`Level`]). Signals and abstract sockets need Linux 6.12, TCP
//! Linux 6.7, files Linux 5.13.

mod calls;
mod capabilities;

use std::fs::File;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::path::PathBuf;

use crate::sys::sandbox::{Domain, Filter, Scope, filters_calls, has_all_rules, may_be_confined};
use crate::{Error, Failure};
use calls::Needs;

/// Whether processes are confined.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Level {
    /// They may do what their user may.
    #[default]
    Off,
    /// They are confined as far as the kernel can do that.
    On,
    /// All that can be had, for each: a child of [`Model::Fork`](crate::model::Model::Fork) has a filter of its own.
    /// Where the kernel can't do all of it, nothing is served.
    Strict,
}

/// What the processes that serve clients may do besides.
///
/// ```no_run
/// use forkd_server::sandbox::{Level, Sandbox};
/// use forkd_server::{Echo, Server};
///
/// let sandbox = Sandbox::from(Level::On).reads("/usr/share/zoneinfo");
/// Server::bind("tcp://127.0.0.1:7007")?.sandbox(sandbox).serve_forever(Echo)?;
/// # Ok::<(), forkd_server::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sandbox {
    level: Level,
    reads: Vec<PathBuf>,
    writes: Vec<PathBuf>,
    connects: bool,
    reconnects: bool,
}

impl From<Level> for Sandbox {
    /// Nothing but what the service itself needs.
    fn from(level: Level) -> Self {
        Self { level, ..Self::default() }
    }
}

impl Sandbox {
    /// The same, in which files below this directory can be read. It must be there when the server starts.
    ///
    /// ```
    /// use forkd_server::sandbox::{Level, Sandbox};
    /// let sandbox = Sandbox::from(Level::On).reads("/srv/data");
    /// assert_ne!(sandbox, Level::On.into());
    /// ```
    #[must_use]
    pub fn reads(mut self, directory: impl Into<PathBuf>) -> Self {
        self.reads.push(directory.into());
        self
    }

    /// The same, in which files below this directory can be made, changed and removed.
    ///
    /// ```
    /// use forkd_server::sandbox::{Level, Sandbox};
    /// let sandbox = Sandbox::from(Level::On).writes("/var/spool/mine");
    /// # let _ = sandbox;
    /// ```
    #[must_use]
    pub fn writes(mut self, directory: impl Into<PathBuf>) -> Self {
        self.writes.push(directory.into());
        self
    }

    /// The same, in which connections to others can be made.
    ///
    /// ```
    /// use forkd_server::sandbox::{Level, Sandbox};
    /// let sandbox = Sandbox::from(Level::Strict).connects();
    /// # let _ = sandbox;
    /// ```
    #[must_use]
    pub fn connects(self) -> Self {
        Self { connects: true, ..self }
    }

    /// The same, in which a socket that is there already can be connected again, such as that of a log.
    ///
    /// ```
    /// use forkd_server::sandbox::{Level, Sandbox};
    /// let sandbox = Sandbox::from(Level::On).reconnects();
    /// # let _ = sandbox;
    /// ```
    #[must_use]
    pub fn reconnects(self) -> Self {
        Self { reconnects: true, ..self }
    }

    /// Whether processes are confined.
    pub(crate) fn level(&self) -> Level {
        self.level
    }

    /// Whether it is one at all.
    pub(crate) fn is_on(&self) -> bool {
        self.level != Level::Off
    }

    /// Whether all is to be as narrow as can be.
    pub(crate) fn is_strict(&self) -> bool {
        self.level == Level::Strict
    }

    /// Makes what processes will be confined by that read below these directories for their service, and may have to answer
    /// clients with abstract names.
    pub(crate) fn prepare(
        &self,
        directories: Vec<OwnedFd>,
        sends_to_abstract: bool,
    ) -> Result<Confinement, Error> {
        if !self.level.can_confine()? {
            return Ok(Confinement::default());
        }
        let open = |paths: &[PathBuf]| {
            let open = |path: &PathBuf| {
                let cannot =
                    |cause| Error::from_io(format!("cannot open {} for the sandbox", path.display()), cause);
                File::open(path).map(OwnedFd::from).map_err(cannot)
            };
            paths.iter().map(open).collect::<Result<Vec<OwnedFd>, Error>>()
        };
        let reads = directories.into_iter().chain(open(&self.reads)?).collect::<Vec<_>>();
        let scope = Scope { reads, writes: open(&self.writes)?, connects: self.connects, sends_to_abstract };
        let domain = scope.domain().map_err(|cause| Error::os("cannot make the sandbox", cause))?;
        let needs = Needs {
            reads: !scope.reads.is_empty(),
            writes: !scope.writes.is_empty(),
            connects: self.connects,
            reconnects: self.reconnects,
        };
        drop(scope);
        let domain = domain.map(Domain::lowered);
        // Made here and not in each worker, where it would be memory of its own.
        let make = || Filter::new(calls::of_worker(needs)).map(|filter| (filter, needs));
        let filter = filters_calls().then(make).transpose();
        let filter = filter.map_err(|cause| Error::os("cannot make the sandbox", cause))?;
        Ok(Confinement { domain, filter, filters_children: self.is_strict() })
    }
}

impl Level {
    /// Whether processes are to be confined, and can be at all; refuses a kernel that can't do what is asked for.
    pub(crate) fn can_confine(self) -> Result<bool, Error> {
        let missing = match self {
            Self::Off => return Ok(false),
            Self::On => return Ok(may_be_confined()),
            Self::Strict => match self.missing() {
                Some(missing) => missing,
                None => return Ok(true),
            },
        };
        let what = format!(
            "cannot have a strict sandbox: this kernel has no {missing}, or this process may not use it; allow it, or \
             take what there is (sandbox on)"
        );
        Err(Error::Unavailable(Failure::from(what)))
    }

    /// What of it the kernel does not have, or this process may not use.
    ///
    /// ```
    /// use forkd_server::sandbox::Level;
    /// assert_eq!(Level::Off.missing(), None);
    /// if let Some(missing) = Level::Strict.missing() {
    ///     println!("no strict sandbox here: this kernel has no {missing}");
    /// }
    /// ```
    #[must_use]
    pub fn missing(self) -> Option<&'static str> {
        match self {
            Self::Off => None,
            _ if !may_be_confined() => Some("processes that gain no privileges (prctl)"),
            _ if !filters_calls() => Some("filters for system calls (seccomp)"),
            _ if !has_all_rules() => {
                Some("Landlock with rules for files, TCP and signals (version 6, which Linux 6.12 has)")
            }
            _ => None,
        }
    }
}

/// What the processes of one listener are confined by.
#[derive(Debug, Default)]
pub(crate) struct Confinement {
    domain: Option<Domain>,
    /// With what is let through.
    filter: Option<(Filter, Needs)>,
    /// A child puts it on, too.
    filters_children: bool,
}

impl Confinement {
    /// The descriptors that children close.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        self.domain.iter().map(Domain::descriptor)
    }

    /// Confines this process, which serves one client and ends.
    ///
    /// # Errors
    ///
    /// Then it must not serve.
    #[inline(always)]
    pub(crate) fn confine_child(&self) -> io::Result<()> {
        if let Some(domain) = &self.domain {
            domain.enter()?;
        }
        if self.filters_children { self.filter() } else { Ok(()) }
    }

    /// Confines this process, which serves many.
    ///
    /// # Errors
    ///
    /// Then it must not serve.
    pub(crate) fn confine_worker(&self) -> io::Result<()> {
        if let Some(domain) = &self.domain {
            domain.enter()?;
        }
        self.filter()?;
        // in case that the domain knows no signals
        match &self.filter {
            Some(_) => Filter::new(calls::of_itself(std::process::id()))?.put_on(),
            None => Ok(()),
        }
    }

    // what children run without it stays together: a page fault less for each
    #[cold]
    #[inline(never)]
    fn filter(&self) -> io::Result<()> {
        let Some((filter, needs)) = &self.filter else { return Ok(()) };
        capabilities::keep(*needs)?;
        filter.put_on()
    }
}

/// Refuses this process, and all that it starts, what no server does; takes capabilities but those for ports and files.
///
/// # Errors
///
/// As capset(2) and seccomp(2).
pub(crate) fn refuse_what_no_server_does() -> io::Result<()> {
    capabilities::keep(Needs { reads: true, writes: true, connects: true, reconnects: true })?;
    match filters_calls() {
        true => Filter::new(calls::of_master())?.put_on(),
        false => Ok(()),
    }
}
