//! Says in plain words what is missing when a static link would fail, and has the linker order the program's text.
//!
//! `.cargo/config.toml` asks for a static program on glibc; that needs `libc.a`, which some
//! distributions ship apart. The linker's own message ("cannot find -lc") names no way out.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    order_text();
    require_libc();
}

/// By `src/child.ld`, which GNU ld and LLD understand; where another linker is chosen, the order is as it comes.
fn order_text() {
    println!("cargo:rerun-if-changed=src/child.ld");
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") && takes_scripts() {
        let root = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!("cargo:rustc-link-arg-bins=-T{root}/src/child.ld");
    }
}

/// Asks the linker, by the compiler that calls it and the options that choose it. One that doesn't say what it is gets none.
fn takes_scripts() -> bool {
    let var = |name: &str| std::env::var(name).unwrap_or_default();
    let driver = Some(var("RUSTC_LINKER")).filter(|name| !name.is_empty()).unwrap_or_else(|| "cc".into());
    let flags = var("CARGO_ENCODED_RUSTFLAGS");
    let chosen = flags.split(['\u{1f}', ' ']).filter_map(|flag| {
        let flag = flag.trim_start_matches("-C");
        flag.strip_prefix("link-arg=").or_else(|| flag.strip_prefix("link-args="))
    });
    let answer = Command::new(driver).args(chosen).arg("-Wl,--version").output();
    let names = answer.map(|answer| String::from_utf8_lossy(&answer.stdout).into_owned()).unwrap_or_default();
    names.lines().next().is_some_and(|name| name.contains("GNU ld") || name.contains("LLD"))
}

fn require_libc() {
    let var = |name: &str| std::env::var(name).unwrap_or_default();
    let is_static = var("CARGO_CFG_TARGET_FEATURE").split(',').any(|f| f == "crt-static");
    if !is_static || var("CARGO_CFG_TARGET_ENV") != "gnu" || var("HOST") != var("TARGET") {
        return;
    }
    let Ok(answer) = Command::new("cc").arg("-print-file-name=libc.a").output() else {
        return; // no cc by that name: whatever links will speak for itself
    };
    // cc answers with the bare name when it has no such file
    let path = String::from_utf8_lossy(&answer.stdout).trim().to_owned();
    if !Path::new(&path).is_absolute() {
        println!("cargo:warning=forkd is linked statically and libc.a is missing");
        println!("cargo:warning=  install it (Debian: libc6-dev, Fedora: glibc-static),");
        println!("cargo:warning=  or build dynamically: RUSTFLAGS=\"\" cargo build --release");
    }
}
