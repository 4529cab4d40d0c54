//! The command line lies over the environment, and both lie over the file.
//!
//! Invariant: an option of the command line or of the environment counts for each group that it can have an effect on,
//! and is a mistake only if there is none. What either leaves without effect below it is passed over; what has none by
//! itself is a mistake where it was given.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::definition::{Origin, Table};
use super::environment;
use super::file::File;
use super::options::{DaemonOptions, ListenOptions, ServeOptions};
use crate::Error;

/// Why a group of options makes no sense.
#[derive(Debug)]
pub(super) struct Conflict {
    /// The option at fault, which was given (`endpoints` may be missing), by its name in the source.
    pub(super) id: &'static str,
    /// Options that may be at fault instead.
    rivals: &'static [&'static str],
    /// The rest of a sentence that starts with the option. Other options stand in backquotes.
    pub(super) why: String,
}

impl Conflict {
    pub(super) fn new(id: &'static str, why: impl Into<String>) -> Self {
        Self { id, rivals: &[], why: why.into() }
    }

    /// The service, which another option may have implied, or one of these `rivals`.
    pub(super) fn of_service(why: String, rivals: &'static [&'static str]) -> Self {
        Self { id: "service", rivals, why }
    }

    /// The same about the first of these options that was given there.
    fn about(&self, options: &ListenOptions) -> Option<(&'static str, String)> {
        if options.has(self.id) {
            return Some((self.id, self.why.clone()));
        }
        let rival = self.rivals.iter().find(|id| options.has(id))?;
        Some((rival, format!("doesn't fit: the {} {}", self.id, self.why)))
    }
}

/// What is said outside of the file. It stays as it is as long as the daemon runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    command_line: ServeOptions,
    environment: ServeOptions,
}

impl Sources {
    /// Takes the command line, and what the variables of the environment say below it; and says which of these it
    /// does not know.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`], naming the variable with an impossible value.
    pub fn new(
        command_line: ServeOptions,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<(Self, Vec<String>), Error> {
        let (environment, unknown) = environment::read(variables)?;
        Ok((Self { command_line, environment }, unknown))
    }

    /// The same, whose file is found from any directory.
    #[must_use]
    pub fn anchored(mut self, here: &Path) -> Self {
        self.command_line.config = self.file().map(|path| here.join(path));
        self
    }

    /// The path of the configuration file.
    #[must_use]
    pub fn file(&self) -> Option<&PathBuf> {
        self.command_line.config.as_ref().or(self.environment.config.as_ref())
    }

    /// What holds for the whole process, as far as it is said here.
    #[must_use]
    pub fn daemon(&self) -> DaemonOptions {
        self.command_line.daemon.clone().over(self.environment.daemon.clone())
    }

    /// Whether endpoints are named here, which replace those of the file.
    pub(super) fn has_endpoints(&self) -> bool {
        [&self.command_line, &self.environment].iter().any(|source| source.listen.has("endpoints"))
    }

    /// Where an option for the whole process is said.
    pub(super) fn origin(&self, id: &str) -> Origin {
        match () {
            () if self.command_line.daemon.has(id) => Origin::CommandLine,
            () if self.environment.daemon.has(id) => Origin::Environment,
            () => Origin::File,
        }
    }

    /// Refuses what the environment says and one process for one client has no use for, as the grammar refuses it on
    /// the command line.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`], naming the variable.
    pub fn refuse_with_inetd(&self) -> Result<(), Error> {
        let ServeOptions { listen, daemon, config } = &self.environment;
        let is_given = |id: &&str| listen.has(id) || daemon.has(id) || (*id == "config" && config.is_some());
        ServeOptions::not_with_inetd().find(is_given).map_or(Ok(()), |id| {
            Err(Error::Usage(format!("{} cannot be used with --inetd", Origin::Environment.name(id))))
        })
    }
}

/// The options for endpoints, and what of them no group has taken so far.
#[derive(Debug)]
pub(super) struct Groups<'a> {
    sources: &'a Sources,
    idle: Option<Vec<Conflict>>,
}

impl<'a> Groups<'a> {
    pub(super) fn new(sources: &'a Sources) -> Self {
        Self { sources, idle: None }
    }

    /// Lays them over a group of the file.
    pub(super) fn over(&mut self, mut group: ListenOptions) -> ListenOptions {
        let mut upper = self.sources.command_line.listen.clone();
        let mut lower = self.sources.environment.listen.clone();
        let is_in = |idle: &[Conflict], id| idle.iter().any(|conflict| conflict.id == id);
        let in_group = group.without_effect();
        let in_environment = lower.clone().over(group.clone()).without_effect();
        let mut idle = upper.clone().over(lower.clone()).over(group.clone()).without_effect();
        idle.retain(|&Conflict { id, .. }| {
            let is_mistake = upper.has(id) || lower.has(id) && is_in(&in_environment, id);
            if !is_mistake && !is_in(&in_group, id) {
                group.forget(id);
            }
            upper.forget(id);
            lower.forget(id);
            is_mistake
        });
        if let Some(before) = self.idle.take() {
            idle.retain(|conflict| is_in(&before, conflict.id));
        }
        self.idle = Some(idle);
        upper.over(lower).over(group)
    }

    /// The first mistake, once they lay over every group.
    pub(super) fn unused(&self) -> Option<Error> {
        self.idle.iter().flatten().next().map(|conflict| self.blame(conflict, None))
    }

    /// Says what is at fault: the command line, the environment, or the group with this number in the file.
    pub(super) fn blame(&self, conflict: &Conflict, group: Option<(&File, usize)>) -> Error {
        let Sources { command_line, environment } = self.sources;
        let said = [(Origin::CommandLine, command_line), (Origin::Environment, environment)];
        let ours = said.into_iter().find_map(|(origin, said)| Some((origin, conflict.about(&said.listen)?)));
        let why = match (ours, group) {
            (Some((origin, (id, why))), _) if (origin, id) != (Origin::CommandLine, "endpoints") => {
                origin.spell(&format!("`{id}` {why}"))
            }
            (None, Some((file, index))) => {
                let found = conflict.about(&file.tables.listen[index]);
                let (id, why) = found.unwrap_or((conflict.id, conflict.why.clone()));
                return file.error(index, &Origin::File.name(id), &why);
            }
            _ => format!("the command line {}", Origin::CommandLine.spell(&conflict.why)),
        };
        Error::Usage(why)
    }
}
