//! `forkd serve`: everything that can fail is tried before the daemon says that it is ready.
//!
//! The order matters: users and groups are looked up before SIGCHLD is ignored (a helper program's exit
//! code is lost then), sockets and files are opened before the root directory and the user change, and only then
//! does the process become a master. Signals are kept back until then, and what may take long looks at those
//! that ask for the end.

use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::config::options::{DaemonOptions, ListenOptions, ServeOptions};
use crate::config::service::Builtin;
use crate::config::values::LogSink;
use crate::config::{Config, default_control, default_controls};
use crate::daemon::background::{self, DEFAULT_UMASK, Launch, Notifier};
use crate::daemon::control::Control;
use crate::daemon::lines;
use crate::daemon::notify::ServiceManager;
use crate::daemon::pidfile::Pidfile;
use crate::daemon::privileges::Privileges;
use crate::daemon::source::{Configuration, Read, stop_times};
use crate::daemon::upgrade::{Letter, Upgrade, manager_variables};
use crate::sys::signal::pending_stop;
use crate::{Error, log, metrics, sys};
use forkd_net::unit;
use forkd_server::Endpoint;
use forkd_server::service::Service;
use forkd_server::supervise::Inherited;
use forkd_server::supervise::Master;
use forkd_server::supervise::{Bound, bind};

use super::succeed::succeed;
use super::{Failed, here, resolve, sources};

/// Serves until a signal ends it.
///
/// # Errors
///
/// Whatever keeps it from serving; [`Error::exit_code`] tells scripts which kind it is.
pub fn run(options: ServeOptions) -> Result<(), Failed> {
    if let Some(letter) = Letter::receive()? {
        return succeed(options, letter);
    }
    // before anything is opened, and while this is the process that LISTEN_PID names
    let inherited = Inherited::take()?;
    // a service of systemd (systemd.exec(5)) is started again for clients that wait
    let clients_wait = unit::is_one() && inherited.have_clients();
    serve_with(options, inherited).map_err(|failed| Failed { clients_wait, ..failed })
}

fn serve_with(options: ServeOptions, inherited: Inherited) -> Result<(), Failed> {
    let (here, default_endpoints) = (here(), inherited.default_endpoints());
    let started_in = here.clone();
    let sources = sources(options)?.anchored(&here);
    let config = resolve(&sources, &here, &default_endpoints)?;
    stay_with_manager(&config.daemon)?;
    let root = config.daemon.chroot.clone();
    let read = move || {
        resolve(&sources, &here, &default_endpoints)
            .map_err(|error| explain_absence(error, sources.file(), root.as_deref()))
    };
    let umask = config.daemon.umask.map(|mode| mode.0);
    if !config.daemon.daemon() {
        set_umask(umask);
        // a daemon that was told to end has done what it was told
        return Ok(serve(&config, Box::new(read), &started_in, inherited, None).map(|_| ())?);
    }
    match background::detach(umask.unwrap_or(DEFAULT_UMASK))? {
        Launch::Invoker => Ok(()),
        Launch::Daemon(notifier) => {
            let mut notifier = Some(notifier);
            let served = serve(&config, Box::new(read), &started_in, inherited, Some(&mut notifier));
            let result = served.map_err(Failed::from).and_then(|served| match served {
                Served::NotAtAll(signal) => Err(never_ready(signal)),
                Served::UntilTheEnd => Ok(()),
            });
            match (result, notifier) {
                // the invoking process says it, and ends with its code
                (Err(failed), Some(notifier)) => {
                    notifier.failed(&failed);
                    std::process::exit(failed.exit_code.into())
                }
                (result, _) => result,
            }
        }
    }
}

/// Refuses the background where a service manager expects this process, and no other, to say that it is ready: it would
/// end the daemon after a while.
pub(super) fn stay_with_manager(daemon: &DaemonOptions) -> Result<(), Error> {
    if !daemon.daemon() || std::env::var_os("NOTIFY_SOCKET").is_none() {
        return Ok(());
    }
    let why = "cannot go into the background: a service manager waits for this process to be ready (NOTIFY_SOCKET is \
               set); leave `daemon` out, or with Type=forking leave WatchdogSec= and NotifyAccess= out of the unit";
    Err(Error::Config(why.into()))
}

/// What became of a daemon that has ended as it was told.
#[derive(Debug)]
enum Served {
    UntilTheEnd,
    /// This signal came before it was ready.
    NotAtAll(Signal),
}

