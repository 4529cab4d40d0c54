//! What is packaged agrees with the program: manual pages, documents, the default configuration, units.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "package_files/reference.rs"]
mod reference;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use forkd::config::definition::{Definition, Table};
use forkd::config::options::{DaemonOptions, ListenOptions};

/// A file of the repository.
fn file(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Writes the generated files to a directory of their own.
fn generated() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    // `cargo test` builds the examples beside the binary
    let program = PathBuf::from(env!("CARGO_BIN_EXE_forkd")).with_file_name("examples").join("package-files");
    let status = Command::new(program).arg(directory.path()).status().unwrap();
    assert!(status.success());
    directory
}

/// Reads a manual page without the marks of roff(7).
fn page(directory: &tempfile::TempDir, name: &str) -> String {
    let source = fs::read_to_string(directory.path().join(name)).unwrap();
    ["\\fB", "\\fR", "\\&"].iter().fold(source, |text, mark| text.replace(mark, "")).replace("\\-", "-")
}

/// The keys that a table of the configuration file can have, as its reader enumerates them.
fn keys<Table: serde::de::DeserializeOwned>() -> Vec<String> {
    let error = toml::from_str::<Table>("no-such-key = 1").err().unwrap().message().to_owned();
    let (_, expected) = error.split_once("expected one of ").unwrap();
    expected.split(", ").map(|key| key.trim_matches('`').to_owned()).collect()
}

#[test]
fn the_packaged_pages_and_completions_are_those_of_the_program() {
    let directory = generated();
    for (name, line) in [
        ("forkd.1", "man"),
        ("forkd.toml.5", "man forkd.toml.5"),
        ("forkd.bash", "completions bash"),
        ("_forkd", "completions zsh"),
        ("forkd.fish", "completions fish"),
    ] {
        let forkd = Command::new(env!("CARGO_BIN_EXE_forkd")).args(line.split(' ')).output().unwrap();
        assert!(!forkd.stdout.is_empty(), "{forkd:?}");
        assert!(fs::read(directory.path().join(name)).unwrap() == forkd.stdout, "{name} is not forkd {line}");
    }
}

#[test]
fn the_page_of_options_is_that_of_the_definitions() {
    let defined = reference::options();
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/options.md");
    if std::env::var_os("FORKD_BLESS").is_some() {
        fs::write(&page, &defined).unwrap();
    }
    let is_same = fs::read_to_string(&page).unwrap() == defined;
    assert!(
        is_same,
        "docs/reference/options.md is old: FORKD_BLESS=1 cargo test --test package_files writes it"
    );
    for key in keys::<DaemonOptions>().into_iter().chain(keys::<ListenOptions>()) {
        assert!(defined.contains(&format!("<br>`{key} = ")), "{key} in\n{defined}");
    }
}

#[test]
fn the_manual_and_the_default_configuration_have_every_key() {
    let page = page(&generated(), "forkd.toml.5");
    let default = file("packaging/forkd.toml");
    for key in keys::<DaemonOptions>().into_iter().chain(keys::<ListenOptions>()) {
        let start = format!("{key} = ");
        assert!(page.lines().any(|line| line.starts_with(&start)), "{key} in\n{page}");
        assert!(
            default.lines().any(|line| line.trim_start_matches('#').starts_with(&start)),
            "{key} in\n{default}"
        );
    }
}

#[test]
fn the_default_configuration_shows_the_defaults() {
    let default = file("packaging/forkd.toml");
    let daemon = DaemonOptions::augment_args(clap::Command::new("daemon"));
    let listen = ListenOptions::augment_args(clap::Command::new("listen"));
    let mut compared = 0;
    for arg in daemon.get_arguments().chain(listen.get_arguments()) {
        let help = arg.get_help().unwrap().to_string();
        // the path of the control socket is what its default comes to in the unit
        let Some(name) = arg.get_long().filter(|name| *name != "control") else { continue };
        let Some((_, in_help)) = help.split_once(" [default: ") else { continue };
        // one that is not commented out says what its default is, too
        let with =
            |mark: &str| default.lines().find_map(|line| line.strip_prefix(&format!("{mark}{name} = ")));
        let line = with("#").or_else(|| with("")).unwrap();
        let value = line.split_once("# default: ").map_or_else(|| line.trim_matches('"'), |(_, said)| said);
        assert_eq!(value, in_help.trim_end_matches(']'), "{name}");
        compared += 1;
    }
    assert!(compared > 10, "{compared}");
}

