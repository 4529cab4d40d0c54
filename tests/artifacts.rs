//! What packaging/build makes for a release: each is there, has what it should, and runs on a root of its own.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]
#![cfg(target_os = "linux")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::*;
use serde_json::Value;

const RPM_BUILD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/rpm/build");

/// The directory that packaging/build has filled, if .ci/run has had it done.
fn artifacts() -> Option<PathBuf> {
    let directory = std::env::var_os("FORKD_ARTIFACTS").unwrap_or_default();
    need(!directory.is_empty(), "FORKD_ARTIFACTS names no directory that packaging/build has filled")
        .then(|| directory.into())
}

fn ending(directory: &Path, end: &str) -> PathBuf {
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = paths.filter(|path| path.to_string_lossy().ends_with(end)).collect();
    assert_eq!(found.len(), 1, "one {end} in {}", directory.display());
    found.remove(0)
}

#[track_caller]
fn done(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a program in a root that has nothing but itself, and has it echo over TCP and UDP.
fn serves_in(root: &Path, program: &str) {
    let mut chroot = Command::new(tool("chroot").unwrap());
    chroot.arg(root).args([program, "serve", "--log", "stderr", "tcp://127.0.0.1:0", "udp://127.0.0.1:0"]);
    let mut daemon = chroot.env_clear().stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut endpoints = Vec::new();
    for line in BufReader::new(daemon.stderr.take().unwrap()).lines().map_while(Result::ok) {
        let endpoint = line.split_once("listening on ").and_then(|(_, rest)| rest.split(' ').next());
        endpoints.extend(endpoint.map(str::to_owned));
        if line.contains("ready pid=") {
            break;
        }
    }
    let answers: Vec<_> = endpoints.iter().map(|endpoint| run(&["probe", endpoint]).code).collect();
    signal(daemon.id() as i32, nix::sys::signal::Signal::SIGTERM);
    let status = daemon.wait().unwrap();
    assert_eq!((answers, status.code()), (vec![Some(0), Some(0)], Some(0)), "{endpoints:?}");
}

#[test]
fn the_sums_are_right_and_name_all() {
    let Some(directory) = artifacts() else { return };
    done(Command::new("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(&directory));
    let sums = fs::read_to_string(directory.join("SHA256SUMS")).unwrap();
    for entry in fs::read_dir(&directory).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name == "SHA256SUMS" || sums.contains(&format!("  {name}\n")), "{name} has no sum");
    }
}

#[test]
fn the_tarball_has_all_and_runs_where_nothing_else_is() {
    let Some(directory) = artifacts() else { return };
    let tarball = ending(&directory, ".tar.gz");
    let name = tarball.file_name().unwrap().to_str().unwrap().strip_suffix(".tar.gz").unwrap();
    assert!(name.starts_with(&format!("forkd-{}-", env!("CARGO_PKG_VERSION"))), "{name}");
    let root = tempfile::tempdir().unwrap();
    done(Command::new("tar").arg("-xzf").arg(&tarball).arg("-C").arg(root.path()));
    let top = root.path().join(name);
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    for file in [
        "CHANGELOG.md",
        "LICENSE-APACHE",
        "LICENSE-MIT",
        "README.md",
        "completions/_forkd",
        "completions/forkd.bash",
        "completions/forkd.fish",
        "forkd",
        "forkd.toml",
        "man/forkd.1",
        "man/forkd.toml.5",
        "systemd/forkd.service",
        "systemd/examples/bind.conf",
    ] {
        assert!(top.join(file).is_file(), "{file}");
    }
    let version = done(Command::new(top.join("forkd")).arg("--version"));
    assert_eq!(version, format!("forkd {}\n", env!("CARGO_PKG_VERSION")));
    if need_root() {
        serves_in(&top, "/forkd");
    }
}

#[test]
fn the_rpm_is_installed_in_a_root_of_its_own() {
    let Some(directory) = artifacts().filter(|_| need_root() && need_tool("rpm")) else { return };
    let package = ending(&directory, ".rpm");
    let root = tempfile::tempdir().unwrap();
    let rpm = || {
        let mut rpm = Command::new("rpm");
        rpm.arg("--root").arg(root.path());
        rpm
    };
    // its scripts are for a running system: tests/system/rpm.sh
    done(rpm().args(["--install", "--noscripts", "--nodeps", "--force-debian"]).arg(&package));
    assert_eq!(done(rpm().args(["--verify", "--noscripts", "--nodeps", "forkd"])), "");
    let files = done(rpm().args(["--query", "--list", "forkd"]));
    for file in [
        "/usr/bin/forkd",
        "/etc/forkd/forkd.toml",
        "/usr/share/doc/forkd/changelog.gz", // README.md links to it
        "/usr/share/man/man1/forkd.1.gz",
        "/usr/share/licenses/forkd/LICENSE-MIT",
    ] {
        assert!(files.lines().any(|line| line == file), "{file}\n{files}");
    }
    assert_eq!(done(rpm().args(["--query", "--configfiles", "forkd"])), "/etc/forkd/forkd.toml\n");
    assert_eq!(done(rpm().args(["--query", "--queryformat", "%{LICENSE}", "forkd"])), "MIT OR Apache-2.0");
    serves_in(root.path(), "/usr/bin/forkd");
    done(rpm().args(["--erase", "--noscripts", "forkd"]));
    assert!(
        !root.path().join("usr/bin/forkd").exists() && !root.path().join("etc/forkd/forkd.toml").exists()
    );
}

/// The files of a package as dpkg and rpm list them, without directories and what only one of them has.
fn common_files(list: &str) -> Vec<String> {
    let files = list.lines().map(|line| line.trim_start_matches('.').trim_end_matches(".gz"));
    let own = ["/usr/share/licenses", "/usr/share/lintian", "/copyright", "changelog", "/CHANGELOG.md"];
    let is_common = |file: &&str| !file.ends_with('/') && !own.iter().any(|part| file.contains(part));
    let name = |file: &str| file.replace("/vendor-completions/", "/site-functions/");
    let mut files: Vec<_> = files.filter(is_common).map(name).collect();
    files.sort();
    files
}

#[test]
fn both_packages_have_the_same_files() {
    let tools = ["rpm", "dpkg-deb", "tar"].iter().all(|tool| need_tool(tool));
    let Some(directory) = artifacts().filter(|_| tools) else { return };
    let listed = "dpkg-deb --fsys-tarfile \"$1\" | tar -t";
    let deb = done(Command::new("sh").args(["-c", listed, "sh"]).arg(ending(&directory, ".deb")));
    let listed = "rpm --query --list --verbose --package \"$1\" | sed -n '/^-/s|.* /|/|p'"; // no directories
    let rpm = done(Command::new("sh").args(["-c", listed, "sh"]).arg(ending(&directory, ".rpm")));
    let (deb, rpm) = (common_files(&deb), common_files(&rpm));
    assert!(deb.len() > 60, "{deb:?}");
    assert_eq!(deb, rpm);
}

/// What `cargo tree` says the program is made of for its target, and of what each part: procedural macros are none.
fn tree(target: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["tree", "--locked", "--package", "forkd", "--target", target, "--prefix", "depth"]);
    cargo.args(["--edges", "normal,no-proc-macro", "--format", " {p}"]);
    let (mut parts, mut above) = (BTreeMap::<_, BTreeSet<_>>::new(), Vec::new());
    for line in done(cargo.current_dir(env!("CARGO_MANIFEST_DIR"))).lines() {
        let words: Vec<_> = line.split(' ').take(3).collect();
        let part = format!("{} {}", words[1], words[2].trim_start_matches('v'));
        above.truncate(words[0].parse().unwrap());
        parts.entry(part.clone()).or_default();
        if let Some(user) = above.last() {
            parts.get_mut::<String>(user).unwrap().insert(part.clone());
        }
        above.push(part);
    }
    parts
}

