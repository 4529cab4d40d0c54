//! `forkd top`: a running daemon, live, on the whole terminal.
//!
//! `model` is what is known and chosen: fed with answers and keys, it does no I/O. `view` draws it. Here is
//! the rest: a thread that asks the daemon, one that ends this program with its terminal, and the screen.
//! `sys::tty` leaves the terminal as it was, whatever happens.

mod model;
mod view;

use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};
use std::{io, thread};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow};
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{self, Event};
use ratatui::layout::Rect;
use ratatui::{Terminal, TerminalOptions, Viewport};
use signal_hook::consts::SIGHUP;

use super::args::TopArgs;
use super::status::ask;
use super::terminal::obeys;
use crate::Error;
use crate::daemon::status::Status;
use crate::failed::Failed;
use crate::sys::tty::{self, Held};
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
pub fn run(args: TopArgs) -> Result<(), Failed> {
    let stdout = io::stdout();
    if !obeys(&stdout) {
        let why = match stdout.is_terminal() {
            true => "standard output is no terminal that can move its cursor, as TERM says",
            false => "standard output is no terminal",
        };
        return Err(
            Error::Usage(format!("{why}, which `forkd top` needs; try `forkd status --watch`")).into()
        );
    }
    let line = Line { is_input: io::stdin().is_terminal() };
    let first = ask(args.control.clone())?.status;
    let (cannot, interval) = (|cause| Error::os("cannot use the terminal", cause), args.interval.0);
    let mut model = Model::new(interval);
    model.heard(0.0, Ok(first));
    let answers = ask_again_and_again(args.control, interval);
    aside(move || line.end_with_it());
    let outcome = Screen::new().and_then(|mut screen| screen.show(&mut model, &answers));
    if line.is_gone(PollTimeout::ZERO) {
        die_of(SIGHUP);
    }
    Ok(outcome.map_err(cannot)?)
}

/// Runs a thread that takes no signals: they interrupt the one that writes to the terminal, so that nothing is
/// written after it was given back. What a thread does wrong still ends it.
fn aside(job: impl FnOnce() + Send + 'static) {
    let mut asynchronous = SigSet::all();
    tty::FAULTS.into_iter().for_each(|signal| asynchronous.remove(signal));
    let before = asynchronous.thread_swap_mask(SigmaskHow::SIG_BLOCK);
    thread::spawn(job);
    let _ = before.map(|before| before.thread_set_mask());
}

/// Asks in a thread of its own: a daemon that does not answer must not hold up the keys.
fn ask_again_and_again(control: Option<PathBuf>, interval: Duration) -> Receiver<Answer> {
    let (sender, answers) = channel();
    aside(move || {
        loop {
            thread::sleep(interval);
            let answer = ask(control.clone()).map(|answer| answer.status).map_err(|failed| failed.why);
            if sender.send(answer).is_err() {
                return;
            }
        }
    });
    answers
}

/// The terminal while it is ours. A panic gives it back, too: before its message, by a hook.
struct Screen {
    terminal: Terminal<CrosstermBackend<io::Stdout>>,
    held: Held,
    /// What is drawn on.
    area: Rect,
}

impl Screen {
    fn new() -> io::Result<Self> {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            tty::give_back();
            before(info);
        }));
        let held = Held::take()?;
        let options = TerminalOptions { viewport: Viewport::Fixed(Rect::ZERO) };
        let terminal = Terminal::with_options(CrosstermBackend::new(io::stdout()), options)?;
        Ok(Self { terminal, held, area: Rect::ZERO })
    }

    fn show(&mut self, model: &mut Model, answers: &Receiver<Answer>) -> io::Result<()> {
        let began = Instant::now();
        let mut is_stale = true;
        loop {
            let is_due = model.now(began.elapsed().as_secs_f64()) | self.is_empty();
            if std::mem::take(&mut is_stale) | is_due {
                self.draw(model)?;
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
                        return Err(io::Error::other("the thread that asks the daemon has ended"));
                    }
                }
            }
        }
    }

    /// Whether nothing of it is on the screen any more.
    fn is_empty(&mut self) -> bool {
        let is_so = self.held.is_taken_anew();
        if is_so {
            self.area = Rect::ZERO;
        }
        is_so
    }

    fn draw(&mut self, model: &mut Model) -> io::Result<()> {
        let size = rustix::termios::tcgetwinsize(io::stdout())?;
        let area = drawn_on(size.ws_col, size.ws_row);
        if area != self.area {
            self.terminal.resize(area)?;
            self.area = area;
        }
        let mut page = 0;
        self.terminal.draw(|frame| page = view::draw(frame, model))?;
        model.set_page(page);
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // ratatui would complain where there is no terminal any more
        let _ = self.terminal.show_cursor();
    }
}

/// How much of a terminal that says it has so many columns and lines. One that does not know, as a serial line,
/// has what terminals had; of one that has more than a person can read, memory is taken for a part.
fn drawn_on(columns: u16, lines: u16) -> Rect {
    let known = |n: u16, usual: u16, most: u16| if n == 0 { usual } else { n.min(most) };
    Rect::new(0, 0, known(columns, 80, 1000), known(lines, 24, 500))
}

/// What connects this program with the user at the terminal.
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
        tty::give_back();
        die_of(SIGHUP);
    }

    /// Whether it is cut, or will be within that time.
    fn is_gone(self, within: PollTimeout) -> bool {
        let (input, output) = (io::stdin(), io::stdout());
        let hang_up = PollFlags::empty();
        let mut ends = vec![PollFd::new(output.as_fd(), hang_up)];
        ends.extend(self.is_input.then(|| PollFd::new(input.as_fd(), hang_up)));
        poll(&mut ends, within).is_ok_and(|ready| ready > 0)
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
