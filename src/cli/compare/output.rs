//! Where the figures go: files, and the terminal.
//!
//! Invariant: a file is replaced in one step by a whole new one, so a reader has a whole one, also if
//! this program is stopped.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::cli::args::OutputArgs;
use crate::cli::terminal::{Terminal, print_json};
use crate::failed::Failed;
use crate::{Error, Failure, foreign};
use forkd_compare::record::{Record, VERSION};
use forkd_compare::report::difference::Difference;
use forkd_compare::report::findings::{findings, warnings};
use forkd_compare::report::markdown::{markdown, plain};
use forkd_compare::report::regression::Regression;
use forkd_compare::report::{chart, csv, html, svg, table};
use forkd_load::text::wrapped;

/// In bytes: many times what thousands of rounds take.
const LARGEST_RECORD: u64 = 64 << 20;

/// The exit code for a record that is worse than its baseline: diff(1) has it for what differs.
const REGRESSED: u8 = 1;

/// What `--json` writes.
#[derive(serde::Serialize)]
struct Kept<'a> {
    #[serde(flatten)]
    record: &'a Record,
    #[serde(skip_serializing_if = "Option::is_none")]
    regression: Option<Regression>,
}

/// What was asked for.
pub(super) struct Output {
    baseline: Option<Record>,
    /// What is printed in place of the table.
    printed: Option<Format>,
    reports: Vec<(Format, PathBuf)>,
    svg: Option<PathBuf>,
    /// From which share on a figure that is worse than the baseline's is a failure.
    fail_on: Option<f64>,
}

/// What a file has.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Format {
    Json,
    Csv,
    Markdown,
    Html,
}

impl Output {
    /// Opens what is to be written, and reads what is to be compared with: before anything is measured.
    pub(super) fn open(args: &OutputArgs) -> Result<Self, Failed> {
        let is_printed = |path: &Path| path == Path::new("-");
        let asked = [
            (Format::Json, &args.json),
            (Format::Csv, &args.csv),
            (Format::Markdown, &args.markdown),
            (Format::Html, &args.html),
        ];
        let (mut reports, mut printed): (Vec<(Format, PathBuf)>, _) = (Vec::new(), None);
        for (format, path) in asked {
            match path {
                Some(path) if !is_printed(path) => reports.push((format, followed(path))),
                Some(_) if printed.is_some() => {
                    return Err(Error::Usage(
                        "only one report can be printed: name a file for the other".into(),
                    )
                    .into());
                }
                Some(_) if matches!(format, Format::Json | Format::Markdown) => printed = Some(format),
                Some(_) => {
                    return Err(Error::Usage(
                        "only --json and --markdown can be printed: name a file, or ./- if - is one".into(),
                    )
                    .into());
                }
                None => {}
            }
        }
        for (k, (_, path)) in reports.iter().enumerate() {
            if reports[..k].iter().any(|(_, other)| other == path) {
                let path = path.display();
                return Err(Error::Usage(format!(
                    "two reports can't be in one file, {path}: name another one"
                ))
                .into());
            }
        }
        reports.iter().try_for_each(|(_, path)| check(path))?;
        if let Some(dir) = &args.svg {
            fs::create_dir_all(dir).map_err(|cause| cannot("create the directory", dir, cause))?;
            check(&dir.join("overview.svg"))?;
        }
        Ok(Self {
            baseline: args.baseline.as_deref().map(read).transpose()?,
            printed,
            reports,
            svg: args.svg.clone(),
            fail_on: args.fail_on,
        })
    }

    /// Writes the files anew: little is lost if that was the last time. Where one can't be written, others are.
    pub(super) fn keep(&self, record: &Record) -> Result<(), Error> {
        let report = |(format, path): &(Format, PathBuf)| {
            let text = match format {
                Format::Json => self.json(record)?,
                Format::Csv => csv::csv(record),
                Format::Markdown => self.markdown(record),
                Format::Html => html(record, self.difference(record).as_ref()),
            };
            write(path, &text)
        };
        let reports = self.reports.iter().map(report).fold(Ok(()), Result::and);
        let slides = self.svg.as_ref().map_or(Ok(()), |dir| {
            svg::files(record).iter().try_for_each(|(name, text)| write(&dir.join(name), text))
        });
        reports.and(slides)
    }

    /// Writes the files, and shows the whole on standard output, also if they can't be written.
    pub(super) fn show(&self, record: &Record) -> Result<(), Error> {
        let kept = self.keep(record);
        self.print(record)?;
        kept
    }

    fn print(&self, record: &Record) -> Result<(), Error> {
        let terminal = Terminal::new();
        match self.printed {
            Some(Format::Json) => return print_json(&self.json(record)?),
            Some(_) => return terminal.print(&self.markdown(record)),
            None => {}
        }
        let width = terminal.width;
        let findings = findings(record).into_iter().map(|sentence| wrapped(&sentence, width)).collect();
        let warnings =
            warnings(record).into_iter().map(|warning| wrapped(&format!("warning: {warning}"), width));
        let parts = [
            table::tables(record, width),
            chart::charts(record, width),
            findings,
            warnings.collect(),
            self.difference(record).map(|difference| difference.text(width)).unwrap_or_default(),
            self.judged(record).iter().map(|sentence| wrapped(sentence, width)).collect(),
        ];
        let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        terminal.print(&parts.join("\n"))
    }

