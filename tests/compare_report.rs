//! The reports of `forkd compare`, made of records that were kept (`--from`).
//!
//! What is shown is compared with files in `tests/compare`; `FORKD_BLESS=1` writes these anew, after
//! a change of a report, when you have read the result.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::*;

const RECORDS: [&str; 5] = ["seven", "sweep", "before", "after", "failed"];

fn kept(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compare").join(name)
}

fn record(name: &str) -> String {
    kept(&format!("{name}.json")).display().to_string()
}

fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

/// A command that shows a record, in a locale with Unicode, and no terminal.
fn shows(name: &str) -> Command {
    let mut command = forkd_command();
    command.env_remove("COLUMNS").env_remove("NO_COLOR").env("LC_ALL", "C.UTF-8");
    command.args(["compare", "--from", &record(name)]);
    command
}

/// Runs it to its good end; returns what it prints.
#[track_caller]
fn shown(command: &mut Command) -> String {
    let ended = forkd(command);
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "{command:?}");
    ended.stdout
}

/// Runs it to its bad end; returns the code and the complaint.
#[track_caller]
fn refused(args: &[&str]) -> (Option<i32>, String) {
    let ended = run(&[&["compare"], args].concat());
    assert_eq!(ended.stdout, "", "{}", ended.stderr);
    (ended.code, ended.stderr)
}

#[track_caller]
fn is_as_kept(name: &str, text: &str) {
    let path = kept(name);
    if std::env::var_os("FORKD_BLESS").is_some() {
        fs::write(&path, text).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(text == expected, "{name} has changed (FORKD_BLESS=1 keeps what is new); now:\n{text}");
}

fn widest(text: &str) -> usize {
    text.lines().map(|line| line.chars().count()).max().unwrap_or(0)
}

#[test]
fn what_is_shown_is_as_it_was() {
    is_as_kept("wide.txt", &shown(&mut shows("seven")));
    is_as_kept("narrow.txt", &shown(shows("sweep").env("COLUMNS", "80")));
    is_as_kept("failed.txt", &shown(shows("failed").env("COLUMNS", "60")));
    is_as_kept("ascii.txt", &shown(shows("seven").env("COLUMNS", "80").env("LC_ALL", "C")));
    is_as_kept("sweep.md", &shown(shows("sweep").arg("--markdown")));
    is_as_kept("difference.txt", &shown(shows("after").args(["--baseline", &record("before")])));
}

#[test]
fn lines_fit_the_terminal() {
    for columns in [20, 40, 60, 80, 100, 200] {
        for name in RECORDS {
            let text = shown(shows(name).env("COLUMNS", columns.to_string()));
            // a column can't be narrower than what stands in it, nor a bar than its label
            let least = if name == "failed" { 52 } else { 38 };
            assert!(widest(&text) <= columns.max(least), "{columns} {name}: {} in\n{text}", widest(&text));
        }
    }
}

#[test]
fn without_unicode_there_is_ascii_alone_in_the_same_places() {
    let (unicode, ascii) = (shown(&mut shows("sweep")), shown(shows("sweep").env("LC_ALL", "POSIX")));
    assert!(ascii.is_ascii() && !unicode.is_ascii());
    let lengths = |text: &str| text.lines().take(12).map(|line| line.chars().count()).collect::<Vec<_>>();
    assert_eq!(lengths(&ascii), lengths(&unicode));
}

/// By script(1), which gives it a terminal.
#[test]
fn colours_are_for_terminals_whose_user_wants_them() {
    if !need_tool("script") {
        return;
    }
    let on_terminal = |no_color: &str| {
        let command = format!("{} compare --from {}", env!("CARGO_BIN_EXE_forkd"), record("sweep"));
        let mut script = Command::new("script");
        script.args(["-qec", &command, "/dev/null"]);
        script.env("TERM", "xterm").env("NO_COLOR", no_color).env("LC_ALL", "C.UTF-8").env_remove("COLUMNS");
        forkd(&mut script).stdout
    };
    assert!(on_terminal("").contains("\x1b[33mwarning: the machine was busy"));
    assert!(!on_terminal("1").contains('\x1b'));
    assert!(!shown(&mut shows("sweep")).contains('\x1b'));
}

/// The records that are kept show the format, too.
#[test]
fn json_comes_back_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    for name in RECORDS {
        let copy = dir.path().join(name);
        shown(shows(name).arg("--json").arg(&copy));
        assert!(text(&copy) == text(record(name)), "{name}");
        assert!(shown(shows(name).args(["--json", "-"])) == text(record(name)), "{name}");
    }
}

