//! The exec service: a program has the connection as its standard input and output, as under inetd(8)
//! and tcpserver(1).
//!
//! Invariant: the program doesn't outlive its connection's end on both sides, nor the process that
//! serves it; what it has left in the background when it ends by itself is its own affair.

mod accompany;
mod environment;

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;

use rustix::fs::{Access, access};

use accompany::accompany;

use super::{Handler, Service};
use crate::sys::calls::{Purpose, first_forbidden};
use crate::sys::holders::others_have;
use crate::sys::program::Program;
use crate::transport::Connection;
use crate::{Error, Failure};

/// What a client takes: the connection, three copies of it, and a pipe while the program starts; later there are fewer.
const DESCRIPTORS: usize = 6;

/// Runs a program for each connection, which is its standard input and output.
///
/// # The program
///
/// It is looked for as execvp(3) does, and gets the same arguments for every client. Standard error,
/// current directory and umask are the server's. Limits, and which signals are ignored or blocked, are those that
/// the server was started with. No other descriptors are open, and it leads a process group of its own.
///
/// # Its environment
///
/// That of the server (`--user` sets `USER`, `LOGNAME`, `HOME` and `SHELL` as login(1) does), and what is known of the
/// client, in the words of ucspi-tcp, ucspi-unix and systemd.
/// Names are not looked up, so `TCPREMOTEHOST`, `REMOTE_HOST` and the like are never set.
///
/// | | |
/// |---|---|
/// | `PROTO` | `TCP` or `UNIX` |
/// | `TCPREMOTEIP`, `TCPREMOTEPORT`, `REMOTE_ADDR`, `REMOTE_PORT` | the client's address and port |
/// | `TCPLOCALIP`, `TCPLOCALPORT`, `LOCAL_ADDR`, `LOCAL_PORT` | ours, as the client has it |
/// | `UNIXREMOTEPID`, `UNIXREMOTEEUID`, `UNIXREMOTEEGID` | the client's process, where the system tells |
/// | `UNIXLOCALPATH` | the socket file |
///
/// # Its end
///
/// When the program ends, the server ends the connection: the client is told the end, what it still sends is discarded
/// for at most 2 s, and the connection is closed, so that unread input doesn't cost it the answer. A process that is left
/// in the background and has the connection keeps it: the server closes its own copy, and the client sees the end when
/// the last process has closed it. Under fork, on Linux, the child that serves adopts what the program leaves, and knows
/// of all of it; else only of what has stayed in the program's process group.
///
/// When the connection has ended on both sides, by a reset or by closing, the program and its process group
/// get SIGTERM, and SIGKILL when the program has ended, or after 5 s. A client that has only finished
/// sending may still want an answer, so it is waited for. Of a TCP client on the same machine, Linux knows within a
/// second whether it has closed its connection (sock_diag(7)); of another, keep-alive probes find out when its system
/// has forgotten the connection, mostly a minute after the close. Other systems than Linux tell of no such end by
/// themselves; there the program finds it out when it reads or writes.
///
/// When a signal ends the process that serves, as at a stop, the group ends, too, by SIGTERM and then
/// SIGKILL. Of a SIGKILL to that process only the program itself dies (on Linux and FreeBSD).
///
/// A program that dies of a signal of its own counts as `failed`; what it exits with is its own affair.
///
/// How many bytes were carried is known at the end, and only of TCP connections on Linux. An idle time-out
/// can't be watched over, and a datagram is no connection: a server with either refuses to start.
///
/// # Examples
///
/// A service in one line of shell:
///
/// ```no_run
/// use forkd::{Server, service::Exec};
/// let hello = Exec::new(["sh", "-c", "read name; echo Hello, $name, from $REMOTE_ADDR"]);
/// Server::bind("tcp://127.0.0.1:7007")?.serve_forever(hello)?;
/// # Ok::<(), forkd::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exec {
    words: Arc<[OsString]>,
}

impl Exec {
    /// Runs the first of these words with the others as its arguments.
    #[must_use]
    pub fn new(words: impl IntoIterator<Item: Into<OsString>>) -> Self {
        Self { words: words.into_iter().map(Into::into).collect() }
    }

