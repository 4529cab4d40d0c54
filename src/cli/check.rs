//! `forkd check`: says what `forkd serve` would do, without doing it.
//!
//! Invariant: what is printed is a configuration file that means the same as the given options, and nothing
//! that it names is missing here, as far as that can be seen from outside of its root directory.

use std::io::{self, IsTerminal, Write};

use super::args::ServeArgs;
use super::here;
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
    let (text, out) = (config.to_toml()?, io::stdout());
    // what a file gets has to mean the same
    if out.is_terminal() { print(&foreign::lines(&text), out.lock()) } else { print(&text, out.lock()) }
}

fn print(text: &str, mut out: impl Write) -> Result<(), Error> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // a reader such as `head` that has seen enough is no failure
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::from_io("cannot write the configuration to standard output", error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Refuses every write.
    struct Broken(io::ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_pipe_is_no_failure_and_a_full_disk_is() {
        let mut out = Vec::new();
        print("[daemon]\n", &mut out).unwrap();
        assert_eq!(out, b"[daemon]\n");
        print("x", Broken(io::ErrorKind::BrokenPipe)).unwrap();
        assert_eq!(print("x", Broken(io::ErrorKind::StorageFull)).unwrap_err().exit_code(), 71);
    }
}
