//! The crates as a registry has them: what each says of itself, what it holds, how large it is, and which Rust it needs.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use forkd::cli::args::Cli;
use serde_json::Value;

/// Bytes that the files of each crate may have in all: a quarter more than they had when this was written.
const ROOM: [(&str, u64); 7] = [
    ("forkd", 1_900_000),
    ("forkd-compare", 580_000),
    ("forkd-lab", 180_000),
    ("forkd-load", 290_000),
    ("forkd-net", 150_000),
    ("forkd-server", 2_100_000),
    ("forkd-sys", 460_000),
];

/// Of the registry's list, <https://crates.io/category_slugs>: it refuses others.
const CATEGORIES: [&str; 4] =
    ["command-line-utilities", "development-tools::profiling", "network-programming", "os::unix-apis"];

/// What cargo prints about this workspace.
fn cargo(args: &[&str]) -> String {
    let mut cargo = Command::new(env!("CARGO"));
    let output = cargo.args(args).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "cargo {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

static METADATA: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(&cargo(&["metadata", "--format-version=1", "--all-features", "--locked"])).unwrap()
});

fn packages() -> impl Iterator<Item = &'static Value> {
    METADATA["packages"].as_array().unwrap().iter()
}

/// The crates of the workspace, by their names.
fn crates() -> BTreeMap<&'static str, &'static Value> {
    let ours = packages().filter(|package| package["source"].is_null());
    ours.map(|package| (package["name"].as_str().unwrap(), package)).collect()
}

fn directory(package: &Value) -> PathBuf {
    Path::new(package["manifest_path"].as_str().unwrap()).parent().unwrap().to_owned()
}

#[test]
fn every_crate_says_what_a_registry_shows_of_it() {
    let crates = crates();
    assert!(crates.keys().eq(ROOM.iter().map(|(name, _)| name)), "{:?}", crates.keys());
    for (name, package) in crates {
        let text = |key: &str| package[key].as_str().unwrap_or_else(|| panic!("{name} has no {key}"));
        let list = |key: &str| {
            let list = package[key].as_array().unwrap().iter();
            list.map(|word| word.as_str().unwrap()).collect::<BTreeSet<_>>()
        };
        assert!((20..=120).contains(&text("description").len()), "{name}: {}", text("description"));
        assert!(text("documentation").starts_with("https://") && text("repository").starts_with("https://"));
        assert_eq!(text("license"), "MIT OR Apache-2.0");
        assert!(package["publish"].is_null(), "{name} is not for registries");

        let keywords = list("keywords");
        assert!((1..=5).contains(&keywords.len()), "{name}: {keywords:?}");
        assert!(keywords.iter().all(|word| word.len() <= 20 && !word.contains(' ')), "{name}: {keywords:?}");
        let categories = list("categories");
        assert!((1..=5).contains(&categories.len()), "{name}: {categories:?}");
        assert!(categories.iter().all(|category| CATEGORIES.contains(category)), "{name}: {categories:?}");

        let readme = fs::read_to_string(directory(package).join(text("readme"))).unwrap();
        assert!(readme.starts_with(&format!("# {name}\n")), "{name}: {readme}");
        let documented = &package["metadata"]["docs"]["rs"];
        assert!(documented["targets"].is_array(), "{name}: for which systems is it documented?");
        let has_features = !package["features"].as_object().unwrap().is_empty();
        assert_eq!(documented["all-features"] == Value::Bool(true), has_features, "{name}");
    }
}