#[test]
fn the_list_of_parts_is_what_the_program_is_made_of() {
    let Some(directory) = artifacts() else { return };
    let list = ending(&directory, ".cdx.json");
    let text = fs::read_to_string(&list).unwrap();
    let bill: Value = serde_json::from_str(&text).unwrap();
    let program = &bill["metadata"]["component"];
    let mut names = BTreeMap::new();
    for part in bill["components"].as_array().unwrap().iter().chain([program]) {
        let name = format!("{} {}", part["name"].as_str().unwrap(), part["version"].as_str().unwrap());
        let is_new = names.insert(part["bom-ref"].as_str().unwrap(), name).is_none();
        assert!(is_new, "{part}");
        let is_own = part["name"].as_str().unwrap().starts_with("forkd");
        let is_crate = part["purl"].is_string();
        assert_eq!(part["hashes"].is_array(), is_crate && (!is_own || part == program), "{part}");
        assert_eq!(part["licenses"].is_array(), is_crate, "{part}");
    }
    let mut parts: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for part in bill["dependencies"].as_array().unwrap() {
        let made_of = part["dependsOn"].as_array().unwrap().iter();
        let made_of = made_of.map(|part| names[part.as_str().unwrap()].clone());
        parts.insert(names[part["ref"].as_str().unwrap()].clone(), made_of.collect());
    }
    // beside the crates there is what the compiler and the linker add
    let own = parts.get_mut(&format!("forkd {}", env!("CARGO_PKG_VERSION"))).unwrap();
    let added: Vec<_> =
        own.extract_if(.., |part| ["std", "glibc"].contains(&part.split(' ').next().unwrap())).collect();
    assert!(added.iter().any(|part| part.starts_with("std 1.")), "{added:?}");

    let name = list.file_name().unwrap().to_str().unwrap();
    let target = name.splitn(3, '-').nth(2).unwrap().trim_end_matches(".cdx.json");
    assert_eq!(parts, tree(target));
    assert_eq!(parts.len() + added.len(), names.len());
    assert!(parts.len() > 50 && !parts.keys().any(|part| part.starts_with("tokio ")), "{parts:?}");
    let program_of_tarball =
        format!("tar -xzOf {} --wildcards '*/forkd' | sha256sum", ending(&directory, ".tar.gz").display());
    let sum = done(Command::new("sh").args(["-c", &program_of_tarball]));
    assert_eq!(program["hashes"][0]["content"].as_str(), sum.split(' ').next());
}

