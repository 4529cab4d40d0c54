//! `forkd serve` as the next program of a process that serves already, and the trial of that.
//!
//! The order matters: whatever can fail is tried before a descriptor of the program before this one is taken; until then
//! there is a way back. After that the master serves, and goes back by itself if the configuration can't be put in force.

use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::config::options::ServeOptions;
use crate::config::values::LogSink;
use crate::daemon::control::{CONTROL, Control, NEW_CLIENT, UPGRADE_CLIENT};
use crate::daemon::notify::ServiceManager;
use crate::daemon::pidfile::Pidfile;
use crate::daemon::source::{Configuration, stop_times};
use crate::daemon::upgrade::{Letter, Upgrade, answer_trial, manager_variables};
use crate::sys::fd::pause;
use crate::sys::signal::pending_stop;
use crate::{Error, log, metrics, sys};
use forkd_server::Endpoint;
use forkd_server::service::Service;
use forkd_server::supervise::{Listener, Master};

use super::{Failed, resolve, sources};

/// How long the program before waits until it tries again to go on.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// More descriptors than a master opens before it serves.
const MARGIN: usize = 24;

/// What can fail before anything is taken.
struct Prepared {
    config: Config,
    source: Configuration,
    services: Vec<Service>,
    max_generations: u32,
}

fn prepare(options: ServeOptions, letter: &Letter) -> Result<Prepared, Error> {
    letter.master.check()?;
    let here = letter.here.clone();
    let default_endpoints =
        if letter.master.has_inherited() { vec![Endpoint::Systemd(None)] } else { Vec::new() };
    let sources = sources(options)?.anchored(&here);
    let config = match letter.config_in_force() {
        Some(text) => Config::written(text, &here, |name| std::env::var_os(name))?,
        None => resolve(&sources, &here, &default_endpoints)?,
    };
    letter.check(&config.daemon)?;
    let read = move || resolve(&sources, &here, &default_endpoints);
    let (source, generation) = Configuration::new(&config, Box::new(read))?;
    // what the master puts in force first is what was checked here
    let source = source.beginning_with_a_reload();
    let services = generation.listeners.iter().map(|spec| spec.service.clone()).collect();
    Ok(Prepared { config, source, services, max_generations: generation.max_generations })
}

/// Says whether this program could go on.
///
/// # Errors
///
/// If that can't be said.
pub(super) fn try_out(options: ServeOptions) -> Result<(), Failed> {
    answer_trial(|letter| {
        let Prepared { config, .. } = prepare(options, letter)?;
        open_log(&config, letter)
    })
}

/// Opens the log. The program before that goes on after all does without the one that it had, if that is gone.
fn open_log(config: &Config, letter: &Letter) -> Result<(), Error> {
    let (daemon, sink) = (&config.daemon, config.daemon.log());
    match log::init(sink, daemon.log_level(), daemon.log_format()) {
        Err(_) if letter.is_way_back() && sink != LogSink::Stderr => {
            log::init(LogSink::Stderr, daemon.log_level(), daemon.log_format())
        }
        opened => opened,
    }
}

/// Goes on with what the program before this one has left.
///
/// # Errors
///
/// What ends the daemon, or keeps this process from being it: then the program before goes on.
pub(super) fn succeed(options: ServeOptions, letter: Letter) -> Result<(), Failed> {
    name_process();
    let variables = manager_variables();
    let mut manager = None;
    let prepared = loop {
        let prepared = prepare(options.clone(), &letter).and_then(|prepared| {
            require_descriptors()?;
            open_log(&prepared.config, &letter)?;
            Ok(prepared)
        });
        match prepared {
            Ok(prepared) => break prepared,
            Err(why) if !letter.is_way_back() => return Err(letter.return_unread(why).into()),
            // There is no other program. What is left of it goes on meanwhile: workers, and children with a client.
            Err(why) => {
                if let Some(signal) = pending_stop() {
                    log::caution(&format!(
                        "{signal} ends the daemon, which could not go on: {}",
                        why.sentence()
                    ));
                    letter.empty_pidfile();
                    return Ok(());
                }
                log::complain(&why.sentence());
                let manager = manager.get_or_insert_with(ServiceManager::from_env);
                manager.send_due(Instant::now(), || format!("cannot go on: {}", why.sentence()));
                pause(TRY_AGAIN);
            }
        }
    };
    let manager = manager.unwrap_or_else(ServiceManager::from_env);
    Ok(serve(prepared, &letter, manager, variables)?)
}