#[test]
fn a_record_of_before_a_figure_was_kept_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let old = dir.path().join("old.json");
    let kept = text(record("seven"));
    let lines: Vec<&str> = kept.lines().filter(|line| !line.contains("\"spread\"")).collect();
    assert!(lines.len() < kept.lines().count());
    fs::write(&old, lines.join("\n")).unwrap();
    let mut command = forkd_command();
    command.env_remove("COLUMNS").env("LC_ALL", "C.UTF-8").args(["compare", "--from"]).arg(&old);
    assert!(shown(&mut command) == shown(&mut shows("seven")));
}

#[test]
fn csv_has_every_figure_once() {
    let dir = tempfile::tempdir().unwrap();
    let csv = |name: &str| {
        let path = dir.path().join(name);
        shown(shows(name).arg("--csv").arg(&path));
        text(path)
    };
    is_as_kept("failed.csv", &csv("failed"));
    let sweep = csv("sweep");
    let keys: Vec<&str> = sweep.lines().map(|line| line.rsplitn(5, ',').last().unwrap()).collect();
    let mut once = keys.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), keys.len());
    let json: serde_json::Value = serde_json::from_str(&text(record("sweep"))).unwrap();
    let fork = &json["models"][1];
    for (clients, churn) in [(1, &fork["growth"][0]["churn"]), (1000, &fork["churn"])] {
        let start = format!("fork,,{clients},churn,conn_per_s,{},", churn["conn_per_s"]);
        assert!(sweep.lines().any(|line| line.starts_with(&start)), "{start}\n{sweep}");
    }
}

fn parse(text: &str) -> roxmltree::Document<'_> {
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
    roxmltree::Document::parse_with_options(text, options).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// That it is one file: nothing is loaded, and nothing is run.
#[track_caller]
fn stands_alone(text: &str) {
    for node in parse(text).descendants().filter(roxmltree::Node::is_element) {
        let name = node.tag_name().name();
        assert!(
            !["script", "link", "img", "image", "iframe", "use", "object", "foreignObject"].contains(&name),
            "{name}"
        );
        for attribute in node.attributes() {
            let (name, value) = (attribute.name(), attribute.value());
            assert!(!name.starts_with("on") && !["src", "href"].contains(&name), "{name}={value}");
        }
    }
    let without_names = text.replace("http://www.w3.org/2000/svg", "");
    for address in ["http:", "https:", "//", "url(", "@import", "data:"] {
        assert!(!without_names.replace("tcp://", "").contains(address), "{address}");
    }
}

#[test]
fn pages_and_pictures_are_sound_and_stand_alone() {
    let dir = tempfile::tempdir().unwrap();
    for name in RECORDS {
        let (page, pictures) = (dir.path().join("page.html"), dir.path().join(name));
        shown(shows(name).arg("--html").arg(&page).arg("--svg").arg(&pictures));
        stands_alone(&text(page));
        let names: Vec<_> = fs::read_dir(&pictures).unwrap().map(|entry| entry.unwrap().path()).collect();
        for picture in &names {
            assert!(picture.extension().is_some_and(|extension| extension == "svg"), "{picture:?}");
            let text = text(picture);
            stands_alone(&text);
            // programs that draw slides know no variables
            let is_dark = picture.ends_with("overview-dark.svg");
            let blue = if is_dark { "#5aa9e6" } else { "#0072b2" };
            assert!(!text.contains("var(") && text.contains(blue), "{picture:?}");
        }
        let has = |name: &str| names.iter().any(|path| path.file_name().is_some_and(|file| file == name));
        assert!(
            name == "failed" || has("overview.svg") && has("connections.svg") && has("memory.svg"),
            "{names:?}"
        );
        assert_eq!(has("growth-connections.svg"), name == "sweep", "{names:?}");
    }
}

