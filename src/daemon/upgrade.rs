//! An upgrade, the program's side: what one program writes down for the next, the trial of the next, and the way back.
//!
//! The next program is started as a trial first, beside this one: it reads the configuration and what it would find, and
//! says whether it could go on. Then this process executes it. What it needs to know is a [`Letter`] in a file without a
//! name, whose descriptor [`VARIABLE`] names; it has the descriptors of all that stays open. The program before it is one
//! of them: to go back is the same way, with the reason in the letter.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::source::InForce;
use crate::config::definition::Table;
use crate::config::options::DaemonOptions;
use crate::failed::Failed;
use crate::sys::fd::set_nonblocking;
use crate::sys::handover::{LeftOpen, StayOpen, take_variable, write_letter};
use crate::sys::program::spawn_helper;
use crate::{Error, Failure, foreign};
use forkd_server::supervise::{Replacement, SavedMaster};

/// Names the descriptor of the letter.
const VARIABLE: &str = "FORKD_UPGRADE";

/// The format of a letter that this program writes. A field that is new in a format has a default, and one that a format no
/// longer has is passed over: so a program reads the formats before and after its own, as far as they say so. Tests upgrade to a
/// build with the next format, and back.
const FORMAT: u32 = if cfg!(forkd_next) { 2 } else { 1 };
/// The oldest format that this program reads.
const OLDEST_FORMAT: u32 = 1;

/// More than a letter about as many children as there can be has.
const LONGEST_LETTER: u64 = 256 << 20;

/// How long a trial may take: it may ask name servers.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// More than a trial has to say.
const LONGEST_OUTCOME: usize = 64 << 10;

/// The argument after `serve` by which a trial is told from a daemon; a program that is none refuses it.
pub(crate) const TRIAL: &str = "--trial";

/// What a service manager tells by the environment, and [`ServiceManager`](super::notify::ServiceManager) takes out of it.
const OF_THE_MANAGER: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// What one program writes down for the next.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Letter {
    format: u32,
    /// The oldest format whose reader understands it.
    #[serde(default)]
    oldest_reader: u32,
    /// The version of the program that writes.
    version: String,
    pub(crate) master: SavedMaster,
    /// Where relative paths start.
    pub(crate) here: PathBuf,
    /// Where the next program is.
    path: PathBuf,
    /// The options that only a restart changes, by their keys.
    settings: BTreeMap<String, serde_json::Value>,
    /// The configuration in force, for the program that wrote it.
    config: String,
    #[serde(default)]
    pub(crate) pidfile: Option<RawFd>,
    /// The program that writes, and the one that reads, if that was open.
    #[serde(default)]
    program: Option<RawFd>,
    #[serde(default)]
    reader: Option<RawFd>,
    /// Why the program after the one that reads could not go on.
    #[serde(default)]
    failed: Option<Refusal>,
    #[cfg(forkd_next)]
    #[serde(default)]
    new_in_the_next_format: Option<u32>,
}

/// Why a program can't go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Refusal {
    exit_code: u8,
    why: String,
}

impl From<&Error> for Refusal {
    fn from(error: &Error) -> Self {
        Self { exit_code: error.exit_code(), why: error.sentence() }
    }
}

impl From<Refusal> for Error {
    /// The kind of error that ends a program with this code.
    fn from(Refusal { exit_code, why }: Refusal) -> Self {
        match exit_code {
            64 | 78 => Self::Config(why),
            71 => Self::Os(why.into()),
            73 => Self::CannotCreate(why.into()),
            77 => Self::Permission(why.into()),
            70 => Self::Internal(why),
            _ => Self::Unavailable(why.into()),
        }
    }
}

/// What a trial says, in one line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    /// It could go on; its version.
    Could {
        version: String,
    },
    Refused(Refusal),
}

/// The options that only a restart changes.
fn fixed_settings(daemon: &DaemonOptions) -> BTreeMap<String, serde_json::Value> {
    let all = serde_json::to_value(daemon).unwrap_or_default();
    let fixed = DaemonOptions::DEFINITIONS.iter().filter(|option| !option.reload).map(|option| option.key());
    fixed.map(|key| (key.clone(), all.get(&key).cloned().unwrap_or_default())).collect()
}

