//! Command line, environment and file become one validated [`Config`].
//!
//! Invariant: a `Config` from [`Config::resolve`] need not be checked again: every value is in range, nothing
//! contradicts itself, what has an effect and a default has a value, and what a daemon would look for from `/` has an
//! absolute path. The command line beats the environment, which beats the file, which beats the defaults.

mod access;
pub mod choice;
pub mod definition;
mod environment;
mod file;
mod layers;
mod listen;
pub mod options;
mod route;
mod rules;
pub mod service;
#[cfg(test)]
mod tests;
pub mod values;

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Error;
pub use access::{Asked, Listed, PardonedSource};
use definition::{Origin, Table};
pub(crate) use file::File;
use file::Tables;
use forkd_server::Endpoint;
pub use layers::Sources;
use layers::{Conflict, Groups};
use options::{DaemonOptions, ListenOptions};
pub use route::RouteText;
use values::{MetricsEndpoint, Span};

/// Everything that forkd is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// What holds for the whole process.
    pub daemon: DaemonOptions,
    /// What is served; never empty.
    pub listen: Vec<ListenOptions>,
}

/// Returns where the control socket can be where no path is given: `control.sock` in each directory of
/// `RUNTIME_DIRECTORY` (systemd.exec(5)), or, if that names none, `forkd.sock` in `XDG_RUNTIME_DIR`.
#[must_use]
pub fn default_controls(env: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let in_all = |name: &str, file: &str| -> Vec<PathBuf> {
        let value = env(name).unwrap_or_default();
        let directories = env::split_paths(&value).filter(|path| path.is_absolute());
        directories.map(|path| path.join(file)).collect()
    };
    let service = in_all("RUNTIME_DIRECTORY", "control.sock");
    if service.is_empty() { in_all("XDG_RUNTIME_DIR", "forkd.sock") } else { service }
}

/// Returns the first of the [`default_controls`] whose directory is there and can be written to; where that is none,
/// the first.
#[must_use]
pub fn default_control(env: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    use nix::unistd::{AccessFlags, access};
    let usable = |path: &&PathBuf| {
        path.parent().is_some_and(|directory| {
            directory.is_dir() && access(directory, AccessFlags::W_OK | AccessFlags::X_OK).is_ok()
        })
    };
    let all = default_controls(env);
    all.iter().find(usable).or(all.first()).cloned()
}

impl DaemonOptions {
    /// Fills in the defaults.
    fn checked(self, here: &Path, env: impl Fn(&str) -> Option<OsString>) -> Self {
        let mut daemon = self.filled();
        daemon.control = daemon.control.or_else(|| default_control(env));
        if daemon.daemon() {
            // in the background the current directory is /
            let paths = [&mut daemon.pidfile, &mut daemon.chroot, &mut daemon.control];
            paths.into_iter().flatten().for_each(|path| *path = here.join(&*path));
        }
        daemon
    }
}

impl Config {
    /// Lays the `sources` over their file over the defaults, and checks the result.
    ///
    /// Their options for endpoints apply to each `[[listen]]` table whose model and service they
    /// can have an effect on, and what they leave without effect there is passed over; their endpoints
    /// replace those tables altogether. `here` is the directory that relative paths of a
    /// daemon start from; `env` looks up an environment variable. Where no endpoint is named at all, those
    /// of `default_endpoints` are served, or TCP and UDP on 127.0.0.1:7007 if there are none.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] where the file is at fault, naming line and column; [`Error::Usage`] where the
    /// command line or the environment is.
    pub fn resolve(
        sources: &Sources,
        here: &Path,
        env: impl Fn(&str) -> Option<OsString>,
        default_endpoints: &[Endpoint],
    ) -> Result<Self, Error> {
        let file = sources.file().map(|path| File::read(path)).transpose()?;
        Self::merge(sources, file, here, env, default_endpoints)
    }

