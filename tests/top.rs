//! `forkd top`, in a terminal of tmux(1).
#![cfg(feature = "top")]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::process::{Child, Command, ExitStatus, Stdio};

use common::*;
use nix::sys::signal::Signal;

/// A terminal with a shell, of a tmux server of its own.
struct Terminal {
    socket: std::path::PathBuf,
    _dir: tempfile::TempDir,
}

impl Terminal {
    /// Starts a shell with an empty screen and a prompt of `$ `.
    fn start(width: u16, height: u16) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let terminal = Self { socket: dir.path().join("tmux"), _dir: dir };
        let (width, height) = (width.to_string(), height.to_string());
        let shell = "env -u ENV PS1='$ ' sh";
        terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", &width, "-y", &height, shell]);
        terminal.shows("$");
        terminal
    }

    #[track_caller]
    fn tmux(&self, args: &[&str]) -> String {
        let mut command = Command::new("tmux");
        command.env_remove("TMUX").arg("-S").arg(&self.socket).args(args);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Waits for a text on the screen.
    #[track_caller]
    fn shows(&self, text: &str) -> String {
        self.becomes(text, |screen| screen.contains(text))
    }

    #[track_caller]
    fn becomes(&self, what: &str, is_it: impl Fn(&str) -> bool) -> String {
        let mut screen = String::new();
        let is_so = becomes_true(LIMIT, || {
            screen = self.screen();
            is_it(&screen)
        });
        assert!(is_so, "{what:?} is not on the screen:\n{screen}");
        screen
    }

    /// Presses keys, by the names that tmux has for them.
    #[track_caller]
    fn press(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// Types a line into the shell.
    #[track_caller]
    fn run(&self, line: &str) {
        self.tmux(&["send-keys", "-l", line]);
        self.press(&["Enter"]);
    }

    /// Runs top on a daemon; the shell says when and how it ended.
    #[track_caller]
    fn top(&self, daemon: &Daemon, before: &str) {
        let (program, control) = (env!("CARGO_BIN_EXE_forkd"), daemon.control().display());
        self.run(&format!(
            "clear; echo before; {before} {program} top --interval 100ms --control {control}; echo end=$?"
        ));
        self.shows(&format!("forkd {}  ", daemon.pid()));
    }

    /// Waits until top has ended with this status, and the terminal is as it was.
    #[track_caller]
    fn is_as_before(&self, status: &str) {
        let screen = self.shows(&format!("end={status}"));
        assert!(screen.starts_with("before\n") && !screen.contains("children"), "{screen}");
        // echo and line editing are on again, and so is the cursor
        self.run("echo $((6*7))");
        self.shows("\n42\n");
        let modes = self.tmux(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]);
        assert_eq!(modes.trim(), "0 1");
    }

    /// The pid of top, which the shell runs.
    #[track_caller]
    fn pid_of_top(&self) -> i32 {
        let shell = self.tmux(&["display-message", "-p", "#{pane_pid}"]).trim().parse().unwrap();
        let mut pid = None;
        eventually("top runs", || {
            let name = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            pid = descendants_of(shell).into_iter().find(|pid| name(pid).trim() == "forkd");
            pid.is_some()
        });
        pid.unwrap()
    }
}

fn descendants_of(pid: i32) -> Vec<i32> {
    let children = children_of(pid);
    let further: Vec<i32> = children.iter().flat_map(|&child| descendants_of(child)).collect();
    [children, further].concat()
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let mut command = Command::new("tmux");
        let _ = command.env_remove("TMUX").arg("-S").arg(&self.socket).arg("kill-server").output();
    }
}

