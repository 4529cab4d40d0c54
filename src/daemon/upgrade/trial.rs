//! The trial: the next program, started beside this one, says whether it could go on.

use std::fs::File;
use std::io::{self, Read, Write};
use std::time::Instant;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::letter::{Letter, Refusal};
use crate::Error;
use crate::failed::Failed;

/// More than a trial has to say.
const LONGEST_OUTCOME: usize = 64 << 10;

/// How much is read in one turn of the master's loop: what a pipe holds.
const CHUNKS: usize = 16;

/// What a trial says, in one line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// It could go on.
    Could,
    Refused(Refusal),
}

/// In a trial: says on standard output whether this program could go on with what the letter on standard input tells of.
pub(crate) fn answer_trial(check: impl FnOnce(&Letter) -> Result<(), Error>) -> Result<(), Failed> {
    let tried = Letter::read(io::stdin().lock()).and_then(|letter| check(&letter));
    let outcome = match &tried {
        Ok(()) => Outcome::Could,
        Err(error) => Outcome::Refused(error.into()),
    };
    let line = serde_json::to_string(&outcome).unwrap_or_default();
    let said = writeln!(io::stdout(), "{line}");
    said.map_err(|cause| Failed::from(Error::os("cannot say how the trial went", cause)))
}

/// A trial of another program.
#[derive(Debug)]
pub(super) struct Trial {
    /// Its process group.
    pub(super) group: i32,
    pub(super) output: File,
    pub(super) said: Vec<u8>,
    pub(super) until: Instant,
}

impl Trial {
    /// Reads some of what it says; tells whether it has said all.
    pub(super) fn read(&mut self) -> bool {
        let mut chunk = [0; 4096];
        for _ in 0..CHUNKS {
            match self.output.read(&mut chunk) {
                Ok(0) => return true,
                Ok(n) => self.said.extend_from_slice(&chunk[..n]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
            }
            // of one that has more to say the first part must do
            self.said.truncate(LONGEST_OUTCOME);
        }
        false
    }

    /// Ends it if it has not said all: something has its output open still, so that its process group is no other's.
    pub(super) fn abandon(mut self) {
        if !self.read() {
            let _ = killpg(Pid::from_raw(self.group), Signal::SIGKILL);
        }
    }
}
