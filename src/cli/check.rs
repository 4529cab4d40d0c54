//! `forkd check`: says what `forkd serve` would do, without doing it.
//!
//! Invariant: what is printed is a configuration file that means the same as the given options, and nothing
//! that it names is missing here, as far as that can be seen from outside of its root directory.

use std::io::{self, IsTerminal};

use super::args::ServeArgs;
use super::here;
use super::serve::stay_with_manager;
use super::terminal::write;
use crate::daemon::privileges::Privileges;
use crate::{Error, foreign, sys};

/// Resolves the configuration and prints it as TOML to standard output.
///
/// # Errors
///
/// Those of [`Config::resolve`](crate::config::Config::resolve),
/// [`Builtin::service`](crate::service::Builtin::service), [`Exec::check`](crate::service::Exec::check) and
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
    }
    let text = config.to_toml()?;
    // what a file gets has to mean the same
    let shown = if io::stdout().is_terminal() { foreign::lines(&text) } else { text.as_str().into() };
    write(&shown).map(|_| ())
}
