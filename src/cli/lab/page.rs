//! What an experiment prints for people.

use std::fmt::Write;

use crate::Error;
use crate::cli::terminal::Terminal;
use forkd_lab::{Lab, Outcome, Verdict};
use forkd_load::text::wrapped;

/// No line of text is longer, also where there is room.
const WIDEST: usize = 80;

/// What is printed for people.
pub(super) struct Page {
    terminal: Terminal,
    width: usize,
}

impl Page {
    pub(super) fn new() -> Self {
        let terminal = Terminal::new();
        Self { terminal, width: terminal.width.unwrap_or(WIDEST).min(WIDEST) }
    }

    pub(super) fn show(&self, text: &str) -> Result<(), Error> {
        self.terminal.print(text)
    }

    /// A paragraph, with its mark on the left.
    pub(super) fn paragraph(&self, mark: &str, text: &str) -> String {
        let indent = mark.chars().count();
        let lines = wrapped(text, Some(self.width.saturating_sub(indent)));
        let marks = std::iter::once(mark).chain(std::iter::repeat(""));
        lines.lines().zip(marks).map(|(line, mark)| format!("{mark:indent$}{line}\n")).collect()
    }

    pub(super) fn introduce(&self, lab: &Lab) -> Result<(), Error> {
        let choices = lab
            .choices
            .iter()
            .enumerate()
            .map(|(number, choice)| self.paragraph(&format!("  {}  ", number + 1), choice));
        self.show(&format!(
            "{}\n{}\n{}{}\n",
            self.paragraph("", &format!("{}: {}", lab.name, lab.title)),
            self.paragraph("", lab.story),
            self.paragraph("", lab.question),
            choices.collect::<String>()
        ))
    }

    pub(super) fn conclude(
        &self,
        lab: &Lab,
        outcome: &Outcome,
        verdict: Verdict,
        prediction: Option<usize>,
    ) -> Result<(), Error> {
        let mut text = format!(
            "\n{}\n{}",
            outcome.picture.text(Some(self.width)),
            self.paragraph("", "What is expected, and in brackets what this machine did")
        );
        for claim in &outcome.claims {
            let sign = match (claim.holds, verdict) {
                (true, _) => "  agrees   ",
                (false, Verdict::Busy { .. }) => "  unclear  ",
                (false, _) => "  DIFFERS  ",
            };
            text += &self.paragraph(sign, &format!("{} ({})", claim.book, claim.seen));
        }
        let answer = format!("{}, {}", lab.answer + 1, lab.choices[lab.answer]);
        let predicted = match prediction {
            Some(choice) if choice == lab.answer => format!("You predicted it: {answer}."),
            Some(choice) => format!("You predicted {}. The answer is {answer}.", choice + 1),
            None => format!("The answer is {answer}. (To predict the next one: --predict NUMBER.)"),
        };
        let _ = write!(
            text,
            "\n{}\nWhy\n{}\nGo on\n",
            self.paragraph("", &predicted),
            self.paragraph("  ", lab.why)
        );
        for (command, what) in lab.next {
            let _ = write!(text, "  {command}\n{}", self.paragraph("      ", what));
        }
        self.show(&text)
    }
}
