//! `forkd top`: a running daemon, live, on the whole terminal.
//!
//! `model` is what is known and chosen: fed with answers and keys, it does no I/O. `view` draws it. Here is
//! the rest: a thread that asks the daemon, one that ends this program with its terminal, and the terminal itself,
//! which is left as it was found, whatever happens.

mod model;
mod view;

use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::args::TopArgs;
use super::status::ask;
use crate::Error;
use crate::daemon::status::Status;
use model::{Go, Model};

/// How long a signal, or an answer of the daemon, may have to wait to be noticed.
const TICK: Duration = Duration::from_millis(100);

/// What the daemon has answered, or why it has not.
type Answer = Result<Status, String>;

/// Shows the daemon until it is told to quit.
///
/// # Errors
///
/// [`Error::Usage`] if standard output is no terminal, [`Error::Unavailable`] if no daemon answers at first,
/// [`Error::Os`] if the terminal fails.
pub fn run(args: TopArgs) -> Result<(), Error> {
    if !std::io::stdout().is_terminal() {
        return Err(Error::Usage(
            "standard output is no terminal, which `forkd top` needs; try `forkd status --watch`".into(),
        ));
    }
    let line = Line { is_input: std::io::stdin().is_terminal() };
    let first = ask(args.control.clone())?.status;
    let (cannot, interval) = (|cause| Error::os("cannot use the terminal", cause), args.interval.0);
    let ended_by = Signals::new().map_err(|cause| Error::os("cannot install signal handlers", cause))?;
    let mut model = Model::new(interval);
    model.heard(0.0, Ok(first));
    let answers = ask_again_and_again(args.control, interval);
    std::thread::spawn(move || line.end_with_it());
    let outcome = {
        let mut screen = Screen::new().map_err(cannot)?;
        show(&mut screen.terminal, &mut model, &answers, &ended_by)
    };
    ended_by.die_if_told();
    if line.is_gone(PollTimeout::ZERO) {
        die_of(SIGHUP);
    }
    outcome.map_err(cannot)
}

/// Asks in a thread of its own: a daemon that does not answer must not hold up the keys.
fn ask_again_and_again(control: Option<PathBuf>, interval: Duration) -> Receiver<Answer> {
    let (sender, answers) = channel();
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(interval);
            let answer = ask(control.clone()).map(|answer| answer.status).map_err(|error| error.sentence());
            if sender.send(answer).is_err() {
                return;
            }
        }
    });
    answers
}

fn show(
    terminal: &mut DefaultTerminal,
    model: &mut Model,
    answers: &Receiver<Answer>,
    ended_by: &Signals,
) -> std::io::Result<()> {
    let began = Instant::now();
    let mut is_stale = true;
    while !ended_by.any() {
        if std::mem::take(&mut is_stale) {
            let mut page = 0;
            terminal.draw(|frame| page = view::draw(frame, model))?;
            model.set_page(page);
        }
        if event::poll(TICK)? {
            is_stale = true;
            match event::read()? {
                Event::Key(key) if model.key(key) == Go::Away => return Ok(()),
                // the size is asked for at each drawing
                _ => {}
            }
        }
        loop {
            match answers.try_recv() {
                Ok(answer) => {
                    model.heard(began.elapsed().as_secs_f64(), answer);
                    is_stale = true;
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    return Err(std::io::Error::other("the thread that asks the daemon has ended"));
                }
            }
        }
    }
    Ok(())
}

/// The terminal while it is ours. A panic gives it back, too: before its message, by a hook.
struct Screen {
    terminal: DefaultTerminal,
}

impl Screen {
    fn new() -> std::io::Result<Self> {
        // half a change is undone as well
        let terminal = ratatui::try_init().inspect_err(|_| ratatui::restore())?;
        Ok(Self { terminal })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // this fails only where there is no terminal any more
        let _ = self.terminal.show_cursor();
        // twice would move the cursor back to above the message
        if !std::thread::panicking() {
            let _ = ratatui::try_restore();
        }
    }
}

/// What connects this program with whoever sits at the terminal.
#[derive(Debug, Clone, Copy)]
struct Line {
    /// Keys come from standard input, and not from /dev/tty.
    is_input: bool,
}

impl Line {
    /// Waits until it is cut, and ends this program, whatever its main thread does: crossterm reads from a
    /// terminal that has gone again and again, and looks at no signal.
    fn end_with_it(self) {
        while !self.is_gone(PollTimeout::NONE) {}
        // where input and output are two terminals, one may be left
        let _ = ratatui::try_restore();
        die_of(SIGHUP);
    }

    /// Whether it is cut, or will be within that time.
    fn is_gone(self, within: PollTimeout) -> bool {
        let (input, output) = (std::io::stdin(), std::io::stdout());
        let hang_up = PollFlags::empty();
        let mut ends = vec![PollFd::new(output.as_fd(), hang_up)];
        ends.extend(self.is_input.then(|| PollFd::new(input.as_fd(), hang_up)));
        poll(&mut ends, within).is_ok_and(|ready| ready > 0)
    }
}

/// The signals that end this program: after the terminal is as it was.
struct Signals([(i32, Arc<AtomicBool>); 3]);

impl Signals {
    fn new() -> std::io::Result<Self> {
        let signals = [SIGINT, SIGTERM, SIGHUP].map(|signal| (signal, Arc::new(AtomicBool::new(false))));
        for (signal, flag) in &signals {
            signal_hook::flag::register(*signal, Arc::clone(flag))?;
        }
        Ok(Self(signals))
    }

    fn any(&self) -> bool {
        self.0.iter().any(|(_, flag)| flag.load(Ordering::Relaxed))
    }

    /// Ends as whoever sent one expects it; SIGINT is as good as a key.
    fn die_if_told(&self) {
        for (signal, flag) in &self.0[1..] {
            if flag.load(Ordering::Relaxed) {
                die_of(*signal);
            }
        }
    }
}

/// Ends this program as that signal does by default; returns only if that fails.
fn die_of(signal: i32) {
    let _ = signal_hook::low_level::emulate_default_handler(signal);
}

// script(1) has other arguments elsewhere
#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    #[ignore = "run by the test below, in a terminal"]
    fn panics() {
        let _screen = Screen::new().unwrap();
        panic!("as was wished");
    }

    #[test]
    fn a_panic_gives_the_terminal_back_before_it_is_said() {
        let this = std::env::current_exe().unwrap();
        let panics = format!("{} --ignored --exact --nocapture cli::top::tests::panics", this.display());
        let terminal = ["-q", "-c", &format!("{panics}; stty -a"), "/dev/null"];
        let output = Command::new("script").args(terminal).stdin(Stdio::null()).output().unwrap();
        let seen = String::from_utf8_lossy(&output.stdout);
        let (on_screen, after) = seen.split_once("\x1b[?1049l").unwrap_or_else(|| panic!("{seen:?}"));
        assert!(on_screen.contains("\x1b[?1049h") && !on_screen.contains("as was wished"), "{seen:?}");
        for part in ["as was wished", "\x1b[?25h", " icanon", " echo "] {
            assert!(after.contains(part), "no {part:?} in {after:?}");
        }
    }
}
