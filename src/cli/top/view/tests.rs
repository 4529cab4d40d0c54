//! What is on the screen, and what keys do to it.

use super::super::model::Go;
use super::*;
use crate::daemon::status::{ListenerStatus, Status};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::{Value, json};

fn child(pid: u32, bytes_in: u64) -> Value {
    json!({
        "pid": pid, "slot": pid - 100, "endpoint": "tcp://127.0.0.1:7007", "state": "serving", "serving": 1,
        "threads": 2,         "peer": format!("10.0.0.1:{}", 1000 + pid), "age_s": f64::from(pid), "connections": 1,
        "bytes_in": bytes_in, "bytes_out": 0,
    })
}

fn status(pid: u32, uptime_s: f64, connections: u64, children: &[Value]) -> Status {
    let listener = json!({
        "endpoint": "tcp://127.0.0.1:7007", "service": "echo", "model": "fork", "alive": children.len(),
        "peak": 9, "forked": connections, "connections": connections, "failed": 0, "bytes_in": 0,
        "bytes_out": 4096 * connections,
        "queued": 3, "queue_limit": 128, "dropped": 10 * connections, "spread": 0.75,
        "refused": {"limit": 3}, "deaths": {"done": 5, "SIGSEGV": 1},
    });
    let status = json!({ "pid": pid, "uptime_s": uptime_s, "listeners": [listener], "children": children });
    serde_json::from_value(status).unwrap()
}

/// A model with so many children, that has looked twice.
fn model(children: u32) -> Model {
    let mut model = Model::new(Duration::from_secs(1));
    let children =
        |n: u64| (101..=100 + children).map(|pid| child(pid, n * u64::from(pid % 7))).collect::<Vec<_>>();
    model.heard(0.0, Ok(status(42, 60.0, 10, &children(0))));
    model.heard(1.0, Ok(status(42, 61.0, 14, &children(2048))));
    model
}

/// What a terminal of this size shows; tells the model how much fits.
fn screen(model: &mut Model, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let mut page = 0;
    terminal.draw(|frame| page = draw(frame, model)).unwrap();
    model.set_page(page);
    terminal.backend().to_string()
}

fn press(model: &mut Model, keys: &[KeyCode]) {
    for &code in keys {
        assert_eq!(model.key(KeyEvent::new(code, KeyModifiers::NONE)), Go::On);
    }
}

fn type_in(model: &mut Model, text: &str) {
    text.chars().for_each(|c| press(model, &[KeyCode::Char(c)]));
}

/// The pids of the rows, in their order.
fn pids(screen: &str) -> Vec<u32> {
    let rows = screen.lines().filter(|line| line.contains("10.0.0.1"));
    rows.map(|row| row.trim_matches('"').split_whitespace().next().unwrap().parse().unwrap()).collect()
}