impl Letter {
    /// The letter of the program before this one, if this process has executed it.
    ///
    /// # Errors
    ///
    /// [`Error::Internal`] where there should be one, and none can be read.
    pub(crate) fn receive() -> Result<Option<Self>, Error> {
        let cannot =
            |cause: io::Error| Error::Internal(format!("cannot read what {VARIABLE} names: {cause}"));
        let Some(number) = take_variable(VARIABLE).map_err(cannot)? else { return Ok(None) };
        let number = number.to_str().and_then(|text| text.parse::<RawFd>().ok());
        let number = number.ok_or_else(|| cannot(io::ErrorKind::InvalidInput.into()))?;
        let letter = LeftOpen::take([number]).and_then(|mut left| left.remove(number)).map_err(cannot)?;
        Self::read(File::from(letter)).map(Some)
    }

    fn read(from: impl Read) -> Result<Self, Error> {
        let unreadable = |why: &dyn std::fmt::Display| {
            Error::Internal(format!("cannot read what the program before this one has written: {why}"))
        };
        let bytes = foreign::read(from, LONGEST_LETTER).map_err(|error| unreadable(&error))?;
        #[derive(Deserialize)]
        struct Head {
            format: u32,
            #[serde(default)]
            oldest_reader: u32,
        }
        let head: Head = serde_json::from_slice(&bytes).map_err(|error| unreadable(&error))?;
        if head.oldest_reader > FORMAT || head.format < OLDEST_FORMAT {
            let (format, version) = (head.format, env!("CARGO_PKG_VERSION"));
            return Err(Error::Unavailable(Failure::from(format!(
                "forkd {version} does not understand format {format} of an upgrade, but {OLDEST_FORMAT} to {FORMAT}: restart \
                 the daemon instead"
            ))));
        }
        serde_json::from_slice(&bytes).map_err(|error| unreadable(&error))
    }

    /// Refuses a configuration that this process can't get without a restart.
    pub(crate) fn check(&self, next: &DaemonOptions) -> Result<(), Error> {
        let mut settings = fixed_settings(next).into_iter();
        // one that the program before this one does not know has no value there
        match settings.find(|(key, value)| self.settings.get(key).is_some_and(|before| before != value)) {
            None => Ok(()),
            Some((key, _)) => Err(Error::Config(format!(
                "{key} is another one in the configuration, which needs a restart; neither an upgrade nor a reload can change it"
            ))),
        }
    }

    /// Whether it is this program that has written it, and goes on after all.
    pub(crate) fn is_way_back(&self) -> bool {
        self.failed.is_some()
    }

    /// The configuration in force, if it is this program that has written it and goes on after all.
    pub(crate) fn config_in_force(&self) -> Option<&str> {
        self.is_way_back().then_some(&*self.config)
    }

    /// No daemon follows: what names its process is emptied.
    pub(crate) fn empty_pidfile(&self) {
        let file =
            self.pidfile.map(|number| LeftOpen::take([number]).and_then(|mut left| left.remove(number)));
        let _ = file.map(|file| file.and_then(|file| File::from(file).set_len(0)));
    }

    /// Why the program after this one could not go on, if this is that way.
    pub(crate) fn failed(&self) -> Option<Error> {
        self.failed.clone().map(Error::from)
    }

    /// Takes over the descriptors; and with them the program before this one, to go back to.
    pub(crate) fn take_descriptors(&self) -> Result<(LeftOpen, Option<OwnedFd>), Error> {
        let cannot =
            |cause| Error::os("cannot take over what the program before this one has left open", cause);
        let own = self.pidfile.into_iter().chain(self.program).chain(self.reader);
        let mut left = LeftOpen::take(self.master.descriptors().into_iter().chain(own)).map_err(cannot)?;
        let program = self.program.map(|number| left.remove(number)).transpose().map_err(cannot)?;
        Ok((left, program))
    }

    /// Goes back to the program before this one, which has left all open, and nothing of it has been taken. Returns only
    /// why that failed, or `why` where there is no way back.
    pub(crate) fn return_unread(self, why: Error) -> Error {
        let Some(program) = self.program.filter(|_| self.failed.is_none()) else { return why };
        let letter = Self { failed: Some(Refusal::from(&why)), program: None, reader: Some(program), ..self };
        letter.send(|arguments, environment| {
            let path = PathBuf::from(format!("/proc/self/fd/{program}"));
            execute(&path, arguments, environment)
        })
    }

    /// Executes the next program with this letter. Returns only why that failed.
    fn send(&self, execute: impl FnOnce(Vec<OsString>, Vec<(OsString, OsString)>) -> io::Error) -> Error {
        let cannot = |cause| Error::os("cannot write down what the next program needs", cause);
        let text = match serde_json::to_vec(self) {
            Ok(text) => text,
            Err(error) => return cannot(io::Error::other(error)),
        };
        let written =
            write_letter(&text).and_then(|letter| Ok((StayOpen::new([letter.as_raw_fd()])?, letter)));
        let (_stay, letter) = match written {
            Ok(written) => written,
            Err(error) => return cannot(error),
        };
        let own = (VARIABLE.into(), letter.as_raw_fd().to_string().into());
        let environment = env::vars_os().chain([own]).collect();
        Error::os("cannot execute the next program", execute(env::args_os().collect(), environment))
    }
}