#[test]
fn every_crate_is_small_and_has_its_licences() {
    for (name, room) in ROOM {
        let root = directory(crates()[name]);
        let listed = cargo(&["package", "--list", "--allow-dirty", "--package", name]);
        let files: BTreeSet<_> = listed.lines().collect();
        for file in ["Cargo.toml", "LICENSE-APACHE", "LICENSE-MIT", "README.md"] {
            assert!(files.contains(file), "{name} has no {file}");
        }
        // cargo makes two of them itself
        let sizes = files.iter().filter_map(|file| Some((fs::metadata(root.join(file)).ok()?.len(), *file)));
        let mut sizes: Vec<_> = sizes.collect();
        sizes.sort();
        let whole: u64 = sizes.iter().map(|(size, _)| size).sum();
        let largest = &sizes[sizes.len().saturating_sub(5)..];
        println!("{name}: {} files, {whole} bytes of {room}", files.len());
        assert!(whole <= room, "{name} has {whole} bytes, and may have {room}; the largest: {largest:?}");
        assert!(whole * 2 > room, "{name} has {whole} bytes: lower its room in this file, now {room}");
    }
}

/// A version such as 1.91.
fn version(text: &str) -> Vec<u32> {
    text.split('.').map(|part| part.parse().unwrap()).collect()
}

/// Nothing that a user's build takes in asks for a newer compiler than the one that the crates name.
#[test]
fn the_rust_that_is_named_suffices_for_all_dependencies() {
    let crates = crates();
    let ours = crates["forkd"]["rust_version"].as_str().unwrap();
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    assert!(readme.contains(&format!("Rust {ours} or newer")), "README.md does not name Rust {ours}");

    let nodes = METADATA["resolve"]["nodes"].as_array().unwrap();
    let nodes: BTreeMap<_, _> = nodes.iter().map(|node| (node["id"].as_str().unwrap(), node)).collect();
    let mut seen = BTreeSet::new();
    let mut open: Vec<_> = crates.values().map(|package| package["id"].as_str().unwrap()).collect();
    while let Some(id) = open.pop() {
        if !seen.insert(id) {
            continue;
        }
        let is_for_tests = |kind: &Value| kind["kind"] == "dev";
        let used = nodes[id]["deps"].as_array().unwrap().iter();
        let used = used.filter(|used| !used["dep_kinds"].as_array().unwrap().iter().all(is_for_tests));
        open.extend(used.map(|used| used["pkg"].as_str().unwrap()));
    }
    assert!(seen.len() > 50, "{seen:?}");
    for package in packages().filter(|package| seen.contains(package["id"].as_str().unwrap())) {
        if let Some(needed) = package["rust_version"].as_str() {
            assert!(
                version(needed) <= version(&format!("{ours}.0")),
                "{} needs Rust {needed}",
                package["id"]
            );
        }
    }
}

/// The files of the repository in `.github`, by their paths there.
fn forge(directory: &str) -> Vec<(PathBuf, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(".github").join(directory);
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.is_file())
        .map(|path| (path.clone(), fs::read_to_string(path).unwrap()))
        .collect()
}

/// What a workflow does is in scripts of this repository.
#[test]
fn every_script_that_a_workflow_runs_is_there() {
    let mut scripts = 0;
    for (workflow, text) in forge("workflows") {
        let words =
            text.split_whitespace().filter(|word| word.starts_with(".ci/") || word.starts_with("packaging/"));
        // a comment may end with one
        for script in words.map(|word| word.trim_end_matches([',', '.', ':'])) {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(script);
            let mode = fs::metadata(&path).map(|file| file.permissions().mode());
            assert!(mode.is_ok_and(|mode| mode & 0o111 != 0), "{}: {script}", workflow.display());
            scripts += 1;
        }
    }
    assert!(scripts > 5, "{scripts}");
}

/// Who reports a bug is asked for what forkd can tell.
#[test]
fn every_command_that_a_report_asks_for_is_one() {
    let mut commands = BTreeSet::new();
    for (template, text) in forge("ISSUE_TEMPLATE") {
        for command in text.lines().filter_map(|line| line.trim().strip_prefix("label: forkd ")) {
            let words = ["forkd"].into_iter().chain(command.split(' ')).map(Into::into);
            let is_one = match Cli::from_args(words) {
                Ok(_) => true,
                // --version
                Err(error) => !error.use_stderr(),
            };
            assert!(is_one, "{}: forkd {command}", template.display());
            commands.insert(command.to_owned());
        }
    }
    assert!(commands.len() > 2, "{commands:?}");
}
