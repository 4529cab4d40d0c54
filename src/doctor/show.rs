//! What was found, as text and as JSON.

use std::fmt::Write;

use serde::Serialize;

use super::finding::{Finding, Verdict};
use forkd_load::text::{thousands, wrapped};

/// How wide a line of text is, at most; commands are never broken.
const WIDTH: usize = 80;

/// Where what is said of a limit begins.
const INDENT: usize = 9;

/// All that was found, the worst first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// The system's name and version.
    pub system: String,
    /// What was asked, in words.
    pub asked: String,
    /// How many limits allow less than that.
    pub limiting: usize,
    /// The limits.
    pub findings: Vec<Finding>,
}

impl Diagnosis {
    /// As text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("{}; asked: {}\n\n", self.system, self.asked);
        let _ = writeln!(text, "{:INDENT$}{:31}NOW", "VERDICT", "LIMIT");
        for finding in &self.findings {
            // writing to a String does not fail
            let _ =
                writeln!(text, "{:INDENT$}{:30} {}", finding.verdict.name(), finding.limit, finding.value);
            for line in wrapped(&finding.meaning, Some(WIDTH - INDENT)).lines() {
                let _ = writeln!(text, "{:INDENT$}{line}", "");
            }
            if let Some(mend) = &finding.mend {
                let _ = writeln!(
                    text,
                    "{:INDENT$}now: {}\n{:INDENT$}for good: {}",
                    "", mend.now, "", mend.lasting
                );
            }
        }
        text + "\n" + &self.conclusion() + "\n"
    }

    /// What allows less than is asked, as comments below a configuration.
    #[must_use]
    pub fn comments(&self) -> String {
        let limiting = self.findings.iter().filter(|finding| finding.verdict == Verdict::Limits);
        let comment = |finding: &Finding| {
            format!(
                "# {} is {}: {} `forkd doctor` says how to raise it.\n",
                finding.limit, finding.value, finding.meaning
            )
        };
        limiting.map(comment).collect()
    }

    fn conclusion(&self) -> String {
        let count = |verdict| self.findings.iter().filter(|finding| finding.verdict == verdict).count();
        let unknown = match count(Verdict::Unknown) {
            0 => String::new(),
            n => format!("; {n} not known"),
        };
        match self.limiting {
            0 => format!("nothing limits what is asked{unknown}"),
            1 => format!("1 limit allows less than is asked{unknown}"),
            n => format!("{n} limits allow less than is asked{unknown}"),
        }
    }
}

/// A number in groups of three digits; what no limit is has no number.
pub(super) fn amount(number: u64) -> String {
    match number {
        _ if number > u64::MAX / 2 => "unlimited".into(),
        number => thousands(number as f64),
    }
}
