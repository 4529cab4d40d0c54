//! `forkd lab`: an experiment, from the question to the reason.
//!
//! Invariant: the prediction comes before the result, and the result does not depend on it.

mod page;

use std::fs;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use super::args::LabArgs;
use super::compare::counters::ask;
use super::interrupt::Interrupt;
use super::terminal::{Terminal, print_json, write};
use crate::Error;
use crate::doctor::{self, facts::Facts};
use crate::failed::Failed;
use forkd_compare::report::picture::Face;
use forkd_lab::{Experiment, LABS, Lab, Outcome, Verdict, find};
use forkd_load::Live;
use page::Page;

/// What the program ends with if the machine does not do what is expected: as diff(1) does.
const DISAGREES: u8 = 1;

/// What it ends with if that can't be found out here, or not now: `EX_UNAVAILABLE` of sysexits(3).
const UNKNOWN: u8 = 69;

/// Clients, each with a process, that experiments have at once.
const FEW: usize = 50;

/// Carries out an experiment, or lists all.
///
/// # Errors
///
/// [`Error::Usage`] if there is no such experiment or answer; exit code 1 if the machine does not do what is expected, and 69 if
/// it is too busy to tell, after the result has been printed; 69 if the experiment can't be carried out here; 128 and the number of
/// a signal that has ended it.
pub fn run(args: &LabArgs) -> Result<(), Failed> {
    match &args.name {
        Some(name) => carry_out(lab_of(name)?, args),
        None => list(),
    }
}

fn list() -> Result<(), Failed> {
    let widest = LABS.iter().map(|lab| lab.name.len()).max().unwrap_or(0);
    let mut text: String =
        LABS.iter().map(|lab| format!("  {:widest$}  {}\n", lab.name, lab.title)).collect();
    text.push_str(
        "\nTo carry one out, type its name, as in: forkd lab zombie\nIt says what will be done, asks what you expect, does it \
         on this machine within\nseconds, and says why it came out so. wait(2) means: man 2 wait.\n",
    );
    Terminal::new().print(&text)?;
    Ok(())
}

fn lab_of(name: &str) -> Result<&'static Lab, Error> {
    let known = || LABS.iter().map(|lab| lab.name).collect::<Vec<_>>().join(", ");
    find(name)
        .ok_or_else(|| Error::Usage(format!("there is no experiment {name:?}: take one of {}", known())))
}

fn carry_out(lab: &Lab, args: &LabArgs) -> Result<(), Failed> {
    let prediction = args.predict.map(|number| choice(lab, number)).transpose()?;
    let page = Page::new();
    if !args.json {
        page.introduce(lab)?;
    }
    let prediction = match prediction {
        None if !args.json && io::stdin().is_terminal() && io::stdout().is_terminal() => {
            ask_for_prediction(lab)?
        }
        given => given,
    };
    let outcome = experiment(lab, &page, args.json)?;
    let verdict = outcome.verdict();
    match args.json {
        true => print_json(&as_json(lab, &outcome, verdict, prediction))?,
        false => page.conclude(lab, &outcome, verdict, prediction)?,
    }
    if let Some(dir) = &args.svg {
        draw(lab, &outcome, dir)?;
    }
    match verdict {
        Verdict::Agrees => Ok(()),
        Verdict::Differs => Err(Failed::new(
            DISAGREES,
            format!(
                "{0}: this machine does not do what is expected, where it says DIFFERS; try once more, as it may be by chance: \
                 forkd lab {0}",
                lab.name
            ),
        )),
        Verdict::Busy { share } => Err(Failed::new(
            UNKNOWN,
            format!(
                "{}: that can't be found out now: other programs leave this one {:.0} % of the processors; try again when they \
                 have ended",
                lab.name,
                share * 100.0
            ),
        )),
    }
}

/// A number of the user's as the number of an answer, from 0.
fn choice(lab: &Lab, number: usize) -> Result<usize, Error> {
    let most = lab.choices.len();
    match number.checked_sub(1).filter(|choice| *choice < most) {
        Some(choice) => Ok(choice),
        None => {
            Err(Error::Usage(format!("{number} is none of the answers: they have the numbers 1 to {most}")))
        }
    }
}