/// Executes a program: execve(2). Returns only why that failed.
fn execute(program: &Path, arguments: Vec<OsString>, environment: Vec<(OsString, OsString)>) -> io::Error {
    let text = |bytes: Vec<u8>| CString::new(bytes).map_err(io::Error::other);
    let variables =
        environment.into_iter().map(|(name, value)| [name.into_vec(), value.into_vec()].join(&b'='));
    let all = || -> io::Result<_> {
        let program = text(program.as_os_str().as_bytes().to_vec())?;
        let arguments = arguments
            .into_iter()
            .map(|argument| text(argument.into_vec()))
            .collect::<io::Result<Vec<_>>>()?;
        Ok((program, arguments, variables.map(text).collect::<io::Result<Vec<_>>>()?))
    };
    match all() {
        Ok((program, arguments, variables)) => match nix::unistd::execve(&program, &arguments, &variables) {
            Ok(never) => match never {},
            Err(errno) => errno.into(),
        },
        Err(error) => error,
    }
}

/// In a trial: says on standard output whether this program could go on with what the letter on standard input tells of.
pub(crate) fn answer_trial(check: impl FnOnce(&Letter) -> Result<(), Error>) -> Result<(), Failed> {
    let tried = Letter::read(io::stdin().lock()).and_then(|letter| check(&letter));
    let outcome = match &tried {
        Ok(()) => Outcome::Could { version: env!("CARGO_PKG_VERSION").to_owned() },
        Err(error) => Outcome::Refused(error.into()),
    };
    let line = serde_json::to_string(&outcome).unwrap_or_default();
    let said = writeln!(io::stdout(), "{line}");
    said.map_err(|cause| Failed::from(Error::os("cannot say how the trial went", cause)))
}

/// What the environment says of the service manager, before that is taken out.
pub(crate) fn manager_variables() -> Vec<(OsString, OsString)> {
    OF_THE_MANAGER.iter().filter_map(|name| Some(((*name).into(), env::var_os(name)?))).collect()
}

/// The program that may replace this one.
#[derive(Debug)]
pub(crate) struct Upgrade {
    /// Where it is, as this one was called.
    path: PathBuf,
    here: PathBuf,
    in_force: Rc<RefCell<InForce>>,
    pidfile: Option<RawFd>,
    manager: Vec<(OsString, OsString)>,
    /// The next program.
    next: Option<Next>,
    /// The program before this one, until this one has arrived, and the configuration that it had in force.
    before: Option<(OwnedFd, String)>,
    trial: Option<Trial>,
}

/// The next program: what is tried is what is executed.
#[derive(Debug)]
struct Next {
    file: OwnedFd,
    /// For people.
    name: String,
}

/// A trial of another program.
#[derive(Debug)]
struct Trial {
    /// Its process group.
    group: i32,
    output: File,
    said: Vec<u8>,
    until: Instant,
}

impl Upgrade {
    /// `here` is where relative paths start.
    pub(crate) fn new(
        here: &Path,
        in_force: Rc<RefCell<InForce>>,
        pidfile: Option<RawFd>,
        manager: Vec<(OsString, OsString)>,
    ) -> Self {
        Self {
            path: program(here),
            here: here.to_owned(),
            in_force,
            pidfile,
            manager,
            next: None,
            before: None,
            trial: None,
        }
    }

    /// The same, in a program that has got this letter from the one `before`.
    pub(crate) fn after(self, letter: &Letter, before: Option<OwnedFd>) -> Self {
        // where this one is may have another name by now
        Self {
            path: letter.path.clone(),
            before: before.map(|before| (before, letter.config.clone())),
            ..self
        }
    }

    fn letter(&self, master: &SavedMaster) -> Result<Letter, Error> {
        let in_force = self.in_force.borrow();
        Ok(Letter {
            format: FORMAT,
            oldest_reader: OLDEST_FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            master: master.clone(),
            here: self.here.clone(),
            path: self.path.clone(),
            settings: fixed_settings(&in_force.config.daemon),
            config: in_force.config.to_toml()?,
            pidfile: self.pidfile,
            program: None,
            reader: None,
            failed: None,
            #[cfg(forkd_next)]
            new_in_the_next_format: Some(2),
        })
    }

