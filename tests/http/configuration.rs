//! What is served, and from where: the options, a reload, and a daemon with few rights.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::sys::signal::Signal;

use super::*;

#[test]
fn a_file_that_may_not_be_read_is_forbidden() {
    if !need_root() {
        return;
    }
    let forkd = forkd_http("-m fork --user nobody --group nogroup");
    let unreadable = forkd.dir.path().join("root/unreadable");
    fs::write(&unreadable, SECRET).unwrap();
    fs::set_permissions(unreadable, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    // the directory is open before the user is another
    let daemon = forkd.start();
    fs::set_permissions(daemon.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    assert_eq!(status(&get(&daemon, "/unreadable")), 403);
    assert_eq!(status(&get(&daemon, "/digits.txt")), 200);
}

#[test]
fn without_a_root_there_are_texts() {
    let daemon = Daemon::start("--service http --route /a.json={} --route /time=never");
    assert!(get(&daemon, "/").ends_with("Here are:\n/a.json\n/time\n"));
    assert!(get(&daemon, "/a.json").contains("\r\nContent-Type: application/json\r\n"));
    assert!(get(&daemon, "/time").ends_with("\r\n\r\nnever"));
    assert_eq!(status(&get(&daemon, "/etc/passwd")), 404);
}

#[test]
fn a_relative_root_starts_where_the_daemon_does() {
    let forkd = Forkd::new("--service http --root root").within(&["env", "-C", "{dir}"]);
    fill(forkd.dir.path());
    let daemon = forkd.start();
    assert_eq!(status(&get(&daemon, "/digits.txt")), 200);
    // what is printed is the same from anywhere, as from / in the background
    let checked = run_in(daemon.dir.path(), &["check", "--service", "http", "--root", "root", "tcp://a:1"]);
    let expected = format!("root = \"{}\"", daemon.path("root").display());
    assert!(checked.stdout.contains(&expected), "{}{}", checked.stdout, checked.stderr);
}

fn run_in(dir: &Path, args: &[&str]) -> Ended {
    forkd(forkd_command().args(args).current_dir(dir))
}

#[test]
fn a_root_that_is_missing_is_said_before_the_start() {
    for command in ["serve", "check"] {
        let ended = run(&[command, "--service", "http", "--root", "/nowhere/at/all", "tcp://127.0.0.1:0"]);
        assert_eq!(ended.code, Some(78), "{command}");
        let expected = "cannot serve the files of /nowhere/at/all: No such file or directory";
        assert!(ended.stderr.contains(expected), "{command}: {}", ended.stderr);
    }
    for (args, expected) in [
        (&["--root", "/", "tcp://127.0.0.1:0"][..], "--root needs the service http"),
        (&["--route", "/a=b", "tcp://127.0.0.1:0"], "--route needs the service http"),
        (
            &["--service", "http", "udp://127.0.0.1:0"],
            "is http, which needs a connection, and udp://127.0.0.1:0 has none",
        ),
        (&["--service", "http", "--route", "a=b"], "write them as PATH=TEXT"),
    ] {
        let ended = run(&[&["check"], args].concat());
        assert!(ended.stderr.contains(expected), "{}", ended.stderr);
        assert!([Some(64), Some(2)].contains(&ended.code), "{:?}", ended.code);
    }
}

under_models! {
    [fork spare prefork iterative thread event coroutine]

    fn the_root_is_the_one_that_has_the_name_now(model) {
        let forkd = Forkd::new(&format!("{model} --service http --root {{dir}}/root"));
        let dir = forkd.dir.path().to_owned();
        for release in ["one", "two"] {
            fs::create_dir(dir.join(release)).unwrap();
            fs::write(dir.join(release).join("a"), release).unwrap();
        }
        symlink("one", dir.join("root")).unwrap();
        let daemon = forkd.start();
        // a connection that stays sees it as well
        let mut staying = daemon.connect();
        let mut over_it = || {
            staying.write_all(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
            let mut heard = Vec::new();
            while !heard.ends_with(b"one") && !heard.ends_with(b"two") {
                let mut byte = [0];
                staying.read_exact(&mut byte).unwrap();
                heard.push(byte[0]);
            }
            text(heard)
        };
        let answer = over_it();
        assert!(answer.ends_with("one"));
        let field = |name: &str| {
            let line = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            line.unwrap_or_else(|| panic!("no {name} in {answer}")).to_owned()
        };
        let (tag, date) = (field("ETag"), field("Last-Modified"));
        symlink("two", dir.join("next")).unwrap();
        fs::rename(dir.join("next"), dir.join("root")).unwrap();
        assert!(over_it().ends_with("two"));
        drop(staying);
        for fields in [format!("If-None-Match: {tag}"), format!("If-Modified-Since: {date}")] {
            let answer = ask(&daemon, &format!("GET /a HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n"));
            assert!(status(&answer) == 200 && answer.ends_with("two"), "{fields}: {answer}");
        }
        fs::rename(dir.join("two"), dir.join("old")).unwrap();
        assert_eq!(status(&get(&daemon, "/a")), 404, "what has gone is not served");
        fs::create_dir(dir.join("two")).unwrap();
        fs::write(dir.join("two/a"), "three").unwrap();
        assert!(get(&daemon, "/a").ends_with("three"));
    }
}

#[test]
fn a_root_can_be_replaced_under_another_user() {
    if !need_root() {
        return;
    }
    let daemon = forkd_http("-m prefork -w 1 --user nobody --group nogroup").start();
    fs::set_permissions(daemon.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    assert_eq!(status(&get(&daemon, "/digits.txt")), 200);
    fs::rename(daemon.path("root"), daemon.path("old")).unwrap();
    fs::create_dir(daemon.path("root")).unwrap();
    fs::write(daemon.path("root/new.txt"), "new").unwrap();
    assert_eq!((status(&get(&daemon, "/digits.txt")), status(&get(&daemon, "/new.txt"))), (404, 200));
}

#[test]
fn a_root_can_be_replaced_below_another_root_directory() {
    if !need_root() {
        return;
    }
    let forkd = Forkd::new("-m prefork -w 1 --service http --root {dir}/jail/root --chroot {dir}/jail");
    let jail = forkd.dir.path().join("jail");
    fill(&jail);
    let daemon = forkd.start();
    assert_eq!(status(&get(&daemon, "/digits.txt")), 200);
    fs::rename(jail.join("root"), jail.join("old")).unwrap();
    assert_eq!(status(&get(&daemon, "/digits.txt")), 404);
    fs::create_dir(jail.join("new")).unwrap();
    fs::write(jail.join("new/new.txt"), "new").unwrap();
    symlink("new", jail.join("root")).unwrap();
    assert_eq!((status(&get(&daemon, "/digits.txt")), status(&get(&daemon, "/new.txt"))), (404, 200));
}

fn configured(text: &str) -> String {
    format!(
        "[[listen]]\nendpoints = ['tcp://127.0.0.1:0']\nservice = 'http'\nroot = 'ROOT'\nroute = ['/hello={text}']\n"
    )
}

#[track_caller]
fn reload(daemon: &Daemon) -> Ended {
    forkd(forkd_command().arg("reload").arg("--control").arg(daemon.control()))
}

#[test]
fn a_reload_takes_the_directory_that_is_there_now() {
    let forkd = Forkd::new("--config {dir}/f.toml");
    let (dir, root) = (forkd.dir.path().to_owned(), forkd.dir.path().join("root"));
    fill(&dir);
    let write =
        |text: &str| fs::write(dir.join("f.toml"), configured(text).replace("ROOT", root.to_str().unwrap()));
    write("one").unwrap();
    let daemon = forkd.start();
    assert!(get(&daemon, "/hello").ends_with("one") && get(&daemon, "/digits.txt").ends_with("0123456789"));
    fs::rename(&root, dir.join("old")).unwrap();
    write("two").unwrap();
    let ended = reload(&daemon);
    assert!(ended.code == Some(78) && ended.stderr.contains("cannot serve the files"), "{}", ended.stderr);
    assert!(get(&daemon, "/hello").ends_with("one"), "the old configuration goes on");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("digits.txt"), "new").unwrap();
    assert_eq!(reload(&daemon).code, Some(0));
    assert!(get(&daemon, "/hello").ends_with("two") && get(&daemon, "/digits.txt").ends_with("new"));
}

#[test]
fn a_root_outside_of_the_root_directory_is_kept_by_a_reload() {
    if !need_root() {
        return;
    }
    let forkd = Forkd::new("--config {dir}/f.toml --chroot {dir}/jail --log-level info");
    let dir = forkd.dir.path().to_owned();
    fill(&dir);
    let toml = configured("one").replace("ROOT", dir.join("root").to_str().unwrap());
    fs::write(dir.join("f.toml"), &toml).unwrap();
    // where a reload looks for the file
    let inner = dir.join("jail").join(dir.strip_prefix("/").unwrap());
    fs::create_dir_all(&inner).unwrap();
    fs::write(inner.join("f.toml"), &toml).unwrap();
    let daemon = forkd.start();
    assert_eq!(status(&get(&daemon, "/digits.txt")), 200);
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_line("the new configuration is in force");
    assert_eq!(status(&get(&daemon, "/digits.txt")), 200);
}
