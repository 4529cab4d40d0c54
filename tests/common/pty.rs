//! A terminal without a user: pty(7).

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::ptr::{null, null_mut};
use std::sync::{Arc, Mutex};

use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};

use super::eventually;

pub struct Pty {
    terminal: OwnedFd,
    keyboard: File,
    seen: Arc<Mutex<String>>,
}

impl Pty {
    /// Opens one with so many columns and lines.
    pub fn open(columns: u16, lines: u16) -> Self {
        let (mut master, mut terminal) = (-1, -1);
        // SAFETY: openpty(3) writes two descriptors, which have no other owner.
        let (master, terminal) = unsafe {
            assert_eq!(libc::openpty(&raw mut master, &raw mut terminal, null_mut(), null(), null()), 0);
            (File::from_raw_fd(master), OwnedFd::from_raw_fd(terminal))
        };
        let keyboard = master.try_clone().unwrap();
        let pty = Self { terminal, keyboard, seen: Arc::default() };
        pty.resize(columns, lines);
        let seen = Arc::clone(&pty.seen);
        std::thread::spawn(move || {
            let (mut master, mut chunk) = (master, [0; 4096]);
            while let Ok(n @ 1..) = master.read(&mut chunk) {
                seen.lock().unwrap().push_str(&String::from_utf8_lossy(&chunk[..n]));
            }
        });
        pty
    }

    pub fn resize(&self, columns: u16, lines: u16) {
        let size = Winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.terminal, size).unwrap();
    }

    /// Starts a program at it, as a group of its own. It is not the controlling terminal of its session.
    pub fn start(&self, command: &mut Command) -> Child {
        use std::os::unix::process::CommandExt;
        let end = || Stdio::from(self.terminal.try_clone().unwrap());
        command.process_group(0).stdin(end()).stdout(end()).stderr(end()).spawn().unwrap()
    }

    /// Types at it.
    pub fn types(&self, keys: &[u8]) {
        (&self.keyboard).write_all(keys).unwrap();
    }

    /// All that was written to it.
    pub fn seen(&self) -> String {
        self.seen.lock().unwrap().clone()
    }

    pub fn forget(&self) {
        self.seen.lock().unwrap().clear();
    }

    #[track_caller]
    pub fn shows(&self, text: &str) {
        eventually(&format!("{text:?} in what the terminal has seen"), || self.seen().contains(text));
    }

    /// How it treats what is typed and written.
    pub fn modes(&self) -> String {
        let modes = tcgetattr(self.terminal.as_fd()).unwrap();
        format!("{:?} {:?} {:?}", modes.input_modes, modes.output_modes, modes.local_modes)
    }
}
