//! The build script hands `src/child.ld` to linkers that understand it, and to no other, wherever the checkout is.
#![cfg(target_os = "linux")]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[allow(dead_code)]
#[path = "../build.rs"]
mod build;

use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
fn gnu_ld_and_lld_get_the_script_and_no_other_linker_does() {
    for version in [
        "GNU ld (GNU Binutils for Debian) 2.40\nCopyright (C) 2023 Free Software Foundation, Inc.",
        "GNU ld version 2.41-37.fc40",
        "LLD 20.1.8 (compatible with GNU linkers)",
        "Debian LLD 14.0.6 (compatible with GNU linkers)",
    ] {
        assert!(build::takes_scripts(version), "{version}");
    }
    for version in [
        "mold 1.10.1 (compatible with GNU ld)",
        "mold 2.40.1 (compatible with GNU ld and LLD)",
        "GNU gold (GNU Binutils for Debian 2.40) 1.16",
        "Wild version 0.6.0 (compatible with GNU linkers)",
        "",
    ] {
        assert!(!build::takes_scripts(version), "{version}");
    }
}

#[test]
fn the_options_that_choose_a_linker_are_found_in_each_form() {
    let flags = [
        "-C",
        "target-feature=+crt-static",
        "-Clink-arg=-fuse-ld=/opt/my linkers/mold",
        "-C",
        "link-args=-fuse-ld=lld -Wl,-O1",
        "-C",
        "link-arg=-B/opt/ld",
    ]
    .join("\u{1f}");
    let found = build::arguments_of_linker(&flags);
    assert_eq!(found, ["-fuse-ld=/opt/my linkers/mold", "-fuse-ld=lld", "-Wl,-O1", "-B/opt/ld"]);
    assert!(build::arguments_of_linker("").is_empty());
}

/// With each linker that is installed here a program links, from a checkout whose path has all that a shell would take apart.
#[test]
fn a_program_links_with_what_the_linker_gets() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("a check'out, of \"mine\" $HOME");
    fs::create_dir_all(root.join("src")).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/child.ld");
    fs::copy(script, root.join("src/child.ld")).unwrap();
    fs::write(root.join("main.c"), "int main(void) { return 0; }\n").unwrap();
    // the first: the compiler's own choice
    for chosen in ["-O0", "-fuse-ld=bfd", "-fuse-ld=gold", "-fuse-ld=lld", "-fuse-ld=mold"] {
        let version = build::version_of_linker("", &format!("-C\u{1f}link-arg={chosen}"));
        if version.is_empty() {
            continue;
        }
        let mut link = Command::new("cc");
        link.arg(chosen);
        if build::takes_scripts(&version) {
            link.arg(build::script_of(root.to_str().unwrap()));
        }
        let linked = link.arg("-o").arg(root.join("main")).arg(root.join("main.c")).output().unwrap();
        let errors = String::from_utf8_lossy(&linked.stderr);
        assert!(linked.status.success(), "{chosen}: {errors}");
        assert!(Command::new(root.join("main")).status().unwrap().success(), "{chosen}");
    }
}