#[test]
fn names_are_text_wherever_they_stand() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("page.html");
    shown(shows("failed").arg("--html").arg(&path));
    let page = text(&path);
    assert!(!page.contains("<script") && page.contains("&lt;script&gt;alert(1)"), "{page}");
    // nor do they steer a terminal
    let evil = dir.path().join("evil.json");
    let steering = "\\u001b[2J\\u202e\u{9b}31m\\nhalf";
    fs::write(&evil, text(record("failed")).replace("half", steering)).unwrap();
    let is_harmless = |said: &str, shown: &str| {
        assert!(!said.contains(['\x1b', '\u{9b}', '\u{202e}']) && said.contains(shown), "{said:?}");
    };
    let shows = |args: &[&str]| forkd(forkd_command().args(["compare", "--from"]).arg(&evil).args(args));
    is_harmless(&shows(&[]).stdout, r"\u{1b}[2J\u{202e}\u{9b}31m\nhalf");
    is_harmless(&shows(&["--json", "-"]).stdout, "half");
    is_harmless(&shows(&["--models", "no\u{9b}one"]).stderr, r"no\u{9b}one");
}

#[test]
fn a_page_says_what_has_changed() {
    let dir = tempfile::tempdir().unwrap();
    let page = dir.path().join("page.html");
    shown(shows("after").args(["--baseline", &record("before"), "--html"]).arg(&page));
    let page = text(page);
    assert!(
        page.contains("<h2>What has changed</h2>") && page.contains("more, hardly by chance (p = 0.008)")
    );
    let other = shown(shows("after").args(["--baseline", &record("sweep")]));
    assert!(
        other.contains("warning: the settings differ: clients [1,10,100,1000], now [100]; rounds 3, now 5"),
        "{other}"
    );
}

#[test]
fn what_is_no_record_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = |content: &str| {
        let path = dir.path().join("file");
        fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let whole = text(record("failed"));
    for (content, expected) in [
        (
            whole.replacen("\"version\": 1", "\"version\": 2", 1),
            "is of version 2, and this forkd reads version 1",
        ),
        (whole[..whole.len() / 2].to_owned(), "not what forkd compare --json has written, or not all of it"),
        (whole.replacen("\"rounds\": 1", "\"rounds\": \"x\"", 1), "at line "),
        ("{}".into(), "it has no version"),
        ("[1]".into(), "it has no version"),
        (String::new(), "or not all of it"),
    ] {
        let path = file(&content);
        for args in [["--from", &path], ["--baseline", &path]] {
            let (code, why) = refused(&args);
            assert!(code == Some(65) && why.contains(expected), "{code:?} {why}");
        }
    }
    let (code, why) = refused(&["--from", "/dev/zero"]);
    assert!(
        code == Some(71) && why.contains("cannot read /dev/zero: it has more than 64 MiB"),
        "{code:?} {why}"
    );
    let (code, why) = refused(&["--from", "/nowhere/at/all"]);
    assert!(code == Some(69) && why.contains("cannot read /nowhere/at/all"), "{code:?} {why}");
}

