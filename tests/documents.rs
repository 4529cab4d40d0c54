//! The documents show what their records say: pictures, tables, and each sentence with a figure in it.
//!
//! docs/compare/run makes the records anew; `FORKD_BLESS=1` draws the pictures and writes tables and sentences.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;
#[path = "documents/sentences.rs"]
mod sentences;

use std::fs;
use std::path::{Path, PathBuf};

use common::*;
use forkd_compare::record::{Entry, Record};
use sentences::{ALL, Records, Said};

/// Directories of records in docs/compare, and whether pictures of them are kept.
const RECORDS: [(&str, bool); 4] = [("", true), ("growth", true), ("rate", false), ("others", false)];

fn docs(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(path)
}

fn is_blessed() -> bool {
    std::env::var_os("FORKD_BLESS").is_some()
}

fn figures(record: &str) -> PathBuf {
    docs("compare").join(record).join("figures.json")
}

fn records() -> Records {
    let read = |path| serde_json::from_str::<Record>(&fs::read_to_string(path).unwrap()).unwrap();
    let kept = RECORDS.into_iter().map(|(name, _)| (name, figures(name)));
    // the lecture makes that one, by docs/teach/lecture/run
    let all = kept.chain([("slo", docs("teach/lecture/slo.json"))]);
    all.map(|(name, path)| (name, read(path))).collect()
}

#[test]
fn pictures_are_those_of_their_records() {
    let pictures = |dir: &Path| {
        let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        let mut names: Vec<_> =
            names.filter(|path| path.extension().is_some_and(|end| end == "svg")).collect();
        names.sort();
        let named =
            |path: &PathBuf| (path.file_name().unwrap().to_owned(), fs::read_to_string(path).unwrap());
        names.iter().map(named).collect::<Vec<_>>()
    };
    for (name, _) in RECORDS.into_iter().filter(|(_, has_pictures)| *has_pictures) {
        let (dir, drawn) = (docs("compare").join(name), tempfile::tempdir().unwrap());
        let to = if is_blessed() { &*dir } else { drawn.path() };
        let mut command = forkd_command();
        command.env_remove("COLUMNS").env("LC_ALL", "C.UTF-8").args(["compare", "--from"]).arg(figures(name));
        let ended = forkd(command.arg("--svg").arg(to));
        assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
        let (drawn, kept) = (pictures(to), pictures(&dir));
        assert!(!kept.is_empty() && drawn == kept, "the pictures in {dir:?} are out of date");
    }
}

/// The blocks that differ from what the records say, after they were written anew if that is wanted.
fn differing(records: &Records, is_blessed: bool) -> Vec<String> {
    let mut differing = Vec::new();
    for (name, of) in ALL {
        let said: Said = of(records);
        for document in ["COMPARE.md", "../README.md"] {
            let path = docs(document);
            let whole = fs::read_to_string(&path).unwrap();
            let [begin, end] = ["", "/"].map(|slash| format!("<!-- {slash}compare {name} -->"));
            let Some((before, rest)) = whole.split_once(&begin) else {
                assert!(document != "COMPARE.md", "{document} has no {begin}");
                continue;
            };
            let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("{document} has no {end}"));
            match &said {
                Ok(said) => {
                    let now = format!("{before}{begin}\n{said}\n{end}{after}");
                    if now != whole && is_blessed {
                        fs::write(path, now).unwrap();
                    } else if now != whole {
                        differing
                            .push(format!("{document}: {name} is not (FORKD_BLESS=1 writes it):\n{said}"));
                    }
                }
                Err(why) => differing.push(format!("{document}: rewrite {name}: {why}")),
            }
        }
    }
    differing
}

#[test]
fn tables_and_sentences_are_those_of_their_records() {
    let differing = differing(&records(), is_blessed());
    assert!(differing.is_empty(), "{}", differing.join("\n\n"));
}

/// The blocks that differ once a figure of a model is another, in all records; `None` while the documents are written.
fn noticed(name: &str, alter: impl Fn(&mut Entry)) -> Option<String> {
    if is_blessed() {
        return None;
    }
    let mut records = records();
    let entries = records.values_mut().flat_map(|record| &mut record.models);
    entries.filter(|entry| entry.name == name).for_each(alter);
    let found = differing(&records, false);
    Some(found.iter().map(|what| what.lines().next().unwrap()).collect::<Vec<_>>().join("\n"))
}

#[test]
fn a_figure_that_has_changed_is_noticed_in_each_sentence_that_has_it() {
    let dearer = |entry: &mut Entry| {
        entry.churn.iter_mut().for_each(|churn| churn.median.cpu_us_per_conn = Some(234.0));
    };
    let Some(found) = noticed("fork", dearer) else { return };
    for block in ["table", "sentences", "fork", "threads", "loop", "cores", "classical", "others", "rate"] {
        assert!(found.contains(&format!("COMPARE.md: {block} is not")), "{block}\n{found}");
    }
    assert!(found.contains("README.md: table is not"), "{found}");
}