#[test]
fn it_shows_the_daemon_obeys_keys_and_leaves_the_terminal_as_it_was() {
    if !need_tool("tmux") {
        return;
    }
    let daemon = Daemon::start("");
    let terminal = Terminal::start(110, 30);
    terminal.top(&daemon, "");
    terminal.shows("0 children");
    let clients: Vec<Client> = (0..3).map(|_| daemon.served()).collect();
    terminal.shows("3 children: 3 serving");
    let peers: Vec<String> = clients.iter().map(|c| c.local_addr().unwrap().to_string()).collect();
    let screen = terminal.shows(&peers[0]);
    assert!(peers.iter().all(|peer| screen.contains(peer)), "{screen}");
    assert!(screen.contains(&daemon.endpoint(0)) && screen.contains("AGE^"), "{screen}");
    // one of them, by a filter
    terminal.press(&["/"]);
    terminal.tmux(&["send-keys", "-l", &peers[1]]);
    terminal.press(&["Enter"]);
    terminal.becomes("one peer", |screen| screen.contains(&peers[1]) && !screen.contains(&peers[2]));
    terminal.press(&["Escape"]);
    terminal.shows(&peers[2]);
    // another order
    terminal.press(&["Left", "r"]);
    terminal.shows("THREADSv");
    terminal.press(&["?"]);
    terminal.shows("this help");
    terminal.press(&["x", "p"]);
    terminal.shows("PAUSED");
    drop(clients);
    daemon.settles_at(0);
    terminal.shows("3 children");
    terminal.press(&["p"]);
    terminal.shows("0 children");
    terminal.shows("deaths: done=3");
    // smaller, larger
    terminal.tmux(&["resize-window", "-x", "60", "-y", "10"]);
    terminal.becomes("no charts", |screen| !screen.contains(" now"));
    terminal.tmux(&["resize-window", "-x", "110", "-y", "30"]);
    terminal.shows(" now");
    terminal.press(&["q"]);
    terminal.is_as_before("0");
}

#[test]
fn it_finds_the_daemon_that_takes_another_ones_place() {
    if !need_tool("tmux") {
        return;
    }
    let daemon = Daemon::start("tcp://127.0.0.1:0");
    let terminal = Terminal::start(100, 30);
    terminal.top(&daemon, "");
    daemon.signal(Signal::SIGKILL);
    daemon.wait();
    terminal.shows("no daemon answers at ");
    // at the same control socket
    let control = daemon.control().display().to_string();
    let mut again = forkd_command();
    again.args(["serve", "--control", &control, "tcp://127.0.0.1:0"]).stderr(Stdio::null());
    let mut again = Killed(again.spawn().unwrap());
    let pid = again.0.id();
    terminal.shows(&format!("pid {pid} after {}", daemon.pid()));
    terminal.shows(&format!("forkd {pid}  "));
    terminal.press(&["C-d"]);
    terminal.is_as_before("0");
    signal(pid as i32, Signal::SIGTERM);
    assert!(again.0.wait().unwrap().success());
}

/// A process that does not outlive the test.
struct Killed(Child);

