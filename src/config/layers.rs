//! The command line lies over the file.
//!
//! Invariant: an option of the command line counts for each group that it can have an effect on, and is
//! a mistake only if there is none. What it leaves without effect in a group of the file is passed over; what
//! has none in the file by itself is a mistake there.

use super::file::File;
use super::listen::Listen;
use super::options::ListenOptions;
use crate::Error;

/// Why a group of options makes no sense.
#[derive(Debug)]
pub(super) struct Conflict {
    /// The name in the file of the option at fault, which was given (`endpoints` may be missing).
    pub(super) key: &'static str,
    /// Options that may be at fault instead.
    rivals: &'static [&'static str],
    /// The rest of a sentence that starts with the option. Other options stand in backquotes.
    pub(super) why: String,
}

impl Conflict {
    pub(super) fn new(key: &'static str, why: impl Into<String>) -> Self {
        Self { key, rivals: &[], why: why.into() }
    }

    /// The service, which another option may have implied, or one of these `rivals`.
    pub(super) fn of_service(why: String, rivals: &'static [&'static str]) -> Self {
        Self { key: "service", rivals, why }
    }

    /// The same about the first of these options that satisfies `is_given`.
    fn about(&self, is_given: impl Fn(&str) -> bool) -> Option<(&'static str, String)> {
        if is_given(self.key) {
            return Some((self.key, self.why.clone()));
        }
        let rival = self.rivals.iter().find(|key| is_given(key))?;
        Some((rival, format!("doesn't fit: the {} {}", self.key, self.why)))
    }
}

/// The command line, and what of it no group has taken so far.
#[derive(Debug)]
pub(super) struct CommandLine {
    said: ListenOptions,
    idle: Option<Vec<Conflict>>,
}

impl CommandLine {
    pub(super) fn new(said: ListenOptions) -> Self {
        Self { said, idle: None }
    }

    /// Lays it over a group of the file.
    pub(super) fn over(&mut self, mut group: ListenOptions) -> ListenOptions {
        let mut said = self.said.clone();
        let mut idle = Listen::without_effect(&said.clone().over(group.clone()));
        let wrong = Listen::without_effect(&group);
        idle.retain(|Conflict { key, .. }| {
            let is_ours = self.said.has(key);
            if is_ours {
                said.forget(key);
            } else if !wrong.iter().any(|conflict| conflict.key == *key) {
                group.forget(key);
            }
            is_ours
        });
        if let Some(before) = self.idle.take() {
            idle.retain(|conflict| before.iter().any(|other| other.key == conflict.key));
        }
        self.idle = Some(idle);
        said.over(group)
    }

    /// The first mistake, once it lay over every group.
    pub(super) fn unused(&self) -> Option<Error> {
        self.idle.iter().flatten().next().map(|conflict| self.blame(conflict, None))
    }

    /// Says who is at fault: this, or the group with this number in the file.
    pub(super) fn blame(&self, conflict: &Conflict, group: Option<(&File, usize)>) -> Error {
        let ours = conflict.about(|key| self.said.has(key));
        match (group, ours) {
            (Some((file, index)), None) => {
                let found = conflict.about(|key| file.tables.listen[index].has(key));
                let (key, why) = found.unwrap_or((conflict.key, conflict.why.clone()));
                file.error(index, key, &why)
            }
            (_, Some((key, why))) if key != "endpoints" => Error::Usage(dashed(&format!("`{key}` {why}"))),
            _ => Error::Usage(format!("the command line {}", dashed(&conflict.why))),
        }
    }
}

/// Writes options as they are given on the command line.
fn dashed(text: &str) -> String {
    let parts = text.split('`').enumerate();
    parts.map(|(n, part)| if n % 2 == 1 { format!("--{part}") } else { part.to_owned() }).collect()
}