#[test]
fn packages_for_the_other_architecture_differ_in_nothing_else() {
    let tools = ["rpm", "rpmbuild", "dpkg-deb", "cargo-deb"].iter().all(|tool| need_tool(tool));
    let Some(directory) = artifacts().filter(|_| tools) else { return };
    let (target, arch, machine, own) = if cfg!(target_arch = "x86_64") {
        ("aarch64-unknown-linux-gnu", "arm64", "aarch64", ["amd64", "x86_64"])
    } else {
        ("x86_64-unknown-linux-gnu", "amd64", "x86_64", ["arm64", "aarch64"])
    };
    // no package is made of what is in the program
    let room = tempfile::tempdir().unwrap();
    let built = room.path().join(target).join("release");
    fs::create_dir_all(&built).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_forkd"), built.join("forkd")).unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["deb", "--fast", "--locked", "--no-build", "--no-strip", "--target", target, "--output"]);
    cargo.arg(room.path().join("forkd.deb")).env("CARGO_TARGET_DIR", room.path());
    done(cargo.current_dir(env!("CARGO_MANIFEST_DIR")));
    let fields = |package: &Path| {
        let fields = done(Command::new("dpkg-deb").arg("--field").arg(package));
        fields.lines().filter(|line| !line.starts_with("Installed-Size")).collect::<Vec<_>>().join("\n")
    };
    let other = fields(&room.path().join("forkd.deb"));
    assert!(other.contains(&format!("\nArchitecture: {arch}\n")), "{other}");
    assert_eq!(fields(&ending(&directory, ".deb")), other.replace(arch, own[0]));

    done(Command::new(RPM_BUILD).arg(room.path().join("forkd.deb")).arg(machine).arg(room.path()));
    let facts = |package: &Path| {
        let mut rpm = Command::new("rpm");
        rpm.args(["--query", "--package", "--requires", "--queryformat", "%{NVRA} %{OS} %{LICENSE}\n"]);
        done(rpm.arg(package))
    };
    let other = facts(&ending(room.path(), ".rpm"));
    assert!(other.contains(&format!("-1.{machine} linux MIT OR Apache-2.0\n")), "{other}");
    assert_eq!(facts(&ending(&directory, ".rpm")), other.replace(machine, own[1]));
}

#[test]
fn the_same_files_make_the_same_rpm() {
    let tools = ["rpm", "rpmbuild", "dpkg-deb"].iter().all(|tool| need_tool(tool));
    let Some(directory) = artifacts().filter(|_| tools) else { return };
    let package = ending(&directory, ".rpm");
    let time = ["--query", "--queryformat", "%{BUILDTIME}", "--package"];
    let time = done(Command::new("rpm").args(time).arg(&package));
    let room = tempfile::tempdir().unwrap();
    let mut again = Command::new(RPM_BUILD);
    again.arg(ending(&directory, ".deb")).arg(std::env::consts::ARCH).arg(room.path());
    done(again.env("SOURCE_DATE_EPOCH", time));
    assert!(fs::read(package).unwrap() == fs::read(ending(room.path(), ".rpm")).unwrap());
}