#[test]
fn the_default_configuration_is_valid_also_with_its_options_uncommented() {
    let default = file("packaging/forkd.toml");
    check(&default);
    // it is for sockets that forkd does not bind
    check(&default.replace("#exit-idle", "exit-idle"));
    let default = default.replace("#exit-idle", "# exit-idle");
    // less than the smallest of the pools below has places
    let default = default.replace("256:30:768", "2:30:8");
    // it may be missing here
    let default = default.replace("/var/empty", "/").replace("/srv/www", "/");
    // what a socket unit decides can be said only of sockets that forkd binds
    let streams = "\"tcp://[::1]:7\", \"unix:///run/echo.sock\"";
    let any = &*format!("{streams}, \"udp://[::1]:7\"");
    let mut tried = BTreeSet::new();
    for (endpoints, changes) in [
        (any, &[("service = \"echo\"", "service = \"ack\"")][..]),
        (streams, &[("service = \"echo\"", "service = \"http\"")]),
        (streams, &[("service = \"echo\"", "service = \"exec\"")]),
        (
            any,
            &[("\"fork\"", "\"prefork\""), ("workers = 8", "workers = \"1..9\""), ("256:30:768", "2:30:8")],
        ),
        (
            any,
            &[
                ("service = \"echo\"", "service = \"program\""),
                ("\"fork\"", "\"prefork\""),
                // clients that forkd accepts are none
                ("\nmax-per-source", "\n# max-per-source"),
                ("\npenalty", "\n# penalty"),
                ("\nmax-lifetime", "\n# max-lifetime"),
            ],
        ),
        (any, &[("\"fork\"", "\"thread\"")]),
        (any, &[("\"fork\"", "\"thread\""), ("#threads", "# threads")]),
        (any, &[("\"fork\"", "\"event\"")]),
    ] {
        let text = default.replace("\"systemd:echo\"", endpoints);
        let text = changes.iter().fold(text, |text, (from, to)| text.replace(from, to));
        let (idle, effective) = by_effect(&text);
        check(&uncomment(&text, &idle));
        tried.extend(effective);
    }
    assert_eq!(tried, keys::<ListenOptions>().into_iter().collect());
}

/// The options that have no effect on a group that has all of them, and the others.
fn by_effect(text: &str) -> (Vec<String>, Vec<String>) {
    let all: toml::Table = toml::from_str(&uncomment(text, &[])).unwrap();
    let group: ListenOptions = all["listen"][0].clone().try_into().unwrap();
    let is_idle = |option: &&Definition| !option.has_effect_on(&group);
    let (idle, effective): (Vec<_>, Vec<_>) = ListenOptions::DEFINITIONS.iter().partition(is_idle);
    (idle.into_iter().map(Definition::key).collect(), effective.into_iter().map(Definition::key).collect())
}

/// Uncomments each option but these.
fn uncomment(text: &str, but: &[String]) -> String {
    let uncomment = |line| match str::strip_prefix(line, '#') {
        Some(option) if option.starts_with(|first: char| first.is_ascii_lowercase()) => {
            let is_out = option.split_once(" = ").is_none_or(|(key, _)| but.iter().any(|name| name == key));
            if is_out { line } else { option }
        }
        _ => line,
    };
    text.lines().map(uncomment).collect::<Vec<_>>().join("\n")
}

#[track_caller]
fn check(text: &str) {
    let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    fs::write(&path, text).unwrap();
    let forkd = Command::new(env!("CARGO_BIN_EXE_forkd"))
        .args(["check", "--config"])
        .arg(&path)
        .env_clear()
        .output()
        .unwrap();
    assert!(forkd.status.success(), "{}\n{text}", String::from_utf8_lossy(&forkd.stderr));
}

