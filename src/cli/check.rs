//! `forkd check`: says what `forkd serve` would do, without doing it.
//!
//! Invariant: what is printed is a configuration file that means the same as the given options, and nothing
//! that it names is missing here, as far as that can be seen from outside of its root directory.

use std::error::Error as _;
use std::io::{self, IsTerminal};

use super::args::ServeArgs;
use super::here;
use super::serve::stay_with_manager;
use super::terminal::write;
use crate::daemon::privileges::Privileges;
use crate::daemon::sockets::bind_options;
use crate::transport::bind::{BindOptions, bind_all};
use crate::transport::{Endpoint, Inherited};
use crate::{Error, foreign, sys};
use forkd_net::unit;

/// Resolves the configuration and prints it as TOML to standard output.
///
/// # Errors
///
/// Those of [`Config::resolve`](crate::config::Config::resolve),
/// [`Builtin::service`](crate::config::service::Builtin::service), [`Exec::check`](crate::service::Exec::check) and
/// [`Config::to_toml`](crate::config::Config::to_toml); [`Error::Config`] for a user, group or root directory that doesn't
/// exist, or [`Error::Os`] if the output can't be written.
pub fn run(args: ServeArgs) -> Result<(), Error> {
    let config = args.resolve(&here(), &[])?;
    let daemon = &config.daemon;
    stay_with_manager(daemon)?;
    // An invoker may have left it ignored, and helper programs are waited for below.
    sys::signal::restore_sigchld().map_err(|cause| Error::os("cannot set the action of SIGCHLD", cause))?;
    Privileges::look_up(daemon.user.as_deref(), daemon.group.as_deref(), daemon.chroot.as_deref())?;
    for listen in &config.listen {
        let service = listen.service()?;
        // programs are looked for below the new root
        if daemon.chroot.is_none() {
            service.check()?;
        }
        if unit::is_one() {
            listen.endpoints.iter().try_for_each(|endpoint| try_to_bind(endpoint, bind_options(listen)))?;
        }
    }
    show(&config.to_toml()?)
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
    if !matches!(endpoint, Endpoint::Tcp { .. } | Endpoint::Udp { .. }) {
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