    /// Fails if a figure is worse than the baseline's by more than was allowed, or if that can't be told.
    pub(super) fn judge(&self, record: &Record) -> Result<(), Failed> {
        match self.regression(record) {
            None => Ok(()),
            Some(Err(why)) => Err(Failed::data(why)),
            Some(Ok(regression)) => regression.why().map_or(Ok(()), |why| Err(Failed::new(REGRESSED, why))),
        }
    }

    fn regression(&self, record: &Record) -> Option<Result<Regression, String>> {
        Some(Regression::between(self.baseline.as_ref()?, record, self.fail_on?))
    }

    fn judged(&self, record: &Record) -> Vec<String> {
        self.regression(record)
            .and_then(Result::ok)
            .map(|regression| regression.sentences())
            .unwrap_or_default()
    }

    /// The record, and beside it how it was judged.
    fn json(&self, record: &Record) -> Result<String, Error> {
        let regression = self.regression(record).and_then(Result::ok);
        serde_json::to_string_pretty(&Kept { record, regression })
            .map(|text| text + "\n")
            .map_err(|error| Error::Internal(format!("cannot write the figures as JSON: {error}")))
    }

    fn markdown(&self, record: &Record) -> String {
        let judged = self.judged(record);
        let list: String = judged.iter().map(|sentence| format!("- {}\n", plain(sentence))).collect();
        if judged.is_empty() {
            markdown(record)
        } else {
            markdown(record) + "\nAgainst the baseline:\n\n" + &list
        }
    }

    fn difference(&self, record: &Record) -> Option<Difference> {
        self.baseline.as_ref().map(|baseline| Difference::between(baseline, record))
    }
}

/// Reads what `--json` has written.
pub(super) fn read(path: &Path) -> Result<Record, Failed> {
    let name = path.display();
    let bytes = File::open(path)
        .and_then(|file| foreign::read(file, LARGEST_RECORD))
        .map_err(|cause| Error::from_io(format!("cannot read {name}"), cause))?;
    let no_record = |error: serde_json::Error| {
        Failed::data(format!(
            "{name} is not what forkd compare --json has written, or not all of it: {error}"
        ))
    };
    let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(no_record)?;
    match &value["version"] {
        version if *version == VERSION => {}
        serde_json::Value::Number(version) => {
            return Err(Failed::data(format!(
                "{name} is of version {version}, and this forkd reads version {VERSION}: measure anew, or take the \
                 forkd that wrote it"
            )));
        }
        _ => {
            return Err(Failed::data(format!(
                "{name} is not what forkd compare --json writes: it has no version"
            )));
        }
    }
    foreign::from_json(&bytes).map_err(no_record)
}

/// The file behind a path: a link stays one, and is not replaced.
fn followed(path: &Path) -> PathBuf {
    if let Ok(real) = path.canonicalize() {
        return real;
    }
    let dir = path.parent().filter(|dir| *dir != Path::new("")).unwrap_or(Path::new("."));
    match (dir.canonicalize(), path.file_name()) {
        (Ok(dir), Some(name)) => dir.join(name),
        _ => path.to_owned(),
    }
}

/// What is there and no regular file, as /dev/stdout, is written to, and never replaced.
fn is_special(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| !meta.is_file())
}

/// Tries what [`write`] will do, and changes nothing.
fn check(path: &Path) -> Result<(), Error> {
    if path.is_dir() {
        let cause = ErrorKind::IsADirectory.into();
        return Err(cannot("write", path, cause));
    }
    if is_special(path) {
        return Ok(());
    }
    let beside = beside(path);
    File::create(&beside)
        .and_then(|_| fs::remove_file(&beside))
        .map_err(|cause| cannot("create", path, cause))
}

/// Replaces a file, or writes to what is none.
fn write(path: &Path, text: &str) -> Result<(), Error> {
    let written = if is_special(path) {
        OpenOptions::new().write(true).open(path).and_then(|mut file| file.write_all(text.as_bytes()))
    } else {
        let beside = beside(path);
        let replaced = replace(path, &beside, text);
        if replaced.is_err() {
            let _ = fs::remove_file(&beside);
        }
        replaced
    };
    written.map_err(|cause| cannot("write", path, cause))
}

fn replace(path: &Path, beside: &Path, text: &str) -> std::io::Result<()> {
    let mut file = File::create(beside)?;
    if let Ok(old) = path.metadata() {
        file.set_permissions(old.permissions())?;
    }
    file.write_all(text.as_bytes())?;
    fs::rename(beside, path)
}

/// A name in the same directory, of this process alone.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}", std::process::id()))
}

fn cannot(what: &str, path: &Path, cause: std::io::Error) -> Error {
    Error::CannotCreate(Failure::new(format!("cannot {what} {}", path.display()), cause))
}
