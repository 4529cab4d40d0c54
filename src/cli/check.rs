//! `forkd check`: says what `forkd serve` would do, without doing it.
//!
//! Invariant: what is printed is a configuration file that means the same as the given options, and nothing
//! that it names is missing here, as far as that can be seen from outside of its root directory.

use std::error::Error as _;
use std::io::{self, IsTerminal};
use std::path::Path;

use super::serve::stay_with_manager;
use super::terminal::write;
use super::{here, resolve, sources};
use crate::config::options::ServeOptions;
use crate::config::{Asked, Config, Sources, default_control};
use crate::daemon::pidfile;
use crate::daemon::privileges::Privileges;
use crate::doctor::diagnose;
use crate::doctor::facts::Facts;
use crate::doctor::need::Need;
use crate::{Error, foreign, sys};
use forkd_net::unit;
use forkd_server::Endpoint;
use forkd_server::model::Workers;
use forkd_server::supervise::{BindOptions, Inherited, Processors, bind_all, cannot_bind_unix};

/// Variables with the directories that belong to a service, which may write there: systemd.exec(5).
pub(super) const DIRECTORIES: [&str; 4] =
    ["RUNTIME_DIRECTORY", "STATE_DIRECTORY", "CACHE_DIRECTORY", "LOGS_DIRECTORY"];

/// The variable with the names of sockets that are handed over: sd_listen_fds(3). A check in a unit has it without them.
pub(super) const HANDED_OVER: &str = "LISTEN_FDNAMES";

/// Resolves the configuration and prints it as TOML to standard output, with what follows from it in words; or what would happen
/// to a client from this source.
///
/// # Errors
///
/// Those of [`Config::resolve`](crate::config::Config::resolve),
/// [`ListenOptions::make_service`](crate::config::options::ListenOptions::make_service),
/// [`Exec::check`](forkd_server::service::Exec::check) and
/// [`Config::to_toml`](crate::config::Config::to_toml); [`Error::Config`] for a user, group or root directory that doesn't
/// exist, or [`Error::Os`] if the output can't be written.
pub fn run(options: ServeOptions, source: Option<Asked>) -> Result<(), Error> {
    // as `Inherited::default_endpoints`
    let default_endpoints = std::env::var_os(HANDED_OVER).map(|_| Endpoint::Systemd(None));
    let sources = sources(options)?;
    let config = resolve(&sources, &here(), default_endpoints.as_slice())?;
    let daemon = &config.daemon;
    stay_with_manager(daemon)?;
    // An invoker may have left it ignored, and helper programs are waited for below.
    sys::signal::restore_sigchld();
    let privileges =
        Privileges::look_up(daemon.user.as_deref(), daemon.group.as_deref(), daemon.chroot.as_deref())?;
    let (mut notes, mut answers) = (String::new(), String::new());
    if config.listen.iter().any(|listen| listen.workers == Some(Workers::Auto)) {
        let processors = Processors::here();
        notes += &format!("# workers auto: {processors}; for datagrams {}\n", processors.for_datagrams());
    }
    for listen in &config.listen {
        notes += &listen.access_in_words()?;
        answers += &source.map_or(Ok(String::new()), |source| listen.answer(source))?;
        let service = listen.make_service(daemon.chroot.as_deref())?;
        // programs are looked for below the new root
        if daemon.chroot.is_none() {
            service.check()?;
        }
    }
    let need = Need::of(&config, sources != Sources::default(), None, None);
    notes += &diagnose(&Facts::here(), &need).comments();
    if unit::is_one() {
        try_in_unit(&config)?;
        privileges.map_or(Ok(()), |privileges| privileges.enter())?;
    }
    match source {
        Some(_) => show(&answers),
        None => show(&(config.to_toml()? + &notes)),
    }
}

/// Tries what a unit may forbid.
fn try_in_unit(config: &Config) -> Result<(), Error> {
    let daemon = &config.daemon;
    for listen in &config.listen {
        listen.endpoints.iter().try_for_each(|endpoint| try_to_bind(endpoint, listen.bind_options()))?;
    }
    if let Some(metrics) = &daemon.metrics {
        try_to_bind(&metrics.0, BindOptions::default())?;
    }
    if let Some(path) = &daemon.pidfile {
        try_to_make(path).map_err(|error| pidfile::cannot_create(path, error))?;
    }
    // a daemon goes on without the one that was not asked for
    let default = default_control(|name| std::env::var_os(name));
    match daemon.control.clone().filter(|path| Some(path) != default.as_ref()) {
        Some(path) => try_to_bind(&Endpoint::Unix(path), BindOptions::default()),
        None => Ok(()),
    }
}

/// Prints a configuration.
pub(super) fn show(text: &str) -> Result<(), Error> {
    // what a file gets has to mean the same
    let shown = if io::stdout().is_terminal() { foreign::lines(text) } else { text.into() };
    write(&shown).map(|_| ())
}

/// Binds an address for a moment, since what a unit allows shows only so. One that is taken is allowed: the service that
/// runs may have it.
fn try_to_bind(endpoint: &Endpoint, options: BindOptions) -> Result<(), Error> {
    if let Some(path) = endpoint.path() {
        return try_to_make(path).map_err(|error| cannot_bind_unix(endpoint, path, error));
    }
    if endpoint.is_inherited() {
        return Ok(());
    }
    let is_taken = |error: &Error| {
        let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
        cause.is_some_and(|cause| cause.kind() == io::ErrorKind::AddrInUse)
    };
    match bind_all(endpoint, options, &[], &Inherited::default()) {
        Err(error) if !is_taken(&error) => Err(error),
        _ => Ok(()),
    }
}

/// Finds out whether a file could be made, without a name: the service that runs may have that.
fn try_to_make(path: &Path) -> io::Result<()> {
    let path = std::path::absolute(path)?;
    let is_of_service = DIRECTORIES.iter().filter_map(std::env::var_os).any(|directories| {
        let mut directories = std::env::split_paths(&directories).filter(|directory| directory.is_absolute());
        directories.any(|directory| path.starts_with(directory))
    });
    path.parent().filter(|_| !is_of_service).map_or(Ok(()), make_without_name)
}

/// Makes a file that is gone when this returns: `O_TMPFILE`, open(2).
#[cfg(target_os = "linux")]
fn make_without_name(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    match options.write(true).mode(0o600).custom_flags(libc::O_TMPFILE).open(directory) {
        // not every file system can
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR)) => Ok(()),
        made => made.map(|_| ()),
    }
}

/// There is no systemd.
#[cfg(not(target_os = "linux"))]
fn make_without_name(_: &Path) -> io::Result<()> {
    Ok(())
}