    fn start_trial(&self, letter: &Letter, now: Instant) -> io::Result<Trial> {
        let text = serde_json::to_vec(letter).map_err(io::Error::other)?;
        let letter = write_letter(&text)?;
        let (output, input) = io::pipe()?;
        set_nonblocking(&output, true)?;
        let mut arguments = env::args_os();
        let name = arguments.next().unwrap_or_default();
        let mut arguments: Vec<OsString> = arguments.collect();
        let serve = arguments.iter().position(|argument| argument == "serve").map_or(0, |at| at + 1);
        arguments.insert(serve, TRIAL.into());
        let next = &self.next.as_ref().ok_or(io::ErrorKind::NotFound)?.file;
        // a script is read by its number
        let _stay = StayOpen::new([next.as_raw_fd()])?;
        let mut command = Command::new(by_descriptor(next));
        command.process_group(0).arg0(name).args(arguments).current_dir("/");
        command.stdin(Stdio::from(letter)).stdout(input.try_clone()?).stderr(input);
        let child = spawn_helper(&mut command)?;
        let group = child.id().cast_signed();
        // it is reaped by the kernel
        drop((child, command));
        Ok(Trial {
            group,
            output: File::from(OwnedFd::from(output)),
            said: Vec::new(),
            until: now + TRIAL_TIMEOUT,
        })
    }

    /// Ends a trial that has not said all: something has its output open still, so that its process group is no other's.
    fn abandon_trial(&mut self) {
        if let Some(mut trial) = self.trial.take()
            && !trial.read()
        {
            let _ = killpg(Pid::from_raw(trial.group), Signal::SIGKILL);
        }
    }

    fn refused(&self, why: &str) -> Error {
        let name = self.next.as_ref().map_or("the program", |next| &*next.name);
        Error::Unavailable(Failure::from(format!("{name} {why}")))
    }

    /// Opens what is where this program was.
    fn at_path(&self) -> Result<Next, Error> {
        let name = self.path.display().to_string();
        match File::open(&self.path) {
            Ok(file) => Ok(Next { file: file.into(), name }),
            Err(cause) => Err(Error::from_io(format!("cannot open the program {name}"), cause)),
        }
    }

    /// How a trial went that has said all.
    fn outcome(&self, said: &[u8]) -> Result<(), Error> {
        let text = String::from_utf8_lossy(said);
        match text.lines().rev().find_map(|line| serde_json::from_str(line).ok()) {
            Some(Outcome::Could { .. }) => Ok(()),
            Some(Outcome::Refused(refusal)) => Err(Error::from(refusal)),
            None => {
                let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("nothing").trim();
                Err(self.refused(&format!(
                    "ended in its trial, or is no forkd that can take over; it said: {first}"
                )))
            }
        }
    }
}

impl Replacement for Upgrade {
    fn begin_trial(
        &mut self,
        program: Option<OwnedFd>,
        master: &SavedMaster,
        now: Instant,
    ) -> Result<(), Error> {
        if let Some(root) = &self.in_force.borrow().config.daemon.chroot {
            return Err(Error::Config(format!(
                "the next program is out of reach, as the root directory has been changed to {} (chroot): restart the daemon \
                 instead",
                root.display()
            )));
        }
        let next = match program {
            Some(file) => Next { file, name: "the program".into() },
            None => self.at_path()?,
        };
        require_trust(&next)?;
        self.next = Some(next);
        let letter = self.letter(master)?;
        let trial = self.start_trial(&letter, now);
        self.trial = Some(trial.map_err(|cause| {
            let name = self.next.as_ref().map_or("the program", |next| &*next.name);
            Error::from_io(format!("cannot start {name} for a trial"), cause)
        })?);
        Ok(())
    }

