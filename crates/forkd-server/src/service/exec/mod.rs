//! The exec service: a program has the connection as its standard input and output, as under inetd(8)
//! and tcpserver(1).
//!
//! Invariant: the program doesn't outlive its connection's end on both sides, nor the process that
//! serves it; what it has left in the background when it ends by itself is its own affair.

mod accompany;
mod environment;
mod files;

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;

use rustix::fs::{Access, access};

use accompany::{First, accompany, is_gone_within};
use files::files_of;

use super::{Handler, Service};
use crate::admission::back_off;
use crate::sys::calls::{Purpose, first_forbidden};
use crate::sys::holders::others_have;
use crate::sys::program::{Privileges, Program};
use crate::transport::{Connection, TimedOut};
use crate::{Error, Failure, events};
use forkd_net::unit::{self, Attempt};

/// What a client takes: the connection, three copies of it, and a pipe while the program starts; later there are fewer.
const DESCRIPTORS: usize = 6;

/// Runs a program for each connection, which is its standard input and output.
///
/// # The program
///
/// It is looked for as execvp(3) does, and gets the same arguments for every client. Standard error,
/// current directory and umask are the server's. It gains no privileges by the set-user-ID bit or capabilities of
/// files, unless [`keep_privileges`](Exec::keep_privileges) is asked for. Limits, and which signals are ignored or blocked, are those that
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
/// When the connection has lasted too long ([`Server::max_lifetime`](crate::Server::max_lifetime)), it is shut down for
/// all processes that have it, and the program ends by the same signals. One that has ended by itself before, and has
/// left the connection to a process in the background, has ended what is watched over.
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
/// use forkd_server::{Server, service::Exec};
/// let hello = Exec::new(["sh", "-c", "read name; echo Hello, $name, from $REMOTE_ADDR"]);
/// Server::bind("tcp://127.0.0.1:7007")?.serve_forever(hello)?;
/// # Ok::<(), forkd_server::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exec {
    words: Arc<[OsString]>,
    privileges: Privileges,
}

impl Exec {
    /// Runs the first of these words with the others as its arguments.
    #[must_use]
    pub fn new(words: impl IntoIterator<Item: Into<OsString>>) -> Self {
        Self { words: words.into_iter().map(Into::into).collect(), privileges: Privileges::Drop }
    }

    /// The same, in which programs may gain privileges by the set-user-ID bit or capabilities of files, as sudo(8) does.
    ///
    /// ```
    /// use forkd_server::service::Exec;
    /// assert_ne!(Exec::new(["sudo", "-n", "true"]).keep_privileges(), Exec::new(["sudo", "-n", "true"]));
    /// ```
    #[must_use]
    pub fn keep_privileges(self) -> Self {
        Self { privileges: Privileges::Keep, ..self }
    }