#[test]
fn everything_is_there() {
    let text = screen(&mut model(3), 130, 30);
    for part in [
        "forkd 42  3 children: 3 serving  up 1m 1s  4.0 conn/s  4.0 forks/s  0B/s in  16.0KB/s out",
        "children 3",
        "serving 3",
        "threads 6",
        "conn/s 4",
        "forks/s 4",
        "B/s in 0  out 16.0K",
        "dropped by the kernel: 140 (40.0/s)  refused: limit=3  deaths: SIGSEGV=1 done=5  workers: spread=0.75",
        "3/128 ",
        "AGE^",
        "10.0.0.1:1101",
        "q quit  ? help",
    ] {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
    assert_eq!(pids(&text), [101, 102, 103]);
    // 2048 times the rest of the pid by 7
    assert!(text.contains("10.0K") && text.contains("6.0K"), "{text}");
}

#[test]
fn children_are_sorted_by_any_column_in_either_direction() {
    let mut model = model(9);
    press(&mut model, &[KeyCode::Char('r')]);
    assert_eq!(pids(&screen(&mut model, 120, 30))[..2], [109, 108]);
    press(&mut model, &[KeyCode::Right, KeyCode::Right]);
    let text = screen(&mut model, 120, 30);
    assert!(text.contains("IN/Sv"), "{text}");
    // 104 is 6 more than a multiple of 7
    assert_eq!(pids(&text)[0], 104);
    press(&mut model, &[KeyCode::Right; 8]);
    assert!(screen(&mut model, 120, 30).contains("AGEv"));
    press(&mut model, &[KeyCode::Left; 11]);
    assert!(screen(&mut model, 120, 30).contains("THREADSv"));
}

#[test]
fn a_filter_is_typed_kept_and_taken_back() {
    let mut model = model(40);
    type_in(&mut model, "/113X");
    assert!(screen(&mut model, 120, 30).contains("/113X "));
    assert_eq!(model.rows.len(), 0);
    press(&mut model, &[KeyCode::Backspace, KeyCode::Enter]);
    let text = screen(&mut model, 120, 30);
    // by its own pid, and by its peer's port
    assert_eq!(pids(&text), [113, 130, 131, 132, 133, 134, 135, 136, 137, 138, 139]);
    assert!(text.contains("filter: 113"), "{text}");
    // a letter is a command again
    press(&mut model, &[KeyCode::Char('r')]);
    assert_eq!(pids(&screen(&mut model, 120, 30))[0], 139);
    press(&mut model, &[KeyCode::Esc]);
    assert_eq!(model.rows.len(), 40);
    type_in(&mut model, "/SERVING");
    assert_eq!(model.rows.len(), 40);
    press(&mut model, &[KeyCode::Esc]);
    assert!(model.filter.is_empty() && !model.is_typing);
}

#[test]
fn thousands_are_scrolled_and_only_those_that_fit_are_drawn() {
    let mut model = model(5000);
    let text = screen(&mut model, 120, 30);
    let page = pids(&text).len();
    assert!((10..30).contains(&page), "{text}");
    assert!(text.contains(&format!("1-{page} of 5000")), "{text}");
    press(&mut model, &[KeyCode::PageDown, KeyCode::Down, KeyCode::Char('j'), KeyCode::Char('k')]);
    assert_eq!(pids(&screen(&mut model, 120, 30))[0], 101 + page as u32 + 1);
    press(&mut model, &[KeyCode::End, KeyCode::Down]);
    assert_eq!(pids(&screen(&mut model, 120, 30)).last(), Some(&5100));
    // fewer children, or a larger terminal, leave no gap
    assert_eq!(pids(&screen(&mut model, 120, 60)).last(), Some(&5100));
    model.heard(2.0, Ok(status(42, 62.0, 14, &[child(101, 0), child(102, 0)])));
    assert_eq!(pids(&screen(&mut model, 120, 30)), [101, 102]);
    press(&mut model, &[KeyCode::PageUp, KeyCode::Home]);
}

#[test]
fn a_pause_holds_the_picture() {
    let mut model = model(3);
    press(&mut model, &[KeyCode::Char('p')]);
    model.heard(2.0, Ok(status(42, 62.0, 99, &[])));
    model.heard(3.0, Err("gone".into()));
    let text = screen(&mut model, 120, 30);
    assert!(text.contains("PAUSED") && text.contains("3 children") && !text.contains("gone"), "{text}");
    press(&mut model, &[KeyCode::Char(' ')]);
    model.heard(4.0, Ok(status(42, 64.0, 99, &[])));
    assert!(screen(&mut model, 120, 30).contains(" 0 children"));
}

#[test]
fn a_restart_is_said() {
    let mut model = model(3);
    model.heard(2.0, Err("no daemon answers at /x".into()));
    let text = screen(&mut model, 120, 30);
    assert!(text.contains("no daemon answers at /x; asking again"), "{text}");
    assert!(text.contains("forkd 42  NO ANSWER for 1s  had 3 children: 3 serving "), "{text}");
    assert!(!text.contains("conn/s 4") && !text.contains("up "), "{text}");
    assert_eq!(model.history.back().map(|point| point.children), Some(0.0));
    model.heard(3.0, Ok(status(43, 0.5, 1, &[])));
    let text = screen(&mut model, 120, 30);
    assert!(text.contains("another daemon answers: pid 43 after 42") && text.contains("forkd 43"), "{text}");
    // nothing to compare with, and then news gets old
    assert!(text.contains("0.0 conn/s"), "{text}");
    for n in 1..=6 {
        model.heard(3.0, Ok(status(43, 0.5 + f64::from(n), 1, &[])));
    }
    assert!(!screen(&mut model, 120, 30).contains("another daemon"));
}

#[test]
fn silence_is_said_before_anything_fails() {
    let mut model = model(3);
    assert!(!model.now(3.9), "an answer may take a moment");
    assert!(!screen(&mut model, 120, 30).contains("NO ANSWER"));
    assert!(model.now(4.1) && !model.now(4.2) && model.now(5.0));
    let text = screen(&mut model, 120, 30);
    assert!(text.contains("forkd 42  NO ANSWER for 4s  had 3 children: 3 serving "), "{text}");
    // what is not looked at is not missed
    press(&mut model, &[KeyCode::Char('p')]);
    assert!(!screen(&mut model, 120, 30).contains("NO ANSWER"));
    model.heard(9.0, Ok(status(42, 69.0, 14, &[])));
    press(&mut model, &[KeyCode::Char('p')]);
    assert!(!screen(&mut model, 120, 30).contains("NO ANSWER"));
}

#[test]
fn a_stop_is_said() {
    let mut model = model(3);
    assert!(!screen(&mut model, 120, 30).contains("RUNNING"));
    model.heard(2.0, Ok(Status { phase: "draining".into(), ..status(42, 62.0, 14, &[]) }));
    assert!(screen(&mut model, 120, 30).contains("forkd 42  DRAINING  0 children"));
}

#[test]
fn help_comes_and_goes() {
    let mut model = model(3);
    press(&mut model, &[KeyCode::Char('?')]);
    let text = screen(&mut model, 100, 30);
    assert!(KEYS.iter().all(|(key, what)| text.contains(key) && text.contains(what)), "{text}");
    press(&mut model, &[KeyCode::Char('x')]);
    assert!(!screen(&mut model, 100, 30).contains("this help"));
}

#[test]
fn it_ends_at_these_keys() {
    let key = |code, modifiers| KeyEvent::new(code, modifiers);
    for (code, modifiers) in [
        (KeyCode::Char('q'), KeyModifiers::NONE),
        (KeyCode::Char('c'), KeyModifiers::CONTROL),
        (KeyCode::Char('d'), KeyModifiers::CONTROL),
    ] {
        assert_eq!(model(1).key(key(code, modifiers)), Go::Away);
    }
    // in a filter a q is a letter
    let mut typing = model(1);
    type_in(&mut typing, "/q");
    assert_eq!(typing.filter, "q");
    assert_eq!(typing.key(key(KeyCode::Char('c'), KeyModifiers::CONTROL)), Go::Away);
}

#[test]
fn any_size_will_do() {
    let mut model = model(50);
    for (width, height) in [(1, 1), (3, 2), (20, 5), (80, 10), (80, 24), (300, 100)] {
        press(&mut model, &[KeyCode::Char('?')]);
        screen(&mut model, width, height);
        press(&mut model, &[KeyCode::Char('x')]);
        screen(&mut model, width, height);
    }
    // a small one has no charts, but children
    let text = screen(&mut model, 80, 12);
    assert!(text.contains("refused: limit=3"), "{text}");
    assert!(!text.contains("now") && !pids(&text).is_empty(), "{text}");
    // before the first answer
    screen(&mut Model::new(Duration::from_secs(1)), 80, 24);
}

/// A daemon with long numbers and names, that has looked twice.
fn wide_model() -> Model {
    let child = |pid: u32, bytes: u64| {
        let mut child = child(pid, bytes);
        child["connections"] = json!(1_234_567_890_u64);
        child["peer"] = json!(format!("198.51.100.213:{}", 20_000 + pid % 100));
        child
    };
    let children = |bytes: u64| (30_390..30_420).map(|pid| child(pid, bytes)).collect::<Vec<_>>();
    let mut model = Model::new(Duration::from_secs(1));
    model.heard(0.0, Ok(status(30_389, 60.0, 0, &children(0))));
    model.heard(1.0, Ok(status(30_389, 61.0, 12_345, &children(39_834))));
    model
}

#[test]
fn on_a_narrow_terminal_everything_is_whole_or_missing() {
    let mut model = wide_model();
    let whole = |word: &str| {
        let number = word.trim_end_matches(['s', 'K', 'M', ',', ':']);
        let known = [
            "30389",
            "30",
            "9",
            "1",
            "2",
            "60",
            "1234567890",
            "12345.0",
            "123450",
            "3/128",
            "12345",
            "38.9",
            "48.2",
            "0",
            "0.0",
            "5",
            "3",
            "-60",
            "0B/",
            "48.2MB/",
            "1m",
            "limit=3",
            "done=5",
            "SIGSEGV=1",
        ];
        let is_pid = (30_390..30_420).any(|pid| number == pid.to_string());
        let is_place =
            number.split_once('-').is_some_and(|(first, last)| first == "1" && last.parse::<u8>().is_ok());
        let is_age =
            number.strip_suffix(".0").is_some_and(|age| (30_390..30_420).any(|pid| age == pid.to_string()));
        known.contains(&number)
            || is_pid
            || is_place
            || is_age
            || number.parse::<u32>().is_ok_and(|age| (30_390..30_420).contains(&age))
    };
    for width in 5..=130 {
        for height in [5, 12, 24] {
            let text = screen(&mut model, width, height);
            for line in text.lines() {
                let words = line.split([' ', '"', '│']);
                let numbers = words.filter(|word| word.starts_with(|c: char| c.is_ascii_digit()));
                for word in numbers.filter(|word| !word.contains([':', '…'])) {
                    assert!(whole(word), "{word:?} at {width}x{height} in\n{text}");
                }
            }
        }
    }
}

#[test]
fn what_matters_most_is_shown_where_there_is_little_room() {
    let text = screen(&mut wide_model(), 60, 20);
    for part in ["children 30  threads 60  serving 30", "198.51.100.213:20090", "38.9K", " 1-6 of 30 "] {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
    // the column by which they are sorted is always there
    let mut model = wide_model();
    press(&mut model, &[KeyCode::Right]);
    let text = screen(&mut model, 45, 20);
    assert!(text.contains("CONNS^") && text.contains("1234567890") && !text.contains("THREADS"), "{text}");
    let text = screen(&mut model, 100, 30);
    assert!(text.contains("serving 30  ") && text.contains("conn/s 12345  forks/s 12345"), "{text}");
    assert!(text.contains("LISTENER ") && text.contains(" of 30 "), "{text}");
    // children, even on so few lines
    let text = screen(&mut model, 20, 5);
    assert!(text.contains(" 1-2 of 30 ") && text.contains("30390"), "{text}");
    assert!(screen(&mut model, 20, 3).contains(" 0 of 30 "));
}

/// A daemon with two workers that accept by themselves, that has looked twice; one uses half of a processor.
fn workers() -> Model {
    let worker = |number: u32, cpu_s: f64| {
        let mut child = child(201 + number, 0);
        child["state"] = json!("ready");
        (child["peer"], child["connections"]) = (json!("-"), json!(0));
        child["worker"] = json!({
            "number": number, "generation": 4, "status": format!("is worker {number}"), "cpu_s": cpu_s,
            "rss_bytes": (1 + number) << 20,
        });
        child
    };
    let at = |uptime_s: f64, cpu_s: f64| {
        let mut status = status(42, uptime_s, 2, &[worker(0, 1.0), worker(1, cpu_s)]);
        let first = &mut status.listeners[0];
        (first.knows_clients, first.restarts) = (false, 3);
        let beside = ListenerStatus {
            endpoint: "udp://127.0.0.1:7007".into(),
            workers_of: Some(first.endpoint.clone()),
            ..first.clone()
        };
        status.listeners.push(beside);
        status
    };
    let mut model = Model::new(Duration::from_secs(1));
    model.heard(0.0, Ok(at(60.0, 2.0)));
    model.heard(1.0, Ok(at(61.0, 2.5)));
    model
}

#[test]
fn of_workers_that_accept_by_themselves_is_shown_what_is_known() {
    let mut model = workers();
    let text = screen(&mut model, 130, 30);
    let words = |begin: &str| {
        let line = text.lines().map(|line| line.trim_matches('"')).find(|line| line.starts_with(begin));
        let line = line.unwrap_or_else(|| panic!("{begin:?} in\n{text}"));
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(words("PID"), ["PID", "WORKER", "STATE", "%CPU", "RSS", "AGE^", "LISTENER", "STATUS"]);
    let listener = "tcp://127.0.0.1:7007";
    assert_eq!(words("201"), ["201", "0", "ready", "0.0", "1.0M", "201.0s", listener, "is", "worker", "0"]);
    assert_eq!(words("202"), ["202", "1", "ready", "50.0", "2.0M", "202.0s", listener, "is", "worker", "1"]);
    assert_eq!(words("tcp:")[3..], ["2", "9", "3/128", "-", "-", "-"]);
    assert_eq!(words("udp:")[3..], ["-", "-", "3/128", "-", "-", "-"]);
    for part in
        ["served by the workers of tcp://127.0.0.1:7007", "restarts: workers=3", "2 children: 2 ready"]
    {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
    assert!(!text.contains("0.0 conn/s"), "{text}");
    // it is sorted by what is shown
    press(&mut model, &[KeyCode::Left, KeyCode::Char('r')]);
    assert!(screen(&mut model, 130, 30).contains("RSSv"));
    assert_eq!(model.rows, [1, 0]);
    type_in(&mut model, "/worker 0");
    assert_eq!(model.rows, [0]);
}

#[test]
fn a_daemon_without_children_has_no_less_than_none() {
    let text = screen(&mut model(0), 100, 30);
    assert!(text.contains("children 0  threads 0  serving 0 "), "{text}");
}

#[test]
fn listeners_without_room_are_counted() {
    let mut status = status(42, 60.0, 1, &[]);
    status.listeners = vec![status.listeners[0].clone(); 9];
    let mut model = Model::new(Duration::from_secs(1));
    model.heard(0.0, Ok(status));
    // two lines for each, and a head
    assert!(screen(&mut model, 80, 24).contains("and 7 more"));
    assert!(!screen(&mut model, 80, 80).contains("more"));
    assert!(screen(&mut model, 15, 24).contains("tcp://127.0.0.…"));
}

#[test]
fn numbers_are_short() {
    for (n, text) in [(0.0, "0"), (12.0, "12"), (1.5, "1.5"), (999.0, "999"), (1024.0, "1.0K"), (1e9, "954M")]
    {
        assert_eq!(short(n), text);
    }
    for (n, text) in [(2000.0, "2000"), (1.5, "1.5"), (99.96, "100"), (0.0, "0")] {
        assert_eq!(count(n), text);
    }
    for (seconds, text) in [(0.0, "0s"), (61.9, "1m 1s"), (90_061.0, "1day 1h")] {
        assert_eq!(uptime(seconds), text);
    }
    for (seconds, text) in [(0.04, "0.0s"), (999.94, "999.9s"), (999.96, "1000s"), (1e6, "12d")] {
        assert_eq!(age(seconds), text);
    }
}