    fn trial(&self) -> Option<BorrowedFd<'_>> {
        self.trial.as_ref().map(|trial| trial.output.as_fd())
    }

    fn deadline(&self) -> Option<Instant> {
        self.trial.as_ref().map(|trial| trial.until)
    }

    fn take_outcome(&mut self, now: Instant) -> Option<Result<(), Error>> {
        let trial = self.trial.as_mut()?;
        let is_over = trial.read();
        if !is_over && now < trial.until {
            return None;
        }
        let said = std::mem::take(&mut trial.said);
        if is_over {
            self.trial = None;
            return Some(self.outcome(&said));
        }
        self.abandon_trial();
        let limit = humantime::format_duration(TRIAL_TIMEOUT);
        Some(Err(self.refused(&format!("did not say within {limit} whether it could take over"))))
    }

    fn execute(&mut self, master: &SavedMaster) -> Error {
        let Some(next) = &self.next else { return self.refused("is not open") };
        // not to be read, which its user need not be allowed to
        let program = match OpenOptions::new().read(true).custom_flags(libc::O_PATH).open("/proc/self/exe") {
            Ok(program) => program,
            Err(cause) => return Error::os("cannot keep this program open, to go back to", cause),
        };
        let letter = match self.letter(master) {
            Ok(letter) => {
                let reader = Some(next.file.as_raw_fd());
                Letter { program: Some(program.as_raw_fd()), reader, ..letter }
            }
            Err(why) => return why,
        };
        let own = self.pidfile.into_iter().chain([program.as_raw_fd()]).chain(letter.reader);
        let _stay = match StayOpen::new(own) {
            Ok(stay) => stay,
            Err(cause) => return Error::os("cannot keep descriptors open", cause),
        };
        letter.send(|arguments, environment| {
            execute(
                &by_descriptor(&next.file),
                arguments,
                environment.into_iter().chain(self.manager.clone()).collect(),
            )
        })
    }

    fn descriptors(&self) -> Vec<RawFd> {
        let before = self.before.iter().map(|(before, _)| before.as_raw_fd());
        let next = self.next.iter().map(|next| next.file.as_raw_fd());
        before.chain(next).chain(self.trial.iter().map(|trial| trial.output.as_raw_fd())).collect()
    }

    fn abandon(&mut self) {
        self.abandon_trial();
        self.next = None;
    }

    fn arrive(&mut self) {
        self.before = None;
    }

    fn go_back(&mut self, master: &SavedMaster, why: &Error) -> Error {
        let Some((before, config)) = self.before.take() else {
            return Error::Internal(format!("there is no program to go back to; {}", why.sentence()));
        };
        let letter = match self.letter(master) {
            Ok(letter) => {
                Letter { failed: Some(why.into()), config, reader: Some(before.as_raw_fd()), ..letter }
            }
            Err(why) => return why,
        };
        let own = self.pidfile.into_iter().chain([before.as_raw_fd()]);
        let _stay = match StayOpen::new(own) {
            Ok(stay) => stay,
            Err(cause) => return Error::os("cannot keep descriptors open", cause),
        };
        letter.send(|arguments, environment| {
            execute(
                &by_descriptor(&before),
                arguments,
                environment.into_iter().chain(self.manager.clone()).collect(),
            )
        })
    }
}

impl Trial {
    /// Reads what it says; tells whether it has said all.
    fn read(&mut self) -> bool {
        let mut chunk = [0; 4096];
        loop {
            match self.output.read(&mut chunk) {
                Ok(0) => return true,
                Ok(n) => self.said.extend_from_slice(&chunk[..n]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
            }
            // of one that has more to say the first part must do
            self.said.truncate(LONGEST_OUTCOME);
        }
    }
}

/// A path that leads to what is open.
fn by_descriptor(open: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()))
}

/// Refuses a program that others may have written: a process that serves clients can connect to the control socket, should a
/// client ever have it do what it wants, and would be rid of its sandbox.
fn require_trust(program: &Next) -> Result<(), Error> {
    let Next { file, name } = program;
    let cannot = |cause| Error::os(format!("cannot find out what {name} is"), cause);
    let own = Path::new("/proc/self/exe").metadata().map_err(cannot)?;
    let file = file.try_clone().map(File::from).and_then(|file| file.metadata()).map_err(cannot)?;
    let why = match () {
        () if !file.is_file() || file.nlink() == 0 => "is no file that has a name",
        () if file.uid() != 0 && file.uid() != own.uid() => {
            "is neither root's nor of the user whose program runs: have one of them own it"
        }
        () if file.mode() & 0o022 != 0 => "can be written by others than its owner: chmod go-w it",
        () => return Ok(()),
    };
    Err(Error::Permission(Failure::from(format!("{name} {why}"))))
}

/// Where this program is, as it was called: there the next one will be. The link in /proc leads to where this one is, which
/// is another place where the name is a link to a version.
fn program(here: &Path) -> PathBuf {
    let this = env::current_exe().ok();
    let name = env::args_os().next().unwrap_or_default();
    let called = match name.as_bytes().contains(&b'/') {
        true => Some(here.join(&name)),
        false => in_path(&name),
    };
    let identity = |path: &Path| path.metadata().ok().map(|file| (file.dev(), file.ino()));
    let own = identity(Path::new("/proc/self/exe"));
    // the name that a process is given may be any
    called.filter(|path| own.is_some() && identity(path) == own).or(this).unwrap_or(name.into())
}

fn in_path(name: &OsStr) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|directory| directory.join(name)).find(|path| path.is_file())
}
