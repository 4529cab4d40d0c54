//! What an experiment is, and what comes of it.

use std::path::Path;
use std::sync::Arc;

use forkd_compare::record::Record;
use forkd_compare::report::picture::Picture;
use forkd_compare::{Ask, Observer, Plan, Step, compare};
use forkd_load::Live;
use forkd_net::Error;
use serde::Serialize;

/// An experiment.
#[derive(Debug)]
pub struct Lab {
    /// By what it is asked for.
    pub name: &'static str,
    /// What it is about, in half a line.
    pub title: &'static str,
    /// What is done.
    pub story: &'static str,
    /// What will happen?
    pub question: &'static str,
    /// The answers to choose from.
    pub choices: &'static [&'static str],
    /// Which of them the book gives, from 0.
    pub answer: usize,
    /// Why it is so.
    pub why: &'static str,
    /// Commands to go on with, each with what it shows.
    pub next: &'static [(&'static str, &'static str)],
    pub(crate) run: fn(&mut Experiment<'_>) -> Result<Outcome, Error>,
}

impl Lab {
    /// Carries it out.
    ///
    /// It forks, and starts programs: it is to be called by the only thread of a process, which lives as long as they do.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] if a server does not start or the machine has not what the experiment needs;
    /// [`Error::Os`] if the system refuses something. That the machine does not do what the book says is no error.
    pub fn run(&self, experiment: &mut Experiment<'_>) -> Result<Outcome, Error> {
        (self.run)(experiment)
    }
}

/// What an experiment works with.
pub struct Experiment<'a> {
    /// The program forkd, whose servers are looked at.
    pub forkd: &'a Path,
    /// Asks a forkd for its counters.
    pub ask: Ask,
    /// Is told what goes on.
    pub tell: &'a mut dyn FnMut(&str),
}

impl std::fmt::Debug for Experiment<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Experiment").field("forkd", &self.forkd).finish_non_exhaustive()
    }
}

impl Experiment<'_> {
    pub(crate) fn tell(&mut self, what: impl AsRef<str>) {
        (self.tell)(what.as_ref());
    }

    /// Carries out a comparison, and tells of each server's turn.
    pub(crate) fn compare(&mut self, plan: &Plan, says: fn(&Step, &str) -> String) -> Result<Record, Error> {
        let ask = self.ask;
        compare(plan, ask, &Arc::new(Live::default()), &mut Told { experiment: self, says })
    }
}

/// Hears of each turn of a comparison.
struct Told<'a, 'b> {
    experiment: &'a mut Experiment<'b>,
    says: fn(&Step, &str) -> String,
}

impl Observer for Told<'_, '_> {
    fn begins(&mut self, step: &Step) {
        if let Some(name) = &step.name {
            self.experiment.tell((self.says)(step, name));
        }
    }

    fn has(&mut self, _: &str, _: usize, _: &Record) {}
}

/// What an experiment came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// What was measured.
    pub picture: Picture,
    /// What the book says, each with what was seen.
    pub claims: Vec<Claim>,
}

impl Outcome {
    /// Whether the machine agrees with the book.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.claims.iter().all(|claim| claim.holds)
    }
}

/// A sentence of the book, and what was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Claim {
    /// What the book says.
    pub book: String,
    /// What this machine did.
    pub seen: String,
    /// Whether that is the same.
    pub holds: bool,
}

impl Claim {
    pub(crate) fn new(book: impl Into<String>, seen: impl Into<String>, holds: bool) -> Self {
        Self { book: book.into(), seen: seen.into(), holds }
    }
}

/// Says which call has failed.
pub(crate) fn cannot<E: Into<std::io::Error>>(what: &str) -> impl FnOnce(E) -> Error {
    let what = format!("cannot {what}");
    move |cause| Error::os(what, cause.into())
}