/// For the process that waits for a daemon in the background.
fn never_ready(signal: Signal) -> Failed {
    let why = format!("{signal} ended the daemon before it was ready");
    Failed::by_signal(signal as i32, why)
}

/// At a reload the path of the configuration file starts from the new root directory.
fn explain_absence(error: Error, file: Option<&PathBuf>, root: Option<&Path>) -> Error {
    match (error, file, root) {
        (Error::Config(why), Some(file), Some(root)) if !file.exists() => {
            Error::Config(format!("{why} (looked for below the root directory {})", root.display()))
        }
        (error, ..) => error,
    }
}

fn set_umask(umask: Option<u32>) {
    if let Some(umask) = umask {
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(umask as libc::mode_t));
    }
}

/// What can fail before this process becomes a master.
struct Opened {
    privileges: Option<Privileges>,
    source: Configuration,
    services: Vec<Service>,
    max_generations: u32,
    bound: Vec<Bound>,
}

fn serve(
    config: &Config,
    read: Read,
    here: &Path,
    mut inherited: Inherited,
    notifier: Option<&mut Option<Notifier>>,
) -> Result<Served, Error> {
    let daemon = &config.daemon;
    // An invoker may have left it ignored, and helper programs are waited for below.
    sys::signal::restore_sigchld();
    log::init(daemon.log(), daemon.log_level(), daemon.log_format())?;
    daemon.metrics.iter().for_each(|metrics| inherited.set_aside(metrics.0.clone()));
    let opened = open(config, read, &inherited);
    // what has been opened goes, with its files
    if let Some(signal) = pending_stop() {
        lines::stopped_early(signal);
        return Ok(Served::NotAtAll(signal));
    }
    let opened = opened?;
    let successor = opened.privileges.as_ref().and_then(Privileges::ids);
    let mut pidfile = daemon.pidfile.as_deref().map(|path| Pidfile::create(path, successor)).transpose()?;
    let mut master = Master::for_successors(stop_times(daemon))?;
    let result = run_master(&mut master, config, here, opened, inherited, pidfile.as_mut(), notifier);
    if let Some(pidfile) = pidfile {
        pidfile.remove();
    }
    // it can have been told to end by any of them
    result.map(|()| if master.was_ready() { Served::UntilTheEnd } else { Served::NotAtAll(Signal::SIGTERM) })
}

/// What may take long, because others are asked: a signal that asks for the end makes it fail.
fn open(config: &Config, read: Read, inherited: &Inherited) -> Result<Opened, Error> {
    let DaemonOptions { user, group, chroot, .. } = &config.daemon;
    let privileges = Privileges::look_up(user.as_deref(), group.as_deref(), chroot.as_deref())?;
    let (source, first) = Configuration::new(config, read)?;
    let services = first.listeners.iter().map(|spec| spec.service.clone()).collect();
    let bound = bind(first.listeners, &[], inherited)?;
    Ok(Opened { privileges, source, services, max_generations: first.max_generations, bound })
}

/// The control socket, if there is one.
fn control(daemon: &DaemonOptions) -> Result<Option<Control>, Error> {
    let Some(path) = &daemon.control else { return Ok(None) };
    let env = |name: &str| std::env::var_os(name);
    match Control::bind(path) {
        // it was not asked for, and another daemon may have it
        Err(error) if default_control(env).as_ref() == Some(path) => {
            lines::no_control(&error.sentence());
            Ok(None)
        }
        bound => {
            let control = bound?;
            let all = default_controls(env);
            if all.len() > 1 && all.contains(path) {
                lines::control_at(path);
            }
            Ok(Some(control))
        }
    }
}