impl Killed {
    /// Waits for its end.
    #[track_caller]
    fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("it has ended", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_signal_that_ends_it_leaves_the_terminal_as_it_was() {
    if !need_tool("tmux") {
        return;
    }
    let daemon = Daemon::start("");
    let terminal = Terminal::start(100, 30);
    for (which, status) in [(Signal::SIGTERM, "143"), (Signal::SIGINT, "0")] {
        terminal.top(&daemon, "");
        signal(terminal.pid_of_top(), which);
        terminal.is_as_before(status);
    }
    terminal.top(&daemon, "");
    terminal.press(&["C-c"]);
    terminal.is_as_before("0");
}

/// Job control is a shell's, and few give a job back the modes that it had.
#[test]
fn it_hands_the_terminal_back_while_it_is_stopped() {
    if !need_tool("tmux") || !need_tool("bash") {
        return;
    }
    let daemon = Daemon::start("");
    let terminal = Terminal::start(100, 30);
    terminal.run("PS1='$ ' exec bash --norc --noprofile");
    let signals = [Signal::SIGTSTP, Signal::SIGTTIN, Signal::SIGTTOU, Signal::SIGSTOP];
    for which in [None].into_iter().chain(signals.map(Some)) {
        terminal.top(&daemon, "");
        let top = terminal.pid_of_top();
        match which {
            None => terminal.press(&["C-z"]),
            Some(which) => signal(top, which),
        }
        eventually("it is stopped", || state_of(top) == Some('T'));
        if which != Some(Signal::SIGSTOP) {
            let status = 128 + which.unwrap_or(Signal::SIGTSTP) as i32;
            terminal.is_as_before(&status.to_string());
        }
        // in the background it stays stopped, and leaves the terminal alone
        terminal.run("clear; bg; echo $((6*8))");
        terminal.shows("\n48\n");
        eventually("it is stopped again", || state_of(top) == Some('T'));
        terminal.run("stty -a | tr ' ' '\\n' | grep -c -x -e icanon -e echo");
        terminal.shows("\n2\n");
        terminal.run("fg");
        let screen = terminal.shows(&format!("forkd {}  ", daemon.pid()));
        assert!(!screen.contains("fg"), "{which:?}:\n{screen}");
        terminal.press(&["?"]);
        terminal.shows("this help");
        terminal.press(&["q"]);
        eventually("it has ended", || !is_running(top));
        terminal.run("echo $((6*7))");
        let screen = terminal.shows("\n42\n");
        assert!(!screen.contains("children"), "{which:?}:\n{screen}");
    }
}

/// Starts top at a terminal, and waits for its first picture.
#[track_caller]
fn top_at(terminal: &Pty, daemon: &Daemon, interval: &str) -> Killed {
    let mut command = forkd_command();
    command.env("TERM", "xterm").args(["top", "--interval", interval, "--control"]).arg(daemon.control());
    let top = Killed(terminal.start(&mut command));
    terminal.shows("LISTENER");
    top
}

#[test]
fn whichever_signal_ends_it_the_terminal_is_as_it_was() {
    use std::os::unix::process::ExitStatusExt;
    let daemon = Daemon::start("");
    let stays = [
        Signal::SIGKILL,
        Signal::SIGSTOP,
        Signal::SIGTSTP,
        Signal::SIGTTIN,
        Signal::SIGTTOU,
        Signal::SIGCONT,
        Signal::SIGCHLD,
        Signal::SIGURG,
        Signal::SIGWINCH,
        Signal::SIGPIPE,
        Signal::SIGXFSZ,
    ];
    let ends = |n: &i32| !stays.iter().any(|&signal| signal as i32 == *n);
    let all: Vec<i32> = (1..32).filter(ends).chain([libc::SIGRTMIN(), libc::SIGRTMAX()]).collect();
    std::thread::scope(|scope| {
        for some in all.chunks(all.len().div_ceil(4)) {
            let daemon = &daemon;
            scope.spawn(move || {
                some.iter().for_each(|&signal| {
                    let terminal = Pty::open(80, 24);
                    let modes = terminal.modes();
                    let mut top = top_at(&terminal, daemon, "1h");
                    assert_ne!(terminal.modes(), modes);
                    // SAFETY: kill(2) touches no memory.
                    assert_eq!(unsafe { libc::kill(top.0.id() as i32, signal) }, 0);
                    let ended = top.ended();
                    match signal {
                        libc::SIGINT => assert!(ended.success()),
                        _ => assert_eq!(ended.signal(), Some(signal)),
                    }
                    terminal.shows("\x1b[?1049l");
                    eventually(&format!("the cursor is back after {signal}"), || {
                        terminal.seen().ends_with("\x1b[?25h")
                    });
                    assert_eq!(terminal.modes(), modes, "{signal}");
                })
            });
        }
    });
}

#[test]
fn no_size_of_a_terminal_harms_it() {
    let daemon = Daemon::start("");
    let terminal = Pty::open(0, 0);
    let mut top = top_at(&terminal, &daemon, "100ms");
    for (columns, lines) in
        [(1, 1), (0, 7), (7, 0), (10_000, 10_000), (1, 10_000), (65_535, 1), (65_535, 65_535)]
    {
        terminal.resize(columns, lines);
        signal(top.0.id() as i32, Signal::SIGWINCH);
        terminal.forget();
        eventually("it draws", || !terminal.seen().is_empty());
    }
    let memory = proc_status(top.0.id() as i32, "VmHWM");
    let kib: u64 = memory.trim_end_matches(" kB").trim().parse().unwrap();
    assert!(kib < 512 << 10, "{memory}");
    terminal.resize(100, 30);
    signal(top.0.id() as i32, Signal::SIGWINCH);
    terminal.shows("q quit  ? help");
    signal(top.0.id() as i32, Signal::SIGTERM);
    assert_eq!(top.ended().code(), None);
}

#[test]
fn a_terminal_that_cannot_move_its_cursor_is_refused() {
    let daemon = Daemon::start("");
    for term in [Some("dumb"), Some("unknown"), Some(""), None] {
        let terminal = Pty::open(80, 24);
        let mut command = forkd_command();
        command.args(["top", "--control"]).arg(daemon.control()).env_remove("TERM");
        command.envs(term.map(|term| ("TERM", term)));
        let mut top = Killed(terminal.start(&mut command));
        terminal.shows("which `forkd top` needs; try `forkd status --watch`");
        assert_eq!(top.ended().code(), Some(64));
        assert!(!terminal.seen().contains('\x1b'), "{:?}", terminal.seen());
        // which does no better than it can
        let mut command = forkd_command();
        command.args(["status", "--watch", "100ms", "--control"]).arg(daemon.control()).env_remove("TERM");
        command.envs(term.map(|term| ("TERM", term)));
        terminal.forget();
        let _watch = Killed(terminal.start(&mut command));
        eventually("it looks twice", || terminal.seen().matches("forkd pid").count() >= 2);
        assert!(!terminal.seen().contains('\x1b'), "{:?}", terminal.seen());
    }
}

#[test]
fn a_daemon_that_is_stopped_is_not_shown_as_alive() {
    let daemon = Daemon::start("");
    let terminal = Pty::open(120, 30);
    let _top = top_at(&terminal, &daemon, "100ms");
    daemon.signal(Signal::SIGSTOP);
    terminal.shows("NO ANSWER for ");
    daemon.signal(Signal::SIGCONT);
    terminal.forget();
    eventually("it is alive again", || terminal.seen().contains("up "));
}

#[test]
fn it_ends_with_its_terminal() {
    if !need_tool("tmux") {
        return;
    }
    let daemon = Daemon::start("");
    // of a session of its own it hears no SIGHUP
    for session in ["", "setsid -w"] {
        let terminal = Terminal::start(100, 30);
        terminal.top(&daemon, session);
        let pid = terminal.pid_of_top();
        drop(terminal);
        let has_ended = becomes_true(LIMIT, || !is_running(pid));
        if !has_ended {
            signal(pid, Signal::SIGKILL);
        }
        assert!(has_ended, "{session:?}");
    }
    daemon.served();
}

#[test]
fn a_hang_up_ends_it_as_any_program() {
    if !need_tool("tmux") {
        return;
    }
    let daemon = Daemon::start("");
    let terminal = Terminal::start(100, 30);
    terminal.top(&daemon, "");
    signal(terminal.pid_of_top(), Signal::SIGHUP);
    terminal.is_as_before("129");
}

#[test]
fn without_a_terminal_or_a_daemon_it_says_so() {
    let daemon = Daemon::start("");
    let piped = run(&["top", "--control", daemon.control().to_str().unwrap()]);
    assert_eq!(piped.code, Some(64));
    assert!(piped.stderr.contains("try `forkd status --watch`"), "{}", piped.stderr);
    if need_tool("tmux") {
        let terminal = Terminal::start(100, 30);
        terminal.run(&format!("{} top --control /nowhere/c.sock; echo end=$?", env!("CARGO_BIN_EXE_forkd")));
        let screen = terminal.shows("end=69");
        assert!(screen.contains("no daemon answers at /nowhere/c.sock"), "{screen}");
    }
}
