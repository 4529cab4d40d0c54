//! What an experiment is, and what comes of it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forkd_compare::record::{Entry, Record};
use forkd_compare::report::picture::Picture;
use forkd_compare::{Ask, Observer, Plan, Step, compare};
use forkd_load::Live;
use forkd_net::{Error, Failure};
use serde::Serialize;

use crate::busy;

/// How long something may take that ought to happen at once, on a machine that does much else.
const LIMIT: Duration = Duration::from_secs(30);
/// Processes and threads besides those that serve clients.
const OTHERS: usize = 30;
/// How often is looked whether it has.
const LOOK: Duration = Duration::from_millis(1);

/// On a machine that is calm this process can have so much of all processors.
const CALM: f64 = 0.85;

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
    /// Ends it soon, as an error; what it has started is gone then.
    pub live: Arc<Live>,
    /// Says which limit of the system leaves no room for so many clients, each with a process, and what raises it.
    pub lacks: fn(usize) -> Option<String>,
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

    /// Carries out a comparison, and tells of each server's turn. A server that fails is an error, and so are clients that do
    /// by what is not the server's doing.
    pub(crate) fn compare(&mut self, plan: &Plan, says: fn(&Step, &str) -> String) -> Result<Record, Error> {
        let ask = self.ask;
        if let Some(lack) = self.lack(plan.most_clients()) {
            return Err(missing(format!("there is no room for its clients: {lack}")));
        }
        let live = Arc::clone(&self.live);
        let record = compare(plan, ask, &live, &mut Told { experiment: self, says })?;
        self.go_on()?;
        match record.models.iter().find_map(|entry| Some((entry.title(), why_not(entry)?))) {
            Some((name, why)) => Err(missing(format!("{name}: {why}"))),
            None => Ok(record),
        }
    }

    /// Which limit leaves no room for so many clients, and what else an experiment has.
    pub(crate) fn lack(&self, clients: usize) -> Option<String> {
        (self.lacks)(clients + OTHERS)
    }

    /// Waits for this time.
    pub(crate) fn pause(&self, span: Duration) -> Result<(), Error> {
        self.live.wait(span);
        self.go_on()
    }

    /// Waits until something has happened; `what` says what that is, as in "the servers are ready".
    pub(crate) fn until(
        &self,
        what: &str,
        mut has_happened: impl FnMut() -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let until = Instant::now() + LIMIT;
        while !has_happened()? {
            self.go_on()?;
            if Instant::now() > until {
                return Err(missing(format!(
                    "after {} s it is still not so that {what}: this machine is too busy",
                    LIMIT.as_secs()
                )));
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// An error once it has been ended from outside.
    fn go_on(&self) -> Result<(), Error> {
        if self.live.is_stopped() { Err(missing("it was ended".into())) } else { Ok(()) }
    }
}

/// Why a server could not be measured.
fn why_not(entry: &Entry) -> Option<String> {
    let is_ours =
        |kind: &&String| matches!(&***kind, "no-port" | "no-descriptor") || kind.starts_with("error-");
    let of_clients = || {
        let kind = entry.faults.keys().find(is_ours)?;
        let what = match kind.strip_prefix("error-").and_then(|number| number.parse().ok()) {
            Some(errno) => std::io::Error::from_raw_os_error(errno).to_string(),
            None => kind.replace("no-", "no free "),
        };
        Some(format!("its clients could not connect: {what}"))
    };
    entry.failure.clone().or_else(of_clients)
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

    /// What it tells of the machine; to be asked at once. Only where the two differ does it look whether that may come from what
    /// other programs do.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        if self.agrees() {
            return Verdict::Agrees;
        }
        let share = busy::share();
        if share < CALM { Verdict::Busy { share } } else { Verdict::Differs }
    }
}

/// What an outcome tells of the machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict {
    /// It does what the book says.
    Agrees,
    /// It does something else.
    Differs,
    /// It did something else, and other programs may be the reason.
    Busy {
        /// Which share of the processors they leave.
        share: f64,
    },
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

/// The machine has not what an experiment needs.
pub(crate) fn missing(what: String) -> Error {
    Error::Unavailable(Failure::from(what))
}

/// Says which call has failed.
pub(crate) fn cannot<E: Into<std::io::Error>>(what: &str) -> impl FnOnce(E) -> Error {
    let what = format!("cannot {what}");
    move |cause| {
        let cause = cause.into();
        let known = advice(&cause);
        let error = Error::os(what, cause);
        // without one of ours there may be another
        if known.is_some() { error.advising(known) } else { error }
    }
}

/// What to do about a limit that has been met.
fn advice(cause: &std::io::Error) -> Option<String> {
    use std::io::ErrorKind;
    let text = match cause.kind() {
        ErrorKind::WouldBlock => {
            "no more processes may be started here: ulimit -u, pids.max of the control group, kernel.pid_max and \
             kernel.threads-max limit them"
        }
        ErrorKind::StorageFull => "free some room, or let TMPDIR name another directory",
        ErrorKind::NetworkUnreachable => "the loopback interface is down: ip link set lo up",
        _ => return None,
    };
    Some(text.into())
}
