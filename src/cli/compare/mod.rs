//! `forkd compare`: measures servers side by side, or shows again what was measured.

pub(super) mod counters;
mod measure;
mod output;
mod plan;

use super::args::CompareArgs;
use crate::failed::Failed;
use crate::{Error, Failure};
use forkd_compare::record::{Entry, Record};
use output::Output;

/// Measures, and shows what came of it.
///
/// # Errors
///
/// For wrong options, and files that can't be read or written; after all others have been shown, for servers that
/// failed, if a signal ended it, and for figures that are worse than they may be.
pub fn run(args: &CompareArgs) -> Result<(), Failed> {
    let output = Output::open(&args.output)?;
    if let Some(path) = &args.output.from {
        let mut record = output::read(path)?;
        if let Some(names) = &args.run.models {
            choose(&mut record, names)?;
        }
        output.show(&record)?;
        return output.judge(&record);
    }
    let (record, interrupt) = measure::measure(&args.run, |record| output.keep(record))?;
    if !record.models.iter().any(Entry::has_any) {
        // an empty table says nothing, and files may have the last one's figures
        interrupt.verdict("before anything was measured")?;
    }
    output.show(&record)?;
    interrupt.verdict("early")?;
    match record.models.iter().find_map(|entry| Some((entry, entry.failure.as_ref()?))) {
        Some((entry, why)) => {
            Err(Error::Unavailable(Failure::from(format!("{}: {why}", entry.title()))).into())
        }
        None => output.judge(&record),
    }
}

/// Leaves in a record only those that are named.
fn choose(record: &mut Record, names: &[String]) -> Result<(), Error> {
    let names: Vec<&str> = names.iter().map(|name| name.trim()).collect();
    let has = |name: &str| record.models.iter().any(|entry| entry.name == name);
    if let Some(unknown) = names.iter().find(|name| !has(name)) {
        let all: Vec<&str> = record.models.iter().map(|entry| &*entry.name).collect();
        return Err(Error::Usage(format!("the file has no {unknown:?}: take some of {}", all.join(", "))));
    }
    record.models.retain(|entry| names.contains(&&*entry.name));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_shown_of_those_that_are_named() {
        let file = include_str!("../../../tests/compare/before.json");
        let mut record: Record = serde_json::from_str(file).unwrap();
        choose(&mut record, &["thread".into(), " fork".into()]).unwrap();
        assert_eq!(record.models.iter().map(|entry| &*entry.name).collect::<Vec<_>>(), ["fork", "thread"]);
        let why = choose(&mut record, &["prefork".into()]).unwrap_err().sentence();
        assert_eq!(why, "the file has no \"prefork\": take some of fork, thread");
    }
}
