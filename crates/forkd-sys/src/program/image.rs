//! A forked child becomes a program.
//!
//! Invariant: the program finds what its caller would have given it (signals, limits), the sockets that are meant for it,
//! and nothing else of the process that it came from; on the portable path the end of a pipe beside, by which its parent learns
//! that it is dead, and all that it has started and that has not closed it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::Pid;

use super::{Privileges, prepare};
use crate::fd::kept_until_death;

/// The number of the first socket that a program is handed: sd_listen_fds(3), `SD_LISTEN_FDS_START`.
pub const FIRST_SOCKET: RawFd = 3;

/// The program that a child becomes, and what it finds there.
#[derive(Debug, Clone, Copy)]
pub struct Image<'a> {
    /// Its path, or a name that is looked for in `PATH`.
    pub program: &'a OsStr,
    /// Its arguments, from the first one on.
    pub arguments: &'a [OsString],
    /// What differs from the environment of this process: variables with their values; `None` takes one out. `LISTEN_PID`
    /// and `LISTEN_FDS` need not be named.
    pub environment: &'a [(OsString, Option<OsString>)],
    /// What becomes the descriptors 3, 4 and so on, in this order. Whether one blocks stays as it is.
    pub sockets: &'a [BorrowedFd<'a>],
    /// What becomes standard output and standard error; without it they stay. There is nothing to read from
    /// standard input.
    pub output: Option<BorrowedFd<'a>>,
    /// Whether it may gain privileges.
    pub privileges: Privileges,
    /// The process that has forked this one, with whose death it is killed where the system can do that (Linux, FreeBSD).
    pub parent: Pid,
}

/// Becomes a program, in a process group of its own, with the signals and the limit on descriptors that the caller of this
/// process wants; returns why that could not be. It is for a child of [`fork`](crate::fork::fork), where all signals are
/// blocked. The directory and the umask stay as they are.
///
/// After a failure the child writes the error to its standard error, which is the [output](Image::output) then if
/// there is one, and exits. It does nothing else: its descriptors may have been replaced, and signals end it as the caller wants.
///
/// # Errors
///
/// As execve(2) and dup2(2), `NotFound` also if the parent is dead, and `InvalidInput` if a text has a NUL in it.
pub fn become_program(image: Image<'_>) -> io::Error {
    let places = take_places(image.output, image.sockets);
    match places.and_then(|kept| Ok((kept, nothing()?))) {
        Ok((kept, input)) => command(&image, kept).stdin(input).exec(),
        Err(error) => error,
    }
}

/// Moves the descriptors to the numbers at which the program expects them; returns those that it is to have. They close at
/// exec still.
fn take_places(output: Option<BorrowedFd<'_>>, sockets: &[BorrowedFd<'_>]) -> io::Result<Vec<RawFd>> {
    let places: Vec<RawFd> = (FIRST_SOCKET..).take(sockets.len()).collect();
    let above = FIRST_SOCKET + sockets.len() as RawFd;
    // one may have the number that is the place of another, or of the output
    let copies: Result<Vec<_>, _> = sockets.iter().map(|socket| fcntl_dupfd_cloexec(socket, above)).collect();
    let held = kept_until_death().map(|end| fcntl_dupfd_cloexec(end, above)).transpose()?;
    if let Some(output) = output {
        rustix::stdio::dup2_stdout(output)?;
        rustix::stdio::dup2_stderr(output)?;
    }
    for (copy, &place) in copies?.iter().zip(&places) {
        // SAFETY: what was open under this number is not used any more: this process becomes another program, or ends.
        if unsafe { libc::dup2(copy.as_raw_fd(), place) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(places.into_iter().chain(held.map(IntoRawFd::into_raw_fd)).collect())
}

/// What there is nothing to read from. After a change of the root directory there may be no /dev/null.
fn nothing() -> io::Result<Stdio> {
    match std::fs::File::open("/dev/null") {
        Ok(null) => Ok(null.into()),
        // the end of a pipe that has no other one
        Err(_) => Ok(crate::fd::pipe()?.0.into()),
    }
}

fn command(image: &Image<'_>, kept: Vec<RawFd>) -> Command {
    let mut command = Command::new(image.program);
    command.args(image.arguments).process_group(0);
    for (name, value) in image.environment {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    if !image.sockets.is_empty() {
        command.env("LISTEN_PID", std::process::id().to_string());
        command.env("LISTEN_FDS", image.sockets.len().to_string());
    }
    let (parent, privileges) = (image.parent, image.privileges);
    let prepare = move || {
        prepare(parent, privileges)?;
        kept.iter().try_for_each(|&number| stay_open(number))
    };
    // SAFETY: it makes system calls only, in a process that has one thread.
    unsafe { command.pre_exec(prepare) };
    command
}

/// Has a descriptor stay open at exec.
fn stay_open(number: RawFd) -> io::Result<()> {
    // SAFETY: fcntl(2) changes a flag of the descriptor, which `take_places` has opened.
    match unsafe { libc::fcntl(number, libc::F_SETFD, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
