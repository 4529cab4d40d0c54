//! Command line, file and environment become one validated [`Config`].
//!
//! Invariant: whoever has a `Config` from [`Config::resolve`] need not check it again: every value is in
//! range, nothing contradicts itself, and what a daemon would look for from `/` has an absolute path.
//! The command line beats the file, and the file beats the defaults.

pub(crate) mod choice;
mod file;
mod layers;
mod listen;
mod lists;
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
pub(crate) use file::File;
use file::Tables;
use forkd_server::Endpoint;
use layers::{CommandLine, Conflict};
pub use listen::Listen;
use options::{DaemonOptions, ListenOptions};
pub use route::RouteText;
use values::{LogFormat, LogLevel, LogSink, MetricsEndpoint, Mode, Span};

/// Everything that forkd is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// What holds for the whole process.
    pub daemon: Daemon,
    /// What is served; never empty.
    pub listen: Vec<Listen>,
}

impl Default for Config {
    fn default() -> Self {
        Self { daemon: Daemon::default(), listen: vec![Listen::default()] }
    }
}

/// What holds for the whole process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Daemon {
    /// How long connections may go on at a stop.
    pub grace: Duration,
    /// Where log lines go.
    pub log: LogSink,
    /// The least important lines to log.
    pub log_level: LogLevel,
    /// How a line is written.
    pub log_format: LogFormat,
    /// Whether to run in the background.
    pub background: bool,
    /// The file that gets the process id.
    pub pidfile: Option<PathBuf>,
    /// The user to become, by name.
    pub user: Option<String>,
    /// The group to become, by name.
    pub group: Option<String>,
    /// The directory to make the root.
    pub chroot: Option<PathBuf>,
    /// The permission bits that new files don't get; `None` keeps the inherited ones.
    pub umask: Option<u32>,
    /// The path of the control socket; `None` means there is none.
    pub control: Option<PathBuf>,
    /// Where metrics are served; `None` means nowhere.
    pub metrics: Option<MetricsEndpoint>,
}

impl Default for Daemon {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(10),
            log: LogSink::default(),
            log_level: LogLevel::default(),
            log_format: LogFormat::default(),
            background: false,
            pidfile: None,
            user: None,
            group: None,
            chroot: None,
            umask: None,
            control: None,
            metrics: None,
        }
    }
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

impl Daemon {
    fn new(options: DaemonOptions, here: &Path, env: impl Fn(&str) -> Option<OsString>) -> Self {
        let default = Self::default();
        // in the background the current directory is /
        let anchor =
            |path: Option<PathBuf>| path.map(|path| if options.daemon { here.join(path) } else { path });
        Self {
            grace: options.grace.map_or(default.grace, |span| span.0),
            log: options.log.unwrap_or_default(),
            log_level: options.log_level.unwrap_or_default(),
            log_format: options.log_format.unwrap_or_default(),
            background: options.daemon,
            pidfile: anchor(options.pidfile),
            user: options.user,
            group: options.group,
            chroot: anchor(options.chroot),
            umask: options.umask.map(|mode| mode.0),
            control: anchor(options.control.or_else(|| default_control(env))),
            metrics: options.metrics,
        }
    }
}

impl From<&Daemon> for DaemonOptions {
    fn from(daemon: &Daemon) -> Self {
        Self {
            grace: Some(Span(daemon.grace)),
            log: Some(daemon.log),
            log_level: Some(daemon.log_level),
            log_format: Some(daemon.log_format),
            daemon: daemon.background,
            pidfile: daemon.pidfile.clone(),
            user: daemon.user.clone(),
            group: daemon.group.clone(),
            chroot: daemon.chroot.clone(),
            umask: daemon.umask.map(Mode),
            control: daemon.control.clone(),
            metrics: daemon.metrics.clone(),
        }
    }
}

impl Config {
    /// Lays the command line over the file over the defaults, and checks the result.
    ///
    /// The command line's options for endpoints apply to each `[[listen]]` table whose model and service they
    /// can have an effect on, and what they leave without effect there is passed over; endpoints on the command
    /// line replace those tables altogether. `here` is the directory that relative paths of a
    /// daemon start from; `env` looks up an environment variable. Where no endpoint is named at all, those
    /// of `default_endpoints` are served, or [`Listen`]'s own default if there are none.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] where the file is at fault, naming line and column; [`Error::Usage`] where the
    /// command line is.
    pub fn resolve(
        cli_daemon: DaemonOptions,
        cli_listen: ListenOptions,
        config_file: Option<&Path>,
        here: &Path,
        env: impl Fn(&str) -> Option<OsString>,
        default_endpoints: &[Endpoint],
    ) -> Result<Self, Error> {
        Self::merge(
            cli_daemon,
            cli_listen,
            config_file.map(File::read).transpose()?,
            here,
            env,
            default_endpoints,
        )
    }