    /// Looks whether the program is there, and the interpreter that its first line names or the loader of its libraries.
    ///
    /// ```
    /// use forkd_server::service::Exec;
    /// assert!(Exec::new(["sh"]).check().is_ok());
    /// let error = Exec::new(["/nowhere/to/be/found"]).check().unwrap_err();
    /// assert_eq!(error.to_string(), "cannot run /nowhere/to/be/found");
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] if there is none, [`Error::Permission`] if it may not be executed.
    pub fn check(&self) -> Result<(), Error> {
        let program = self.program();
        if program.is_empty() || program.as_encoded_bytes().contains(&b'/') {
            return self.require(Path::new(program));
        }
        // as execvp(3): one that is there and may not be executed doesn't end the search
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
        let mut why = None;
        for directory in std::env::split_paths(&path) {
            let program = directory.join(program);
            match self.require(&program) {
                Ok(()) => return Ok(()),
                Err(error @ Error::Permission(_)) => why = why.or(Some(error)),
                Err(error) if program.exists() => why = why.or(Some(error)),
                Err(_) => {}
            }
        }
        Err(why.unwrap_or_else(|| {
            let what = format!("cannot run {}, which is in no directory of PATH", self.name());
            Error::Unavailable(Failure::from(what))
        }))
    }

    /// Looks whether a file could be executed, and what the kernel executes for it.
    fn require(&self, program: &Path) -> Result<(), Error> {
        let files = files_of(program);
        let fails = |file: &PathBuf| Some((file.clone(), runnable(file).err()?));
        let Some((file, cause)) = files.iter().find_map(fails) else { return Ok(()) };
        let hint = match is_for_no_user(&file) {
            true => Some(format!("its mode lets no user execute it: chmod a+x {}", file.display())),
            false => unit::hint(Attempt::Execute { file: &file, files: &files }, &cause),
        };
        let what = match file == program {
            true => format!("cannot run {}", self.name()),
            false => format!("cannot run {}, which needs {}", self.name(), file.display()),
        };
        Err(Error::from_io(what, cause).advising(hint))
    }

    fn program(&self) -> &OsStr {
        self.words.first().map(OsString::as_os_str).unwrap_or_default()
    }

    fn name(&self) -> std::path::Display<'_> {
        Path::new(self.program()).display()
    }

    /// The kernel does not say which of the files is missing or forbidden.
    pub(super) fn why_not_started(&self, error: &io::Error) -> String {
        match self.check() {
            Err(reason) => reason.sentence(),
            Ok(()) => format!("cannot run {}: {error}{}", self.name(), events::limit_of_tasks(error)),
        }
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

    /// Starts the program. While the system refuses a process for it, the client waits, as it would wait for a child of
    /// its own.
    fn start(&self, connection: &Connection<'_>, socket: &OwnedFd) -> io::Result<Program> {
        // its kind would say something of the client's
        let cannot = |error: &io::Error| io::Error::other(self.why_not_started(error));
        let mut failures = 0;
        loop {
            let error = match Program::start(&mut self.command(connection, socket)?, self.privileges) {
                Ok(program) => return Ok(program),
                Err(error) => error,
            };
            failures += 1;
            let is_shortage = matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOMEM));
            if !is_shortage || is_gone_within(back_off(failures), connection, socket)? {
                return Err(cannot(&error));
            }
        }
    }

    /// What it makes of the program's end.
    fn conclude(&self, status: ExitStatus) -> io::Result<()> {
        match status.signal() {
            // a program that writes to a client that has gone dies of SIGPIPE
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

/// Whether it is a file whose mode lets no user execute it.
fn is_for_no_user(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 == 0)
}

impl Handler for Exec {
    fn handle(&mut self, connection: &mut Connection<'_>) -> io::Result<()> {
        let socket = connection.hand_over()?;
        let mut program = self.start(connection, &socket)?;
        let first = accompany(&program, connection, &socket)?;
        let status = program.wait()?;
        connection.count_carried();
        if !program.is_survived() || !others_have(&socket, program.id()) {
            connection.take_back();
        }
        let is_client_gone = first == First::Client;
        log::debug!(peer:% = connection.peer(), status:% = status, is_client_gone; "program ended");
        match first {
            First::Program => self.conclude(status),
            First::Client => Ok(()),
            First::Lifetime => Err(TimedOut::Lifetime.error(io::ErrorKind::TimedOut)),
        }
    }
}

/// A program and its client are waited for at once.
fn check_system() -> Result<(), Error> {
    first_forbidden(&[Purpose::Poll])
        .map_or(Ok(()), |(call, cause)| Err(Error::forbidden("cannot run programs", call, "", cause)))
}

impl From<Exec> for Service {
    fn from(exec: Exec) -> Self {
        let (program, keeps) = (exec.clone(), exec.privileges == Privileges::Keep);
        Self::handler("exec", move || exec.clone())
            .handing_over(move || program.check().and_then(|()| check_system()))
            .taking(DESCRIPTORS)
            .keeping_privileges(keeps)
    }
}

#[cfg(test)]
mod tests {
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

    /// A program that anyone may execute.
    fn program(text: &str) -> tempfile::TempPath {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        file.into_temp_path()
    }

    #[test]
    fn a_file_that_may_not_be_executed_is_no_program() {
        let file = program("");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = Exec::new([&*file]).check().unwrap_err();
        let way_out = format!("; its mode lets no user execute it: chmod a+x {}", file.display());
        assert_eq!(error.exit_code(), 77);
        assert!(error.sentence().ends_with(&way_out), "{}", error.sentence());
    }

    #[test]
    fn what_a_program_needs_is_looked_for() {
        let closed = program("");
        std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o644)).unwrap();
        for (interpreter, code, cause) in [
            ("/bin/sh", 0, ""),
            ("/no/such/interpreter", 69, ", which needs /no/such/interpreter: No such file"),
            (closed.to_str().unwrap(), 77, ": Permission denied"),
        ] {
            let checked = Exec::new([&*program(&format!("#!{interpreter} -e\n"))]).check();
            let (found, sentence) =
                checked.map_or_else(|e| (e.exit_code(), e.sentence()), |()| (0, String::new()));
            assert!(found == code && sentence.contains(cause), "{interpreter}: {sentence}");
        }
    }

    #[test]
    fn a_datagram_is_not_handed_over() {
        let send = &mut |_: &[u8]| panic!("an answer");
        static TRAFFIC: crate::transport::Traffic = crate::transport::Traffic::new();
        let server = crate::ServerInfo::nowhere();
        let connection = Connection::datagram(b"x", crate::Peer::None, &TRAFFIC, &server);
        let answered = Service::from(Exec::new(["cat"])).answer(b"x", connection, send).unwrap_err();
        assert_eq!(answered.kind(), io::ErrorKind::Unsupported);
    }
}
