//! The end of a program that has failed, as a service manager sees it.
//!
//! systemd starts a service that has failed again as soon as a client waits at its sockets, and the one that waited
//! before still does. A start that can't succeed would fail without a pause, until systemd's limit on starts closes the
//! sockets. So such a start ends slowly: the sockets stay open, their clients wait, and the next start is a few seconds
//! away. A signal that asks for the end, such as that of `systemctl restart`, ends the pause.

use std::time::{Duration, Instant};

use crate::sys::signal::{StopsHeld, pending_stop};
use crate::{Error, log};

/// systemd refuses the sixth start within 10 s (DefaultStartLimitIntervalSec=, DefaultStartLimitBurst=): this leaves three
/// for an operator.
const PAUSE: Duration = Duration::from_secs(5);

/// How often to look for a signal.
const TICK: Duration = Duration::from_millis(50);

/// `EX_DATAERR` of sysexits(3).
const DATA: u8 = 65;

/// Why the program ends, and whether that may be at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// What the process ends with: a code of sysexits(3), or 128 and the number of the signal that has ended it.
    pub exit_code: u8,
    /// What to tell a person.
    pub why: String,
    /// Clients wait at sockets of systemd's, which starts the program again for them.
    pub(crate) clients_wait: bool,
    /// The log that this process writes to has it already.
    pub(crate) is_told: bool,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::new(error.exit_code(), error.sentence())
    }
}

impl Failed {
    pub(crate) fn new(exit_code: u8, why: String) -> Self {
        Self { exit_code, why, clients_wait: false, is_told: false }
    }

    /// What another program has answered or written makes no sense.
    pub(crate) fn data(why: String) -> Self {
        Self::new(DATA, why)
    }

    /// A signal has ended what was to be done.
    pub(crate) fn by_signal(signal: i32, why: String) -> Self {
        // as shells have it
        Self::new(128 + signal as u8, why)
    }

    /// Says why on standard error.
    pub fn tell(&self) {
        if !self.is_told {
            log::complain(&self.why);
        }
    }

    /// Waits where systemd would start the program again as soon as it has ended. Call it last.
    pub fn pause(&self) {
        if !self.clients_wait {
            return;
        }
        let _stops = StopsHeld::hold();
        let pause = humantime::format_duration(PAUSE);
        log::caution(&format!(
            "clients wait at the sockets, so systemd starts forkd again when it ends: that is in {pause}"
        ));
        let end = Instant::now() + PAUSE;
        while Instant::now() < end && pending_stop().is_none() {
            std::thread::sleep(TICK);
        }
    }
}
