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
    let var = |name: &str| std::env::var(name).unwrap_or_default();
    if var("CARGO_CFG_TARGET_OS") == "linux"
        && takes_scripts(&version_of_linker(&var("RUSTC_LINKER"), &var("CARGO_ENCODED_RUSTFLAGS")))
    {
        println!("cargo:rustc-link-arg-bins={}", script_of(&var("CARGO_MANIFEST_DIR")));
    }
}

/// One argument of the compiler that links, whatever is in the path.
pub(crate) fn script_of(root: &str) -> String {
    format!("-T{root}/src/child.ld")
}

/// What the linker says of itself, asked by the compiler that calls it, with the options that choose it.
pub(crate) fn version_of_linker(compiler: &str, encoded_flags: &str) -> String {
    let compiler = if compiler.is_empty() { "cc" } else { compiler };
    let answer =
        Command::new(compiler).args(arguments_of_linker(encoded_flags)).arg("-Wl,--version").output();
    answer.map(|answer| String::from_utf8_lossy(&answer.stdout).into_owned()).unwrap_or_default()
}

/// What rustc hands on, of its flags as cargo gives them to build scripts; by `link-args` several at once.
pub(crate) fn arguments_of_linker(encoded_flags: &str) -> Vec<&str> {
    let flags = encoded_flags.split('\u{1f}').map(|flag| flag.strip_prefix("-C").unwrap_or(flag));
    flags
        .flat_map(|flag| match (flag.strip_prefix("link-arg="), flag.strip_prefix("link-args=")) {
            (Some(argument), _) => vec![argument],
            (_, Some(arguments)) => arguments.split_whitespace().collect(),
            _ => Vec::new(),
        })
        .collect()
}

/// Whether it understands such a script, by its name. Others call themselves compatible with these two, and are not in
/// this; one that doesn't say what it is gets none.
pub(crate) fn takes_scripts(version: &str) -> bool {
    let name = version.lines().next().unwrap_or_default();
    name.starts_with("GNU ld") || name.split_whitespace().any(|word| word == "LLD")
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
