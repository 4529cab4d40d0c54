//! The daemon as a service of a real systemd: the scripts of `tests/system/`, each in a throw-away
//! system of its own (`tests/system/boot.sh`), where it may do as it likes.
//!
//! There, `/test` has the scripts, the binary under test, the units and the load generator.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{need, need_root, need_tool};

/// What the scripts and `boot.sh` call.
const TOOLS: [&str; 10] =
    ["systemd-nspawn", "unshare", "setpriv", "nc", "ncat", "socat", "rsyslogd", "ss", "jq", "perl"];

/// The status of `boot.sh` when the system can't be booted.
const NOT_BOOTED: i32 = 125;

/// The files of this machine that each system gets, and where it has them.
fn files() -> [(PathBuf, &'static str); 7] {
    let binary = Path::new(env!("CARGO_BIN_EXE_forkd"));
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let load = binary.with_file_name("examples").join("test-load");
    assert!(load.exists(), "`cargo test` alone, or `cargo build --examples`, makes {}", load.display());
    [
        (binary.to_owned(), "/test/forkd"),
        (project.join("systemd"), "/test/systemd"),
        (project.join("tests/system"), "/test"),
        (load, "/test/load"),
        (project.join("docs/SYSTEMD.md"), "/test/SYSTEMD.md"),
        (project.join("packaging"), "/test/packaging"),
        (project.join("deploy"), "/test/deploy"),
    ]
}

/// Runs a script in a system of its own, which also gets `more` files.
fn passes(script: &str, more: &[(PathBuf, &str)]) {
    if !need_root() || !TOOLS.iter().all(|tool| need_tool(tool)) {
        return;
    }
    // a system must not outlive the test
    let mut boot = Command::new("setpriv");
    boot.args(["--pdeathsig", "KILL", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/system/boot.sh")]);
    boot.args(files().iter().chain(more).map(|(from, to)| format!("{}:{to}", from.display())));
    boot.arg("--").arg(format!("/test/{script}.sh"));
    let output = boot.stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    if need(output.status.code() != Some(NOT_BOOTED), &stderr) {
        println!("{stdout}\n{stderr}");
        assert!(output.status.success(), "{script}.sh: {}", output.status);
    }
}

#[test]
fn package() {
    if let Some(package) = artifact(".deb") {
        passes("package", &[(package, "/test/forkd.deb")]);
    }
}

/// What packaging/build has made, if .ci/run has had it done: the one file with this end.
fn artifact(end: &str) -> Option<PathBuf> {
    let directory = std::env::var_os("FORKD_ARTIFACTS").unwrap_or_default();
    let is_named =
        need(!directory.is_empty(), "FORKD_ARTIFACTS names no directory that packaging/build has filled");
    let path = is_named.then(|| std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()))?;
    path.into_iter().find(|path| path.to_string_lossy().ends_with(end))
}

#[test]
fn rpm() {
    let tools = ["rpm", "rpmbuild", "dpkg-deb"].iter().all(|tool| need_tool(tool));
    if let Some((rpm, deb)) = artifact(".rpm").zip(artifact(".deb")).filter(|_| tools) {
        let room = tempfile::tempdir().unwrap();
        newer_rpm(&deb, room.path());
        let newer = room.path().join("newer.rpm");
        passes("rpm", &[(rpm, "/test/forkd.rpm"), (newer, "/test/newer.rpm")]);
    }
}

/// Makes the .rpm of another version, whose configuration differs, too.
fn newer_rpm(deb: &Path, room: &Path) {
    let script = r#"
        cd "$2"
        dpkg-deb --raw-extract "$1" tree
        sed -i 's/^Version: .*/Version: 99.0.0-1/' tree/DEBIAN/control
        echo '# new in this version' >>tree/etc/forkd/forkd.toml
        dpkg-deb -Znone --build tree newer.deb
        "$3/packaging/rpm/build" newer.deb "$4" "$2"
        mv forkd-*.rpm newer.rpm"#;
    let mut shell = Command::new("sh");
    shell.args(["-ec", script, "sh"]).args([deb, room, Path::new(env!("CARGO_MANIFEST_DIR"))]);
    let output = shell.arg(std::env::consts::ARCH).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Whether the kernel spreads packets over several targets by nftables, in a network of its own.
fn spreads_packets() -> bool {
    let rules = "add table ip t; add chain ip t c { type nat hook output priority -100; }; \
                 add rule ip t c tcp dport 7 numgen random mod 2 vmap { 0 : accept, 1 : accept }";
    let output = Command::new("unshare").args(["--net", "nft", rules]).output().unwrap();
    need(output.status.success(), &format!("no nftables: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

#[test]
fn drain() {
    let is_there = |tool: &&str| need_tool(tool);
    if need_root() && ["nft", "haproxy", "ip", "unshare"].iter().all(is_there) && spreads_packets() {
        passes("drain", &[]);
    }
}

#[test]
fn dsr() {
    if ["nft", "ip"].iter().all(|tool| need_tool(tool)) {
        passes("dsr", &[]);
    }
}

#[test]
fn haproxy() {
    if ["haproxy", "ip"].iter().all(|tool| need_tool(tool)) {
        passes("haproxy", &[]);
    }
}

#[test]
fn keepalived() {
    if ["keepalived", "ip"].iter().all(|tool| need_tool(tool)) {
        passes("keepalived", &[]);
    }
}

#[test]
fn prefork() {
    if need_tool("curl") {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/PREFORK.md");
        passes("prefork", &[(common::example("axum_prefork"), "/test/hello"), (page, "/test/PREFORK.md")]);
    }
}

macro_rules! scripts {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                passes(stringify!($name), &[]);
            }
        )*

        /// A script that is not run proves nothing.
        #[test]
        fn each_script_is_a_test() {
            let mut known = vec!["boot", "drain", "dsr", "haproxy", "keepalived", "lib", "package", "prefork", "rpm", $(stringify!($name)),*];
            known.sort_unstable();
            let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/system");
            let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let mut found: Vec<String> = names.filter_map(|name| Some(name.strip_suffix(".sh")?.to_owned())).collect();
            found.sort_unstable();
            assert_eq!(found, known);
        }
    };
}

scripts! { activation errors hardening idle inetd instances journal memory metrics mistakes notify overload processes recipes reload restart standalone syslog sysv upgrade watchdog }
