//! What a command has cost the clients of a server, which ran while they were at it.

use std::fmt::Write;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::outcome::Outcome;
use super::text::{span, thousands};

/// How many losses are shown to a person one by one.
const SHOWN: usize = 20;

/// A command that ran while a phase lasted, and what came to nothing; as `forkd load --during --json` writes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct During {
    /// The command.
    pub command: String,
    /// What it ended with; `null` if a signal ended it.
    pub exit_code: Option<i32>,
    /// How many seconds it took.
    pub took_s: f64,
    /// How many operations came to nothing, before, during and after it.
    pub lost: u64,
    /// The first of them, in their order.
    pub losses: Vec<TimedLoss>,
}

/// An operation that came to nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TimedLoss {
    /// When: seconds after the command began, and below 0 before that.
    pub offset_s: f64,
    /// Whether that was before, during or after the command.
    pub part: Part,
    /// Why: see [`Lost::key`](super::Lost::key).
    pub kind: String,
    #[serde(skip)]
    why: String,
}

/// Where in a phase something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// The command had not begun.
    Before,
    /// It ran.
    During,
    /// It had ended.
    After,
}

impl Part {
    fn of(offset_s: f64, took_s: f64) -> Self {
        match offset_s {
            offset if offset < 0.0 => Self::Before,
            offset if offset <= took_s => Self::During,
            _ => Self::After,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::During => "during",
            Self::After => "after",
        }
    }
}

impl During {
    /// Puts together what a command that began then, took so long and ended like this has cost.
    #[must_use]
    pub fn new(
        command: &str,
        (began, took): (Instant, Duration),
        exit_code: Option<i32>,
        outcome: &Outcome,
    ) -> Self {
        let took_s = took.as_secs_f64();
        let timed = |loss: &super::Loss| {
            let after = loss.at.saturating_duration_since(began).as_secs_f64();
            let offset_s = after - began.saturating_duration_since(loss.at).as_secs_f64();
            let (kind, why) = (loss.why.key(), loss.why.to_string());
            TimedLoss { offset_s, part: Part::of(offset_s, took_s), kind, why }
        };
        let losses = outcome.losses.told().iter().map(timed).collect();
        let command = command.to_owned();
        Self { command, exit_code, took_s, lost: outcome.losses.total(), losses }
    }

    /// Says it to a person, in a line for each of the first losses.
    #[must_use]
    pub fn text(&self) -> String {
        let count = |part| thousands(self.losses.iter().filter(|loss| loss.part == part).count() as f64);
        let end = self.exit_code.map_or_else(|| "a signal".into(), |code| format!("exit code {code}"));
        let took = span(Duration::try_from_secs_f64(self.took_s).unwrap_or_default());
        let mut text = format!("{:?} took {took} and ended with {end}; ", self.command);
        if self.lost == 0 {
            return text + "nothing was lost\n";
        }
        let [before, during, after] = [Part::Before, Part::During, Part::After].map(count);
        let lost = thousands(self.lost as f64);
        let _ =
            writeln!(text, "operations lost: {lost} ({before} before, {during} during, {after} after it)");
        for loss in self.losses.iter().take(SHOWN) {
            let _ = writeln!(text, "{:+10.3} s  {:6}  {}", loss.offset_s, loss.part.name(), loss.why);
        }
        if let Some(more) = self.lost.checked_sub(SHOWN as u64).filter(|more| *more > 0) {
            let _ =
                writeln!(text, "and {} more, of which --json tells the first 10,000", thousands(more as f64));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::outcome;
    use crate::{Fault, Lost, Phase};

    fn during(losses: &[(i64, Lost)]) -> During {
        let began = Instant::now() + Duration::from_secs(10);
        let mut outcome = outcome(Phase::Churn);
        for (ms, why) in losses {
            let offset = Duration::from_millis(ms.unsigned_abs());
            outcome.losses.count(if *ms < 0 { began - offset } else { began + offset }, *why);
        }
        During::new("service forkd restart", (began, Duration::from_millis(400)), Some(0), &outcome)
    }

    #[test]
    fn a_loss_has_its_moment_from_the_command_s_beginning() {
        let text =
            during(&[(-100, Lost::Unsent), (12, Lost::Failed(Fault::Refused)), (500, Lost::Unanswered)])
                .text();
        let expected = "\"service forkd restart\" took 400 ms and ended with exit code 0; \
                        operations lost: 3 (1 before, 1 during, 1 after it)\n    \
                        -0.100 s  before  not sent in time\n    \
                        +0.012 s  during  connection refused\n    \
                        +0.500 s  after   no answer\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn that_nothing_was_lost_is_said() {
        assert!(during(&[]).text().ends_with("exit code 0; nothing was lost\n"));
        let many = vec![(1, Lost::Unsent); 25];
        assert!(during(&many).text().ends_with("and 5 more, of which --json tells the first 10,000\n"));
    }

    #[test]
    fn json_has_each_with_its_kind() {
        let value = serde_json::to_value(during(&[(12, Lost::Failed(Fault::Refused))])).unwrap();
        assert_eq!((&value["lost"], &value["exit_code"]), (&1.into(), &0.into()));
        assert_eq!(value["losses"][0]["kind"], "refused");
        assert_eq!(value["losses"][0]["part"], "during");
    }
}