    /// As [`resolve`](Self::resolve), of a file that has been read.
    pub(crate) fn merge(
        cli_daemon: DaemonOptions,
        cli_listen: ListenOptions,
        file: Option<File>,
        here: &Path,
        env: impl Fn(&str) -> Option<OsString>,
        default_endpoints: &[Endpoint],
    ) -> Result<Self, Error> {
        let tables = file.as_ref().map(|file| file.tables.clone()).unwrap_or_default();
        let is_free = cli_listen.endpoints.is_empty();
        let from_file = is_free && !tables.listen.is_empty();
        let groups = if from_file { tables.listen } else { vec![ListenOptions::default()] };

        let alone = groups.len() == 1;
        let mut command_line = CommandLine::new(cli_listen);
        let mut listen = Vec::with_capacity(groups.len());
        for (index, mut group) in groups.into_iter().enumerate() {
            if is_free && alone && group.endpoints.is_empty() {
                group.endpoints = default_endpoints.to_vec();
            }
            let mut options = command_line.over(group);
            // once a daemon runs, / is its current directory
            options.root = options.root.map(|root| here.join(root));
            let place = file.as_ref().filter(|_| from_file).map(|file| (file, index));
            let next = next_group(&listen, &options, alone);
            listen.push(next.map_err(|conflict| command_line.blame(&conflict, place))?);
        }
        command_line.unused().map_or(Ok(()), Err)?;
        let is_usage = cli_daemon.metrics.is_some();
        let daemon = Daemon::new(cli_daemon.over(tables.daemon), here, env);
        if daemon.background {
            listen.iter_mut().for_each(|group| group.anchor(here));
        }
        listen.iter_mut().for_each(|group| group.settings.chroot.clone_from(&daemon.chroot));
        match refuse_metrics_among_services(&daemon, &listen) {
            Err(why) if is_usage => Err(Error::Usage(format!("--{why}"))),
            Err(why) => Err(Error::Config(why)),
            Ok(()) => Ok(Self { daemon, listen }),
        }
    }

    /// Writes the configuration as a file that gives the same configuration when it is read, with every
    /// default that has a meaning under the model.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if a path is not UTF-8, which TOML can't hold.
    pub fn to_toml(&self) -> Result<String, Error> {
        let tables =
            Tables { daemon: (&self.daemon).into(), listen: self.listen.iter().map(Into::into).collect() };
        toml::to_string(&tables)
            .map_err(|error| Error::Config(format!("cannot write the configuration as TOML: {error}")))
    }
}

/// Makes a group that goes with the `earlier` ones; only one that is `alone` may leave its endpoints to
/// the default.
fn next_group(earlier: &[Listen], options: &ListenOptions, alone: bool) -> Result<Listen, Conflict> {
    let refuse = |why: String| Err(Conflict::new("endpoints", why));
    if options.endpoints.is_empty() && !alone {
        return refuse("is missing: where there are several [[listen]] tables, each needs its own".into());
    }
    let next = Listen::new(options)?;
    for (index, endpoint) in next.endpoints.iter().enumerate() {
        let before = earlier.iter().flat_map(|group| &group.endpoints).chain(&next.endpoints[..index]);
        if before.into_iter().any(|other| endpoint.collides_with(other)) {
            return refuse(format!("names {endpoint} twice, which can be bound only once; leave one out"));
        }
    }
    Ok(next)
}

/// One socket can't be for clients and for scrapers.
fn refuse_metrics_among_services(daemon: &Daemon, listen: &[Listen]) -> Result<(), String> {
    let Some(MetricsEndpoint(metrics)) = &daemon.metrics else { return Ok(()) };
    match listen.iter().flat_map(|group| &group.endpoints).find(|served| served.collides_with(metrics)) {
        None => Ok(()),
        Some(served) => Err(format!(
            "metrics names {metrics}, which {served} serves clients with already; choose another, or name the \
             endpoints to serve"
        )),
    }
}