/// Finds out whether there are descriptors for what can't be taken back any more.
fn require_descriptors() -> Result<(), Error> {
    let (null, _other) = std::io::pipe().map_err(|cause| Error::os("cannot go on", cause))?;
    let all: std::io::Result<Vec<_>> = (0..MARGIN).map(|_| null.try_clone()).collect();
    all.map(drop).map_err(|cause| Error::os("cannot go on with so few descriptors left", cause))
}

/// A program that was executed by its descriptor is named by the number of that.
fn name_process() {
    let name = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&name).file_name().and_then(|name| CString::new(name.as_bytes()).ok());
    // it is for people, who can do without
    #[cfg(target_os = "linux")]
    let _ = name.map(|name| rustix::thread::set_name(&name));
}

fn serve(
    prepared: Prepared,
    letter: &Letter,
    manager: ServiceManager,
    variables: Vec<(OsString, OsString)>,
) -> Result<(), Error> {
    let Prepared { config, source, services, max_generations } = prepared;
    let daemon = &config.daemon;
    let cannot = |cause| {
        Error::Internal(format!("cannot go on with what the program before this one has left: {cause}"))
    };
    let (mut left, before) = letter.take_descriptors()?;
    let file = letter.pidfile.map(|number| left.remove(number)).transpose().map_err(cannot)?;
    let pidfile = daemon.pidfile.as_deref().zip(file).map(|(path, file)| Pidfile::adopt(path, file));
    let pidfile_fd = pidfile.as_ref().map(|file| file.as_fd().as_raw_fd());
    let (mut master, inherited, mut left) =
        Master::succeed(stop_times(daemon), &letter.master, left, letter.failed())?;
    let mut sockets = |name| {
        let sockets = letter.master.parts(name).map(|socket| Listener::restore(socket, &mut left));
        sockets.collect::<std::io::Result<Vec<Listener>>>().map_err(cannot)
    };
    let (control, metrics) = (sockets(CONTROL)?.pop(), sockets(metrics::NAME)?);
    let mut clients = |name| {
        let clients = letter.master.parts(name).map(|client| left.remove(client.descriptor()));
        clients.collect::<std::io::Result<Vec<_>>>().map_err(cannot)
    };
    let (waiting, new) = (clients(UPGRADE_CLIENT)?, clients(NEW_CLIENT)?);

    // what no part of this program knows is closed
    drop(left);

    let upgrade = Upgrade::new(&letter.here, source.in_force(), pidfile_fd, variables);
    let upgrade = upgrade.after(letter, before);
    master.reload_from(Box::new(source), inherited, max_generations);
    daemon.exit_idle.iter().for_each(|limit| master.exit_when_idle(limit.0));
    master.join(manager);
    if let Some(control) = control {
        master.join(Control::restore(control, waiting, new));
    }
    if !metrics.is_empty() {
        master.attend(metrics::attendant(metrics, master.uptime()));
    }
    master.confine_on_arrival(daemon.sandbox(), services)?;
    pidfile_fd.into_iter().for_each(|fd| master.keep_from_children(fd));
    master.replace_by(upgrade);
    sys::pre_fork_trim::trim();
    let result = master.run(|_| Ok(()));
    if result.is_err() {
        master.abandon();
    }
    pidfile.into_iter().for_each(Pidfile::remove);
    result
}