    /// Looks whether the program is there.
    ///
    /// ```
    /// use forkd::service::Exec;
    /// assert!(Exec::new(["sh"]).check().is_ok());
    /// let error = Exec::new(["/nowhere/to/be/found"]).check().unwrap_err();
    /// assert_eq!(error.to_string(), "cannot run /nowhere/to/be/found");
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] if there is none, [`Error::Permission`] if it may not be executed.
    pub fn check(&self) -> Result<(), Error> {
        let cannot = |cause| Error::from_io(format!("cannot run {}", self.name()), cause);
        let program = self.program();
        if program.is_empty() || program.as_encoded_bytes().contains(&b'/') {
            return runnable(Path::new(program)).map_err(cannot);
        }
        // as execvp(3): one that is there and may not be executed doesn't end the search
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
        let mut tries = std::env::split_paths(&path).map(|directory| runnable(&directory.join(program)));
        let mut why = None;
        let is_found = tries.any(|tried| match tried {
            Ok(()) => true,
            Err(error) => {
                if error.kind() == io::ErrorKind::PermissionDenied {
                    why = Some(error);
                }
                false
            }
        });
        match (is_found, why) {
            (true, _) => Ok(()),
            (false, Some(error)) => Err(cannot(error)),
            (false, None) => {
                let what = format!("cannot run {}, which is in no directory of PATH", self.name());
                Err(Error::Unavailable(Failure::from(what)))
            }
        }
    }

    fn program(&self) -> &OsStr {
        self.words.first().map(OsString::as_os_str).unwrap_or_default()
    }

    fn name(&self) -> std::path::Display<'_> {
        Path::new(self.program()).display()
    }

    fn command(&self, connection: &Connection<'_>, socket: &OwnedFd) -> io::Result<Command> {
        let mut command = Command::new(self.program());
        command.args(self.words.iter().skip(1));
        for (name, value) in environment::of(connection, socket) {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.stdin(socket.try_clone()?).stdout(socket.try_clone()?).stderr(Stdio::inherit());
        Ok(command)
    }

    /// What it makes of the program's end.
    fn conclude(&self, status: ExitStatus) -> io::Result<()> {
        match status.signal() {
            // whoever writes to a client that has gone dies of SIGPIPE
            None | Some(libc::SIGPIPE) => Ok(()),
            Some(_) => Err(io::Error::other(format!("{} was killed: {status}", self.name()))),
        }
    }
}

/// Whether the file could be executed, by its kind and its mode.
fn runnable(path: &Path) -> io::Result<()> {
    if std::fs::metadata(path)?.is_dir() {
        return Err(io::Error::from_raw_os_error(libc::EACCES));
    }
    Ok(access(path, Access::EXEC_OK)?)
}

impl Handler for Exec {
    fn handle(&mut self, connection: &mut Connection<'_>) -> io::Result<()> {
        let socket = connection.hand_over()?;
        let mut program = Program::start(&mut self.command(connection, &socket)?)
            // its kind would say something of the client's
            .map_err(|error| io::Error::other(format!("cannot run {}: {error}", self.name())))?;
        let is_client_gone = accompany(&program, connection, &socket)?;
        let status = program.wait()?;
        connection.count_carried();
        if !program.is_survived() || !others_have(&socket, program.id()) {
            connection.take_back();
        }
        log::debug!(peer:% = connection.peer(), status:% = status, is_client_gone; "program ended");
        if is_client_gone { Ok(()) } else { self.conclude(status) }
    }
}

/// A program and its client are waited for at once.
fn check_system() -> Result<(), Error> {
    first_forbidden(&[Purpose::Poll])
        .map_or(Ok(()), |(call, cause)| Err(Error::forbidden("cannot run programs", call, "", cause)))
}

impl From<Exec> for Service {
    fn from(exec: Exec) -> Self {
        let program = exec.clone();
        Self::handler("exec", move || exec.clone())
            .handing_over(move || program.check().and_then(|()| check_system()))
            .taking(DESCRIPTORS)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_program_is_looked_for_as_execvp_does() {
        assert!(Exec::new(["sh"]).check().is_ok());
        assert!(Exec::new(["/bin/sh"]).check().is_ok());
        for (program, code, sentence) in [
            ("no-such-program", 69, "cannot run no-such-program, which is in no directory of PATH"),
            ("/no/such/program", 69, "cannot run /no/such/program: No such file or directory (os error 2)"),
            ("/", 77, "cannot run /: Permission denied (os error 13)"),
            ("", 69, "cannot run : "),
        ] {
            let error = Exec::new([program]).check().unwrap_err();
            assert_eq!(error.exit_code(), code, "{program}");
            assert!(error.sentence().starts_with(sentence), "{}", error.sentence());
        }
        assert_eq!(Exec::new([""; 0]).check().unwrap_err().exit_code(), 69);
    }

    #[test]
    fn a_file_that_may_not_be_executed_is_no_program() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(Exec::new([file.path()]).check().unwrap_err().exit_code(), 77);
    }

    #[test]
    fn a_datagram_is_not_handed_over() {
        let send = &mut |_: &[u8]| panic!("an answer");
        let traffic = crate::transport::Traffic::default();
        let site = crate::Site::nowhere();
        let connection = Connection::datagram(b"x", crate::Peer::None, &traffic, &site);
        let answered = Service::from(Exec::new(["cat"])).answer(b"x", connection, send).unwrap_err();
        assert_eq!(answered.kind(), io::ErrorKind::Unsupported);
    }
}