#[test]
fn what_cannot_be_written_is_told_before_anything_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (seven, there) = (record("seven"), path("there"));
    fs::write(&there, "old").unwrap();
    symlink(&there, path("link")).unwrap();
    for (args, code, expected) in [
        (vec!["--json", &*path("a"), "--csv", &*path("a")], 64, "two reports can't be in one file"),
        (vec!["--html", &*there, "--csv", &*path("link")], 64, "two reports can't be in one file"),
        (vec!["--csv", "-"], 64, "only --json and --markdown can be printed"),
        (vec!["--json", "-", "--markdown"], 64, "only one report can be printed"),
        (vec!["--html", "/nowhere/page.html"], 73, "cannot create /nowhere/page.html"),
        (vec!["--json", &*path("")], 73, "directory"),
        (vec!["--svg", &*there], 73, "cannot create the directory"),
        (vec!["--json", &*there, "--baseline", "/nowhere/old"], 69, "cannot read /nowhere/old"),
    ] {
        let (got, why) = refused(&[&["--from", &*seven], &args[..]].concat());
        assert!(got == Some(code) && why.contains(expected), "{args:?}: {got:?} {why}");
    }
    assert_eq!(text(&there), "old");
    let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[test]
fn a_file_is_replaced_and_keeps_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let [real, link] = ["real.json", "link.json"].map(|name| dir.path().join(name));
    fs::copy(record("before"), &real).unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
    symlink(&real, &link).unwrap();
    // one and the same file may be what is compared with, and what is written
    let said = shown(shows("after").arg("--json").arg(&link).arg("--baseline").arg(&link));
    assert!(said.contains("hardly by chance"), "{said}");
    assert!(link.is_symlink() && text(&real) == text(record("after")));
    assert_eq!(real.metadata().unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    // what is no file is written to
    let said = shown(shows("failed").args(["--csv", "/dev/stdout"]));
    assert!(said.contains("model,workers,clients,phase,figure") && Path::new("/dev/stdout").exists());
}