    /// Reads what [`to_toml`](Self::to_toml) has written.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] where it was another program that wrote it.
    pub(crate) fn written(
        text: &str,
        here: &Path,
        env: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, Error> {
        let file = File::parse(Path::new("the configuration in force"), text.as_bytes().to_vec())?;
        Self::merge(&Sources::default(), Some(file), here, env, &[])
    }

    /// As [`resolve`](Self::resolve), of a file that has been read.
    pub(crate) fn merge(
        sources: &Sources,
        file: Option<File>,
        here: &Path,
        env: impl Fn(&str) -> Option<OsString>,
        default_endpoints: &[Endpoint],
    ) -> Result<Self, Error> {
        let tables = file.as_ref().map(|file| file.tables.clone()).unwrap_or_default();
        let is_free = !sources.has_endpoints();
        let from_file = is_free && !tables.listen.is_empty();
        let tables_or_one = if from_file { tables.listen } else { vec![ListenOptions::default()] };

        let daemon = sources.daemon().over(tables.daemon).checked(here, env);
        let alone = tables_or_one.len() == 1;
        let mut groups = Groups::new(sources);
        let mut listen = Vec::with_capacity(tables_or_one.len());
        for (index, mut group) in tables_or_one.into_iter().enumerate() {
            if is_free && alone && group.endpoints.is_empty() {
                group.endpoints = default_endpoints.to_vec();
            }
            let mut options = groups.over(group);
            options.anchor(here, daemon.daemon());
            let place = file.as_ref().filter(|_| from_file).map(|file| (file, index));
            let next = next_group(&listen, options, alone);
            listen.push(next.map_err(|conflict| groups.blame(&conflict, place))?);
        }
        groups.unused().map_or(Ok(()), Err)?;
        refuse_metrics_among_services(&daemon, &listen, sources)?;
        refuse_idle_exit(&daemon, &listen, sources)?;
        Ok(Self { daemon, listen })
    }

    /// Writes the configuration as a file that gives the same configuration when it is read, with every
    /// default that has a meaning under the model.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if a path is not UTF-8, which TOML can't hold.
    pub fn to_toml(&self) -> Result<String, Error> {
        let tables = Tables { daemon: self.daemon.clone(), listen: self.listen.clone() };
        toml::to_string(&tables)
            .map_err(|error| Error::Config(format!("cannot write the configuration as TOML: {error}")))
    }
}

/// Makes a group that goes with the `earlier` ones; only one that is `alone` may leave its endpoints to
/// the default.
fn next_group(
    earlier: &[ListenOptions],
    options: ListenOptions,
    alone: bool,
) -> Result<ListenOptions, Conflict> {
    let refuse = |why: String| Err(Conflict::new("endpoints", why));
    if options.endpoints.is_empty() && !alone {
        return refuse("is missing: where there are several [[listen]] tables, each needs its own".into());
    }
    let next = options.checked()?;
    for (index, endpoint) in next.endpoints.iter().enumerate() {
        let before = earlier.iter().flat_map(|group| &group.endpoints).chain(&next.endpoints[..index]);
        if before.into_iter().any(|other| endpoint.collides_with(other)) {
            return refuse(format!("names {endpoint} twice, which can be bound only once; leave one out"));
        }
    }
    Ok(next)
}

/// Refuses to leave a socket that goes with the daemon: no later client could have it started again.
fn refuse_idle_exit(
    daemon: &DaemonOptions,
    listen: &[ListenOptions],
    sources: &Sources,
) -> Result<(), Error> {
    let Some(Span(limit)) = daemon.exit_idle else { return Ok(()) };
    let own = listen.iter().flat_map(|group| &group.endpoints).find(|endpoint| !endpoint.is_inherited());
    let has_programs = listen.iter().any(|group| group.service().accepts_by_itself());
    let why = match own {
        _ if has_programs => "ends forkd when no client has been here, which it can't know of workers that are programs and accept \
             by themselves; leave it out"
            .to_owned(),
        _ if limit < Duration::from_millis(1) => {
            "is below 1ms; choose more, or leave it out for never".to_owned()
        }
        Some(endpoint) => format!(
            "ends forkd until a client comes to a socket that systemd keeps, and {endpoint} would be closed with forkd; \
             serve systemd:NAME from a socket unit, or leave it out"
        ),
        None => return Ok(()),
    };
    Err(about(sources, "exit_idle", &why))
}

/// Says what is wrong with an option for the whole process.
fn about(sources: &Sources, id: &str, why: &str) -> Error {
    let origin = sources.origin(id);
    let why = format!("{} {why}", origin.name(id));
    if origin == Origin::File { Error::Config(why) } else { Error::Usage(why) }
}

/// One socket can't be for clients and for scrapers.
fn refuse_metrics_among_services(
    daemon: &DaemonOptions,
    listen: &[ListenOptions],
    sources: &Sources,
) -> Result<(), Error> {
    let Some(MetricsEndpoint(metrics)) = &daemon.metrics else { return Ok(()) };
    let mut endpoints = listen.iter().flat_map(|group| &group.endpoints);
    let Some(served) = endpoints.find(|served| served.collides_with(metrics)) else { return Ok(()) };
    let why = format!(
        "names {metrics}, which {served} serves clients with already; choose another, or name the endpoints to serve"
    );
    Err(about(sources, "metrics", &why))
}
