//! The recipes of packaging/ for other systems are of this version, and their shells and parsers can read them.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::*;

const RECIPES: [&str; 4] = ["alpine/APKBUILD", "arch/PKGBUILD", "nix/package.nix", "homebrew/forkd.rb"];

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(name)
}

#[test]
fn they_are_of_this_version_and_say_what_the_program_says() {
    for recipe in RECIPES {
        let text = fs::read_to_string(path(recipe)).unwrap();
        let version = env!("CARGO_PKG_VERSION");
        let versions = [
            format!("pkgver={version}\n"),
            format!("version = \"{version}\""),
            format!("/v{version}.tar.gz\""),
        ];
        assert!(versions.iter().any(|version| text.contains(version)), "{recipe} is not of {version}");
        for part in [
            env!("CARGO_PKG_REPOSITORY"),
            "Network daemon for echo and other services, by forks, threads or events",
        ] {
            assert!(text.contains(part), "{recipe} has no {part:?}");
        }
        let licences = ["mit", "MIT"].iter().any(|name| text.contains(name))
            && ["asl20", "Apache-2.0"].iter().any(|name| text.contains(name));
        assert!(licences, "{recipe}");
        assert!(text.contains("man") && text.contains("completions"), "{recipe}");
    }
}

#[track_caller]
fn reads(tool: &str, arguments: &[&str], name: &str) {
    if need_tool(tool) {
        let output = Command::new(tool).args(arguments).arg(path(name)).output().unwrap();
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        assert!(output.status.success(), "{tool} of {name}: {said:?}");
    }
}

#[test]
fn shells_can_read_them() {
    // the variables are for others, or come from them
    let recipe = ["--exclude=SC2034,SC2154,SC2164", "--shell"];
    reads("shellcheck", &[&recipe[..], &["dash"]].concat(), "alpine/APKBUILD");
    reads("shellcheck", &[&recipe[..], &["bash"]].concat(), "arch/PKGBUILD");
    reads("shellcheck", &["--shell=dash", "--exclude=SC2034,SC2154"], "alpine/forkd.initd");
    reads("shellcheck", &["--shell=dash", "--exclude=SC2034"], "alpine/forkd.confd");
    for script in ["rpm/post", "rpm/preun", "rpm/postun", "postinst", "prerm", "preinst", "postrm"] {
        reads("shellcheck", &["--shell=dash", "--exclude=SC2046,SC2086"], script);
    }
    reads("shellcheck", &[], "build");
    reads("shellcheck", &[], "rpm/build");
}

#[test]
fn other_parsers_can_read_them() {
    for file in ["nix/package.nix", "nix/module.nix"] {
        reads("nix-instantiate", &["--parse"], file);
    }
    reads("ruby", &["-c"], "homebrew/forkd.rb");
}

#[test]
fn the_service_of_alpine_has_options_that_there_are() {
    let conf = fs::read_to_string(path("alpine/forkd.confd")).unwrap();
    let (_, rest) = conf.split_once("forkd_args=\"").unwrap();
    let arguments: Vec<_> = rest.split('"').next().unwrap().split(' ').collect();
    let ended = run(&[&["check"][..], &arguments].concat());
    assert_eq!(ended.code, Some(0), "{ended:?}");
}
