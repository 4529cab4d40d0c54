//! The library in a project of its own: by path, on any target, without features and without this workspace's
//! `.cargo/config.toml`.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn a_project_with_the_library_alone_builds_without_a_warning_and_serves() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"));
    let library = workspace.join("crates/forkd-server");
    let project = tempfile::tempdir().unwrap();
    let directory = project.path();
    let manifest = format!(
        "[package]\nname = \"plain\"\nedition = \"2024\"\n[dependencies]\n\
         forkd-server = {{ path = {library:?}, default-features = false }}\n"
    );
    fs::write(directory.join("Cargo.toml"), manifest).unwrap();
    fs::create_dir(directory.join("src")).unwrap();
    fs::copy(workspace.join("tests/common/plain_project.rs"), directory.join("src/main.rs")).unwrap();
    // the versions that this test was built with, which are here
    fs::copy(workspace.join("Cargo.lock"), directory.join("Cargo.lock")).unwrap();

    let mut build = Command::new(env!("CARGO"));
    build
        .args(["build", "--offline"])
        .current_dir(directory)
        .env("CARGO_TARGET_DIR", directory.join("target"));
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET"] {
        build.env_remove(name);
    }
    let built = build.output().unwrap();
    let said = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success() && !said.contains("warning"), "{said}");

    for model in ["fork", "thread", "event"] {
        let program = directory.join("target/debug/plain");
        let mut server = Command::new(program).arg(model).stdout(Stdio::piped()).spawn().unwrap();
        let mut address = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut address).unwrap();
        let mut client = TcpStream::connect(address.trim().strip_prefix("tcp://").unwrap()).unwrap();
        client.write_all(b"hello\n").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!((answer.as_str(), server.wait().unwrap().success()), ("5\n", true), "{model}");
    }
}