/// The assignments of a unit's section.
fn section(unit: &str, name: &str) -> Vec<String> {
    let text = file(&format!("systemd/{unit}"));
    let (_, rest) = text.split_once(&format!("[{name}]\n")).unwrap();
    let section = rest.split("\n[").next().unwrap();
    section.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

/// Lays out the package's documents below a root directory, as cargo-deb does.
fn documents(generated: &Path, assets: &[toml::Value], root: &Path) {
    for asset in assets {
        let (from, to) = (asset[0].as_str().unwrap(), asset[1].as_str().unwrap());
        if !to.starts_with("usr/share/doc/") {
            continue;
        }
        let source = match from.strip_prefix("target/package/") {
            Some(name) => generated.join(name),
            None => Path::new(env!("CARGO_MANIFEST_DIR")).join(from),
        };
        let (start, end) = from.split_once('*').map_or((from, None), |(start, end)| (start, Some(end)));
        fs::create_dir_all(root.join(to).parent().unwrap()).unwrap();
        fs::create_dir_all(root.join(if to.ends_with('/') { to } else { "" })).unwrap();
        assert!(end.is_none() || start.ends_with('/'), "{from}");
        for entry in fs::read_dir(source.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path()) {
            let name = entry.file_name().unwrap().to_str().unwrap();
            if entry == source || end.is_some_and(|end| name.ends_with(end)) {
                // a changelog is compressed
                let to = if to.ends_with('/') { format!("{to}{name}") } else { format!("{to}.gz") };
                fs::copy(&entry, root.join(to)).unwrap();
            }
        }
    }
}

/// What a heading is called in a link.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings =
        text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_matches(['#', ' ']));
    let plain = |heading: &str| heading.to_lowercase().replace(' ', "-");
    let anchor = |heading| plain(heading).replace(|c: char| !(c.is_alphanumeric() || "-_".contains(c)), "");
    headings.map(anchor).collect()
}

/// The targets of links and pictures, each with its fragment.
fn links(text: &str) -> Vec<(&str, &str)> {
    let starts = [("](", ')'), ("src=\"", '"'), ("srcset=\"", '"')];
    let targets = starts.iter().flat_map(|(start, end)| {
        text.split(start).skip(1).map(|rest| rest.split(*end).next().unwrap_or_default())
    });
    targets.map(|target| target.split_once('#').unwrap_or((target, ""))).collect()
}

#[test]
fn every_link_of_a_packaged_document_leads_somewhere() {
    let manifest: toml::Table = file("Cargo.toml").parse().unwrap();
    let assets = manifest["package"]["metadata"]["deb"]["assets"].as_array().unwrap();
    let (generated, root) = (generated(), tempfile::tempdir().unwrap());
    documents(generated.path(), assets, root.path());
    let repository = concat!(env!("CARGO_PKG_REPOSITORY"), "/");
    let doc = root.path().join("usr/share/doc/forkd");
    for name in ["forkd.1", "forkd.toml.5"] {
        let page = page(&generated, name);
        let (_, named) = page.split_once("/usr/share/doc/forkd/docs/").unwrap();
        assert!(doc.join("docs").join(named.split_whitespace().next().unwrap()).exists(), "{page}");
    }
    let mut followed = 0;
    for directory in ["", "docs", "docs/decisions", "docs/reference"].map(|directory| doc.join(directory)) {
        let entries = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path());
        for document in entries.filter(|path| path.extension().is_some_and(|end| end == "md" || end == "gz"))
        {
            let text = fs::read_to_string(&document).unwrap();
            for (path, fragment) in links(&text) {
                let target = match path.strip_prefix(repository) {
                    // blob/main/PATH, or raw
                    Some(path) => {
                        Path::new(env!("CARGO_MANIFEST_DIR")).join(path.splitn(3, '/').nth(2).unwrap())
                    }
                    None if path.contains("://") => continue,
                    None if path.is_empty() => document.clone(),
                    None => directory.join(path),
                };
                assert!(target.exists(), "{path} in {}", document.display());
                let is_there = || anchors(&fs::read_to_string(&target).unwrap()).contains(fragment);
                assert!(fragment.is_empty() || is_there(), "{path}#{fragment} in {}", document.display());
                followed += 1;
            }
        }
    }
    assert!(followed > 80, "{followed}");
}

#[test]
fn an_instance_is_run_like_the_service() {
    let instance = section("forkd@.service", "Service").join("\n");
    let instance = instance.replace("forkd/%i.toml", "forkd/forkd.toml").replace("forkd-%i", "forkd");
    assert_eq!(instance, section("forkd.service", "Service").join("\n"));
}

#[test]
fn every_line_of_the_service_has_its_reason_in_the_documentation() {
    let documentation = file("docs/SYSTEMD.md");
    let own = section("examples/bind.conf", "Service");
    for line in section("forkd.service", "Service").iter().chain(&own) {
        let (setting, _) = line.split_once('=').unwrap();
        let reason =
            documentation.lines().any(|row| row.starts_with('|') && row.contains(&format!("`{setting}=")));
        assert!(reason, "{setting}=");
    }
}
