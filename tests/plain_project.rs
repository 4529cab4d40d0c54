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

    let (built, said) = cargo(directory, &["build", "--offline"]);
    assert!(built && !said.contains("warning"), "{said}");
    for model in ["fork", "thread", "event"] {
        assert_eq!(serves(directory, model, "hello\n"), ("5\n".into(), String::new()), "{model}");
    }
    errors_are_seen(directory);
    mistakes_are_explained(directory);
}

/// Runs cargo; tells whether it succeeds, and what it says.
fn cargo(directory: &Path, args: &[&str]) -> (bool, String) {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(args).current_dir(directory).env("CARGO_TARGET_DIR", directory.join("target"));
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET"] {
        cargo.env_remove(name);
    }
    let output = cargo.output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn program(directory: &Path, model: &str) -> Command {
    let mut program = Command::new(directory.join("target/debug/plain"));
    program.arg(model).stdout(Stdio::piped()).stderr(Stdio::piped());
    program
}

/// What a client hears that says this, and what the program says on standard error.
#[track_caller]
fn serves(directory: &Path, model: &str, says: &str) -> (String, String) {
    let mut server = program(directory, model).spawn().unwrap();
    let mut address = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut address).unwrap();
    let mut client = TcpStream::connect(address.trim().strip_prefix("tcp://").unwrap()).unwrap();
    client.write_all(says.as_bytes()).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    let output = server.wait_with_output().unwrap();
    assert!(output.status.success(), "{model}: {}", output.status);
    (answer, String::from_utf8(output.stderr).unwrap())
}

/// There is no logger that would write them.
fn errors_are_seen(directory: &Path) {
    for model in ["fork", "thread", "iterative"] {
        let (answer, said) = serves(directory, model, "fail\n");
        assert!(
            answer.is_empty() && said.starts_with("forkd-server: the handler of 127.0.0.1:"),
            "{model}: {said}"
        );
        assert!(said.ends_with(" failed: as was wished\n") && said.lines().count() == 1, "{model}: {said}");
    }
    let output = program(directory, "forks").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("Error: no model \"forks\": there are fork, "), "{said}");
}

/// By the compiler, to those that have written something else first.
fn mistakes_are_explained(directory: &Path) {
    let program = fs::read_to_string(directory.join("src/main.rs")).unwrap();
    for (wrong, message, advice) in [
        ("server.ready(Length)", "`Length` is no service", "Service::handler(\"my-service\", || MyHandler)"),
        ("server.ready(|| Length)", " is no service", "Service::handler(\"my-service\", || MyHandler)"),
        (
            "server.ready(Lengths::default)",
            " is no service",
            "Service::protocol(\"my-service\", || MyProtocol)",
        ),
        (
            "server.ready(Service::handler(\"lengths\", Lengths::default))",
            "`Lengths` is no `Handler`",
            "takes a closure that makes a handler",
        ),
    ] {
        fs::write(directory.join("src/main.rs"), program.replace("server.ready(service)", wrong)).unwrap();
        let (checked, said) = cargo(directory, &["check", "--offline"]);
        assert!(!checked && said.contains(message) && said.contains(advice), "{wrong}: {said}");
    }
}