fn run_master(
    master: &mut Master,
    config: &Config,
    here: &Path,
    opened: Opened,
    inherited: Inherited,
    mut pidfile: Option<&mut Pidfile>,
    notifier: Option<&mut Option<Notifier>>,
) -> Result<(), Error> {
    let Opened { privileges, source, services, max_generations, bound } = opened;
    let daemon = &config.daemon;
    let control = control(daemon)?;
    let metrics = daemon.metrics.as_ref().map(|metrics| metrics::bind(&metrics.0, &bound, &inherited));
    let (metrics, metrics_error) = match metrics.transpose()? {
        None => (None, None),
        Some(Ok(listeners)) => (Some(listeners), None),
        Some(Err(why)) => (None, Some(why)),
    };
    let first = bound.first().zip(config.listen.first());
    let hint = first.map(|(bound, listen)| hint(bound.listener().endpoint(), listen)).unwrap_or_default();
    if daemon.chroot.is_some() {
        master.keep_what_chroot_hides();
    }
    master.listen(bound)?;
    let pidfile_fd = pidfile.as_ref().map(|file| file.as_fd().as_raw_fd());
    master.replace_by(Upgrade::new(here, source.in_force(), pidfile_fd, manager_variables()));
    master.reload_from(Box::new(source), inherited, max_generations);
    daemon.exit_idle.iter().for_each(|limit| master.exit_when_idle(limit.0));
    // first, since systemd takes a reload for done when either says so
    master.join(ServiceManager::from_env());
    if let Some(control) = control {
        master.join(control.without_metrics(metrics_error));
    }
    if let Some(listeners) = metrics {
        master.attend(metrics::attendant(listeners, Duration::ZERO));
    }
    if let Some(privileges) = privileges {
        privileges.enter()?;
        privileges.enter_environment()?;
    }
    master.confine(daemon.sandbox(), &services)?;
    let notifier_fds = notifier.iter().filter_map(|n| n.as_ref()).flat_map(Notifier::descriptors);
    pidfile_fd.into_iter().chain(notifier_fds).for_each(|fd| master.keep_from_children(fd));
    if let Some(notifier) = notifier.iter().find_map(|n| n.as_ref()) {
        master.leave_streams(notifier.null()?);
    }
    // here and not in the library, whose caller may have a stack and a heap of another kind
    sys::pre_fork_trim::trim();
    let result = master.run(|master| {
        if let Some(pidfile) = &mut pidfile {
            pidfile.write(std::process::id())?;
        }
        // not before: a daemon that can serve no client does not listen
        master.announce();
        lines::ready(&hint, config.daemon.control.is_some());
        if daemon.daemon() && daemon.log() == LogSink::Stderr {
            lines::log_goes_dark();
        }
        sys::pre_fork_trim::trim_text();
        let Some(notifier) = notifier.and_then(Option::take) else { return Ok(()) };
        let fds = notifier.descriptors();
        let result = notifier.ready();
        fds.into_iter().for_each(|fd| master.forget(fd));
        result
    });
    if result.is_err() {
        master.abandon();
    }
    result
}

/// How to try the daemon out.
fn hint(endpoint: &Endpoint, listen: &ListenOptions) -> String {
    let reachable = |host: &str| match host {
        "0.0.0.0" => "127.0.0.1".to_owned(),
        "::" => "::1".to_owned(),
        host => host.to_owned(),
    };
    let path = |path: &Path| path.display().to_string();
    // what there is to see where no files are
    let page = if listen.root.is_some() { "" } else { "time" };
    match endpoint {
        Endpoint::Tcp { host, port } if listen.service() == Builtin::Http => {
            // as RFC 6874 has an interface
            let (host, port) = (reachable(host).replace('%', "%25"), *port);
            format!("curl http{}/{page}", Endpoint::Tcp { host, port }.to_string().trim_start_matches("tcp"))
        }
        Endpoint::Unix(file) if listen.service() == Builtin::Http => {
            format!("curl --unix-socket {} http://localhost/{page}", path(file))
        }
        Endpoint::Tcp { host, port } => format!("nc -N {} {port}", reachable(host)),
        Endpoint::Udp { host, port } => format!("nc -u {} {port}", reachable(host)),
        Endpoint::Unix(file) => format!("nc -NU {}", path(file)),
        Endpoint::Unixgram(file) => format!("nc -uU {}", path(file)),
        Endpoint::Systemd(_) => endpoint.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_can_be_pasted() {
        let hint = |service, root: Option<&str>, endpoint: &str| {
            let root = root.map(Into::into);
            let listen = ListenOptions { service: Some(service), root, ..Default::default() };
            hint(&endpoint.parse().unwrap(), &listen)
        };
        let (echo, http) = (Builtin::Echo, Builtin::Http);
        assert_eq!(hint(echo, None, "tcp://0.0.0.0:7"), "nc -N 127.0.0.1 7");
        assert_eq!(hint(echo, None, "udp://[::]:7"), "nc -u ::1 7");
        assert_eq!(hint(echo, None, "unix:///x"), "nc -NU /x");
        assert_eq!(hint(http, Some("/srv"), "tcp://[::]:80"), "curl http://[::1]:80/");
        assert_eq!(hint(http, None, "tcp://a:80"), "curl http://a:80/time");
        assert_eq!(hint(http, None, "tcp://[fe80::1%lo]:80"), "curl http://[fe80::1%25lo]:80/time");
        assert_eq!(hint(http, None, "unix:///x"), "curl --unix-socket /x http://localhost/time");
    }
}