#[test]
fn a_browser_draws_the_page() {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let Some(browser) = names.into_iter().find(|name| tool(name).is_some()) else {
        need(false, "no Chromium is installed");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    shown(shows("sweep").arg("--html").arg(path("page.html")));
    // says how wide the page is in a frame as wide as a phone
    let phone = "<iframe id=f src=page.html style='width:390px;height:844px;border:0'></iframe><p id=p></p><script>\
        f.onload = () => p.textContent = 'wide ' + f.contentDocument.documentElement.scrollWidth</script>";
    fs::write(path("phone.html"), format!("<body style='margin:0'>{phone}")).unwrap();
    let run = |page: &str, options: &[&str]| {
        let mut command = Command::new("timeout");
        command.args(["60", browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]);
        command.args([
            "--enable-logging=stderr",
            "--allow-file-access-from-files",
            "--virtual-time-budget=3000",
        ]);
        command.arg(format!("--user-data-dir={}", path("profile").display())).args(options);
        let output = command.arg(format!("file://{}", path(page).display())).output().unwrap();
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && !log.contains("CONSOLE"), "{log}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let page = run("page.html", &["--dump-dom"]);
    let (charts, shapes) = (page.matches("<svg").count(), page.matches("<path").count());
    assert!(charts >= 12 && shapes > 50 && page.matches("<text").count() > 200, "{charts} {shapes}");
    // and whether the main table, which comes first, is whole on a page of a usual width
    let usual = "<iframe id=f src=page.html style='width:1280px;height:844px;border:0'></iframe><p id=p></p><script>\
        f.onload = () => { const t = f.contentDocument.querySelector('.scroll'); \
        p.textContent = t.scrollWidth <= t.clientWidth ? 'whole' : t.scrollWidth + ' in ' + t.clientWidth }</script>";
    fs::write(path("usual.html"), format!("<body style='margin:0'>{usual}")).unwrap();
    let usual = run("usual.html", &["--dump-dom"]);
    assert!(usual.contains("<p id=\"p\">whole</p>"), "{usual}");
    let phone = run("phone.html", &["--dump-dom"]);
    assert!(phone.contains("<p id=\"p\">wide 390</p>"), "{phone}");
    let picture = |name: &str, page: &str, options: &[&str]| {
        let to = format!("--screenshot={}", path(name).display());
        run(page, &[&[&*to, "--window-size=1280,3000"], options].concat());
        let bytes = fs::read(path(name)).unwrap();
        assert!(bytes.starts_with(b"\x89PNG") && bytes.len() > 20_000, "{name}: {} bytes", bytes.len());
        bytes
    };
    let light = picture("light.png", "page.html", &["--blink-settings=preferredColorScheme=1"]);
    let dark = picture("dark.png", "page.html", &["--blink-settings=preferredColorScheme=0"]);
    assert!(light != dark);
    picture("phone.png", "phone.html", &[]);
}

/// A record with as many rounds of one model, each of them so many connections per second.
fn made_up(dir: &Path, name: &str, rates: [u32; 5]) -> String {
    let mut record: serde_json::Value = serde_json::from_str(&text(kept("before.json"))).unwrap();
    record["settings"]["phases"] = serde_json::json!(["churn"]);
    let mut entry = record["models"][0].take();
    let rounds: Vec<_> = rates.iter().map(|rate| serde_json::json!({ "conn_per_s": rate })).collect();
    let mut sorted = rates;
    sorted.sort_unstable();
    entry["churn"] = serde_json::json!({ "conn_per_s": sorted[2], "rounds": rounds });
    ["hold", "pingpong", "bulk"].iter().for_each(|phase| entry[*phase] = serde_json::Value::Null);
    record["models"] = serde_json::json!([entry]);
    let path = dir.join(name);
    fs::write(&path, record.to_string()).unwrap();
    path.display().to_string()
}

#[test]
fn only_what_is_worse_beyond_noise_fails() {
    let dir = tempfile::tempdir().unwrap();
    let before = made_up(dir.path(), "before", [1000, 1010, 1020, 1030, 1040]);
    for (name, rates, code, said) in [
        ("regressed", [800, 810, 820, 830, 840], 1, "regression: conn/s of fork is 20 % less"),
        ("noisy", [500, 700, 940, 1500, 2000], 0, "not told from noise: whether conn/s of fork"),
        ("faster", [2000, 2010, 2020, 2030, 2040], 0, "1 of 1 figures are not worse"),
    ] {
        let now = made_up(dir.path(), name, rates);
        let json = dir.path().join(format!("{name}.json"));
        let args = [
            "compare",
            "--from",
            &now,
            "--baseline",
            &before,
            "--fail-on",
            "5%",
            "--json",
            json.to_str().unwrap(),
        ];
        let ended = run(&args);
        assert_eq!(ended.code, Some(code), "{name}: {ended:?}");
        assert!(ended.stdout.contains(said), "{name}: {}", ended.stdout);
        let json: serde_json::Value = serde_json::from_str(&text(json)).unwrap();
        assert_eq!(json["regression"]["failed"], code == 1, "{name}: {json}");
        assert!(json["regression"]["figures"][0]["ratio_high"].is_f64(), "{name}: {json}");
        if code == 1 {
            assert!(
                ended.stderr.starts_with("forkd: error: conn/s of fork is 20 % less"),
                "{}",
                ended.stderr
            );
            assert!(ended.stderr.contains("accept it with a new baseline"), "{}", ended.stderr);
        }
        let page = run(&["compare", "--from", &now, "--baseline", &before, "--fail-on", "5%", "--markdown"]);
        assert!(page.stdout.contains("\nAgainst the baseline:\n\n- "), "{name}: {}", page.stdout);
    }
    // of another plan, and too few rounds for so many figures
    for (baseline, why) in [("sweep", "the settings differ"), ("before", "take --rounds 6 for both")] {
        let ended =
            run(&["compare", "--from", &record("after"), "--baseline", &record(baseline), "--fail-on", "5%"]);
        assert_eq!(ended.code, Some(65), "{ended:?}");
        assert!(ended.stderr.contains(why), "{}", ended.stderr);
    }
}