#[test]
fn a_sentence_that_is_no_longer_true_is_named() {
    let free = |entry: &mut Entry| {
        entry.churn.iter_mut().for_each(|churn| churn.median.cpu_us_per_conn = Some(0.5));
    };
    let Some(found) = noticed("fork", free) else { return };
    for (block, claim) in [
        ("fork", "most of what fork costs is not spent on the connection"),
        ("threads", "a connection costs thread less than fork"),
        ("classical", "a fork for each client is dearest"),
    ] {
        let why = format!("COMPARE.md: rewrite {block}: the record does not say that {claim}");
        assert!(found.contains(&why), "{why}\n{found}");
    }
}

/// Where benches/page puts what a benchmark has found (`--write`).
#[test]
fn benchmarks_have_a_place_for_their_tables() {
    let whole = fs::read_to_string(docs("PERFORMANCE.md")).unwrap();
    for name in ["prefork", "side by side", "under attack"] {
        let [begin, end] = ["", "/"].map(|slash| format!("<!-- {slash}{name} -->"));
        let places: Vec<_> = [&begin, &end].map(|mark| whole.matches(&**mark).count()).into();
        assert!(places == [1, 1] && whole.find(&begin) < whole.find(&end), "{name}: {places:?}");
    }
}

/// Beside what records and benchmarks say there is no rate and no time of a server, which nothing would hold.
#[test]
fn no_rate_stands_outside_of_the_blocks() {
    for document in
        ["COMPARE.md", "PERFORMANCE.md", "MODELS.md", "GUIDE.md", "LIBRARY.md", "PREFORK.md", "../README.md"]
    {
        let (mut is_in_block, mut is_code) = (false, false);
        for line in fs::read_to_string(docs(document)).unwrap().lines() {
            is_in_block = if line.starts_with("<!-- ") { !line.starts_with("<!-- /") } else { is_in_block };
            is_code ^= line.starts_with("```");
            let units = ["µs", "MB/s", " times the", " times as"];
            let has = |unit: &&str| {
                line.match_indices(*unit)
                    .any(|(at, _)| line[..at].trim_end().ends_with(|c: char| c.is_ascii_digit()))
            };
            let found = units.iter().find(|unit| !is_in_block && !is_code && has(unit));
            assert_eq!(found, None, "{document}: {line}");
        }
    }
}

/// The program of "Prefork your own server" is one that is tested, and so are its promises, by tests that it names.
#[test]
fn the_page_on_preforking_has_the_example_and_names_tests_that_there_are() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(docs("PREFORK.md")).unwrap();
    let example = fs::read_to_string(project.join("examples/axum_prefork.rs")).unwrap();
    let code: Vec<&str> =
        example.lines().skip_while(|line| line.starts_with("//!") || line.is_empty()).collect();
    assert!(page.contains(&format!("```rust\n{}\n```", code.join("\n"))), "{}", code.join("\n"));
    let mut named = 0;
    for row in page.lines().filter(|line| line.contains("| `tests/")) {
        let mut words = row.rsplit('|').nth(1).unwrap().split('`').skip(1).step_by(2);
        let tests = fs::read_to_string(project.join(words.next().unwrap())).unwrap();
        for name in words {
            assert!(tests.contains(&format!("fn {name}()")), "{name}");
            named += 1;
        }
    }
    assert!(named > 10, "{named}");
}

/// All documents below a directory, as the book names them.
fn documents_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let of = |path: PathBuf| match path.is_dir() {
        true => documents_in(&path),
        false => vec![path.strip_prefix(docs("")).unwrap().display().to_string()],
    };
    entries.flat_map(of).filter(|name| name.ends_with(".md") && name != "SUMMARY.md").collect()
}

#[test]
fn the_book_has_every_document() {
    let summary = fs::read_to_string(docs("SUMMARY.md")).unwrap();
    let documents = documents_in(&docs(""));
    assert!(documents.len() > 50, "{documents:?}");
    for document in documents {
        assert!(summary.contains(&format!("]({document})")), "docs/SUMMARY.md has no {document}");
    }
}

/// Links out of the book name the repository, in which lychee can't look without a network.
#[test]
fn what_the_book_links_to_in_the_repository_is_there() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut links = 0;
    for document in documents_in(&docs("")) {
        let text = fs::read_to_string(docs(&document)).unwrap();
        for kind in ["blob", "tree"] {
            for rest in text.split(&format!("github.com/forkd/forkd/{kind}/main/")).skip(1) {
                let path = rest.split([')', '#', '>', '"']).next().unwrap();
                assert!(project.join(path).exists(), "{document}: {path}");
                links += 1;
            }
        }
    }
    assert!(links > 20, "{links}");
}
