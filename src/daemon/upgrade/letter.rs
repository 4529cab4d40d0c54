//! The letter: what one program writes down for the next, in a file without a name.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::env;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::definition::Table;
use crate::config::options::DaemonOptions;
use crate::sys::handover::{LeftOpen, StayOpen, take_variable, write_letter};
use crate::{Error, Failure, foreign};
use forkd_server::supervise::SavedMaster;

/// Names the descriptor of the letter.
const VARIABLE: &str = "FORKD_UPGRADE";

/// The format of a letter that this program writes. A field that is new in a format has a default, and one that a format no
/// longer has is passed over: so a program reads the formats before and after its own, as far as they say so. Tests upgrade to a
/// build with the next format, and back.
pub(super) const FORMAT: u32 = if cfg!(forkd_next) { 2 } else { 1 };
/// The oldest format that this program reads.
pub(super) const OLDEST_FORMAT: u32 = 1;

/// More than a letter about as many children as there can be has.
const LONGEST_LETTER: u64 = 256 << 20;

/// What one program writes down for the next.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Letter {
    pub(super) format: u32,
    /// The oldest format whose reader understands it.
    #[serde(default)]
    pub(super) oldest_reader: u32,
    pub(crate) master: SavedMaster,
    /// Where relative paths start.
    pub(crate) here: PathBuf,
    /// Where the next program is.
    pub(super) path: PathBuf,
    /// The options that only a restart changes, by their keys.
    pub(super) settings: BTreeMap<String, serde_json::Value>,
    /// The configuration in force, for the program that wrote it.
    pub(super) config: String,
    #[serde(default)]
    pub(crate) pidfile: Option<RawFd>,
    /// The program that writes, and the one that reads, if that was open.
    #[serde(default)]
    pub(super) program: Option<RawFd>,
    #[serde(default)]
    pub(super) reader: Option<RawFd>,
    /// Why the program after the one that reads could not go on.
    #[serde(default)]
    pub(super) failed: Option<Refusal>,
    #[cfg(forkd_next)]
    #[serde(default)]
    pub(super) new_in_the_next_format: Option<u32>,
}

/// Why a program can't go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Refusal {
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

/// The options that only a restart changes.
pub(super) fn fixed_settings(daemon: &DaemonOptions) -> BTreeMap<String, serde_json::Value> {
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

    pub(super) fn read(from: impl Read) -> Result<Self, Error> {
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
        let Some(program) = self.program.filter(|_| !self.is_way_back()) else { return why };
        let letter = Self { failed: Some(Refusal::from(&why)), program: None, ..self };
        letter.send(program, &[]).map_or_else(|why| why, |never| match never {})
    }

    /// Executes the program that is open by this number, with this letter. What the letter names besides what the master has
    /// stays open; the environment has `more`.
    pub(super) fn send(self, reader: RawFd, more: &[(OsString, OsString)]) -> Result<Infallible, Error> {
        let cannot = |cause| Error::os("cannot write down what the next program needs", cause);
        let letter = Self { reader: Some(reader), ..self };
        let text = serde_json::to_vec(&letter).map_err(|error| cannot(error.into()))?;
        let file = write_letter(&text).map_err(cannot)?;
        let own = letter.pidfile.into_iter().chain(letter.program).chain([reader, file.as_raw_fd()]);
        let _stay = StayOpen::new(own).map_err(|cause| Error::os("cannot keep descriptors open", cause))?;
        let variable = (VARIABLE.into(), file.as_raw_fd().to_string().into());
        let environment = env::vars_os().chain([variable]).chain(more.iter().cloned());
        execute(&by_descriptor(reader), env::args_os(), environment)
            .map_err(|cause| Error::os("cannot execute the next program", cause))
    }
}

/// A path that leads to what is open.
pub(super) fn by_descriptor(open: RawFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{open}"))
}

/// Executes a program: execve(2). Returns only why that failed.
fn execute(
    program: &Path,
    arguments: impl Iterator<Item = OsString>,
    environment: impl Iterator<Item = (OsString, OsString)>,
) -> io::Result<Infallible> {
    let text = |bytes: Vec<u8>| CString::new(bytes).map_err(io::Error::other);
    let program = text(program.as_os_str().as_bytes().to_vec())?;
    let arguments = arguments.map(|argument| text(argument.into_vec())).collect::<io::Result<Vec<_>>>()?;
    let variables = environment.map(|(name, value)| text([name.into_vec(), value.into_vec()].join(&b'=')));
    let variables = variables.collect::<io::Result<Vec<_>>>()?;
    Ok(nix::unistd::execve(&program, &arguments, &variables)?)
}
