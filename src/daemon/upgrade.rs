//! An upgrade, the program's side: what one program writes down for the next, the trial of the next, and the way back.
//!
//! The next program is started as a trial first, beside this one: it reads the configuration and what it would find, and
//! says whether it could go on. Then this process executes it. What it needs to know is a [`Letter`] in a file without a
//! name, whose descriptor a variable of the environment names; it has the descriptors of all that stays open. The program
//! before it is one of them: to go back is the same way, with the reason in the letter.

mod letter;
mod trial;

use std::cell::RefCell;
use std::convert::Infallible;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::source::InForce;
use crate::sys::fd::set_nonblocking;
use crate::sys::handover::{StayOpen, write_letter};
use crate::sys::program::spawn_helper;
use crate::{Error, Failure};
use forkd_server::supervise::{Replacement, SavedMaster};
pub(crate) use letter::Letter;
use letter::{FORMAT, OLDEST_FORMAT, by_descriptor, fixed_settings};
pub(crate) use trial::answer_trial;
use trial::{Outcome, Trial};

/// How long a trial may take: it may ask name servers.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// A program is executed and not read, which its user need not be allowed to.
#[cfg(target_os = "linux")]
const TO_EXECUTE: i32 = libc::O_PATH;
/// Elsewhere there is no upgrade.
#[cfg(not(target_os = "linux"))]
const TO_EXECUTE: i32 = 0;

/// The argument after `serve` by which a trial is told from a daemon; a program that is none refuses it.
pub(crate) const TRIAL: &str = "--trial";

/// What a service manager tells by the environment, and [`ServiceManager`](super::notify::ServiceManager) takes out of it.
const OF_THE_MANAGER: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

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
        let mut command = Command::new(by_descriptor(next.as_raw_fd()));
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
            Some(Outcome::Could) => Ok(()),
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
        if !cfg!(target_os = "linux") {
            let why = "this system does not tell a process which program it runs, so there is no upgrade: restart the daemon instead";
            return Err(Error::Config(why.into()));
        }
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
        self.trial.take().into_iter().for_each(Trial::abandon);
        let limit = humantime::format_duration(TRIAL_TIMEOUT);
        Some(Err(self.refused(&format!("did not say within {limit} whether it could take over"))))
    }

    fn execute(&mut self, master: &SavedMaster) -> Result<Infallible, Error> {
        let next = self.next.as_ref().ok_or_else(|| self.refused("is not open"))?;
        let program = OpenOptions::new().read(true).custom_flags(TO_EXECUTE).open("/proc/self/exe");
        let program =
            program.map_err(|cause| Error::os("cannot keep this program open, to go back to", cause))?;
        let letter = Letter { program: Some(program.as_raw_fd()), ..self.letter(master)? };
        letter.send(next.file.as_raw_fd(), &self.manager)
    }

    fn descriptors(&self) -> Vec<RawFd> {
        let before = self.before.iter().map(|(before, _)| before.as_raw_fd());
        let next = self.next.iter().map(|next| next.file.as_raw_fd());
        before.chain(next).chain(self.trial.iter().map(|trial| trial.output.as_raw_fd())).collect()
    }

    fn abandon(&mut self) {
        self.trial.take().into_iter().for_each(Trial::abandon);
        self.next = None;
    }

    fn arrive(&mut self) {
        self.before = None;
    }

    fn go_back(&mut self, master: &SavedMaster, why: &Error) -> Result<Infallible, Error> {
        let (before, config) = self.before.take().ok_or_else(|| {
            Error::Internal(format!("there is no program to go back to; {}", why.sentence()))
        })?;
        let letter = Letter { failed: Some(why.into()), config, ..self.letter(master)? };
        letter.send(before.as_raw_fd(), &self.manager)
    }
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