/// Asks until there is an answer; an empty line is none.
fn ask_for_prediction(lab: &Lab) -> Result<Option<usize>, Error> {
    let most = lab.choices.len();
    loop {
        write(&format!("Your prediction (1 to {most}, or Enter for none): "))?;
        let mut line = String::new();
        let read = io::stdin().read_line(&mut line);
        if read.map_err(|cause| Error::os("cannot read standard input", cause))? == 0 {
            write("\n")?;
            return Ok(None);
        }
        match line.trim() {
            "" => return Ok(None),
            text => {
                if let Some(choice) = text.parse().ok().and_then(|number| choice(lab, number).ok()) {
                    return Ok(Some(choice));
                }
                write("Type one of the numbers, and press Enter.\n")?;
            }
        }
    }
}

fn experiment(lab: &Lab, page: &Page, is_silent: bool) -> Result<Outcome, Failed> {
    let forkd = std::env::current_exe().map_err(|cause| {
        impossible(lab, &Error::os("cannot find this program's own file, which /proc/self/exe names", cause))
    })?;
    let live = Arc::new(Live::default());
    let interrupt = Interrupt::stop(&live)?;
    let mut unwritten = None;
    let mut tell = |what: &str| {
        if !is_silent && unwritten.is_none() {
            unwritten = page.show(&page.paragraph("  ", what)).err();
        }
    };
    let outcome = lab.run(&mut Experiment { forkd: &forkd, ask, tell: &mut tell, live, lacks });
    interrupt.verdict("before there was a result")?;
    match unwritten {
        Some(error) => Err(error.into()),
        None => outcome.map_err(|error| impossible(lab, &error)),
    }
}

fn lacks(clients: usize) -> Option<String> {
    doctor::lacks(&Facts::here(), clients as u64)
}

/// What stops an experiment is no answer to its question.
fn impossible(lab: &Lab, error: &Error) -> Failed {
    let sentence = error.sentence();
    let limit =
        match lacks(FEW).filter(|limit| !sentence.contains(limit.split(" is ").next().unwrap_or(limit))) {
            Some(limit) => format!("one limit that is low here: {limit}"),
            None => "what limits this machine: forkd doctor".into(),
        };
    let why = format!("{} can't be carried out here: {sentence}; {limit}", lab.name);
    Failed::new(UNKNOWN, why)
}

fn draw(lab: &Lab, outcome: &Outcome, dir: &Path) -> Result<(), Error> {
    let cannot = |path: &Path| format!("cannot write {}", path.display());
    fs::create_dir_all(dir).map_err(|cause| Error::from_io(cannot(dir), cause))?;
    for (end, face) in [("", Face::Light), ("-dark", Face::Dark)] {
        let path = dir.join(format!("{}{end}.svg", lab.name));
        fs::write(&path, outcome.picture.svg(face)).map_err(|cause| Error::from_io(cannot(&path), cause))?;
    }
    Ok(())
}

fn as_json(lab: &Lab, outcome: &Outcome, verdict: Verdict, prediction: Option<usize>) -> String {
    let text = json!({
        "lab": lab.name,
        "question": lab.question,
        "choices": lab.choices,
        "answer": lab.answer + 1,
        "prediction": prediction.map(|choice| choice + 1),
        // null: nobody knows
        "agrees": (!matches!(verdict, Verdict::Busy { .. })).then_some(verdict == Verdict::Agrees),
        "claims": outcome.claims,
        "picture": outcome.picture,
        "why": lab.why,
    });
    format!("{text:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_experiment_is_whole() {
        for lab in LABS {
            assert!(lab.answer < lab.choices.len() && lab.choices.len() == 3, "{}", lab.name);
            assert!(
                lab.question.ends_with('?') && lab.why.ends_with('.') && lab.story.ends_with('.'),
                "{}",
                lab.name
            );
            assert!(!lab.next.is_empty() && !lab.title.ends_with('.'), "{}", lab.name);
            assert!(find(lab.name).is_some_and(|found| std::ptr::eq(found, lab)));
        }
    }

    #[test]
    fn an_answer_has_its_number() {
        let lab = &LABS[0];
        assert_eq!(choice(lab, 1).unwrap(), 0);
        assert!(choice(lab, 0).unwrap_err().sentence().contains("1 to 3"));
        assert!(choice(lab, 4).is_err());
        assert!(lab_of("bogus").unwrap_err().sentence().contains("take one of "));
    }
}
