//! Signals that end a measurement: what there is by then is shown, and the exit code tells that it isn't all.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;
use signal_hook::low_level::signal_name;

use crate::Error;
use crate::failed::Failed;
use forkd_load::Live;

/// Which signal has come first; 0 for none.
#[derive(Debug, Clone, Default)]
pub(super) struct Interrupt(Arc<AtomicUsize>);

impl Interrupt {
    /// The first signal ends what is measured now. The second one ends the programs that were started, and this one
    /// too, if it does not end by itself within `patience`.
    pub(super) fn catch(live: &Arc<Live>, patience: Duration) -> Result<Self, Error> {
        let mut signals = Signals::new(heard()).map_err(failed)?;
        let (interrupt, live) = (Self::default(), Arc::clone(live));
        let first = interrupt.clone();
        let watch = move || {
            for signal in signals.forever() {
                if !live.is_stopped() {
                    first.0.store(signal.cast_unsigned() as usize, Ordering::Relaxed);
                    live.stop();
                    continue;
                }
                crate::sys::program::end_all();
                std::thread::sleep(patience);
                std::process::exit(128 + signal);
            }
        };
        std::thread::Builder::new().name("signals".into()).spawn(watch).map_err(failed)?;
        Ok(interrupt)
    }

    /// A signal ends what is done now, and everything after it. There is no thread for that: this process may fork.
    pub(super) fn stop(live: &Live) -> Result<Self, Error> {
        let interrupt = Self::default();
        for signal in heard() {
            let number = signal.cast_unsigned() as usize;
            flag::register_usize(signal, Arc::clone(&interrupt.0), number).map_err(failed)?;
            flag::register(signal, live.switch()).map_err(failed)?;
        }
        Ok(interrupt)
    }

    /// What the program ends with if one has come; `what` says what that means for the result.
    pub(super) fn verdict(&self, what: &str) -> Result<(), Failed> {
        match self.0.load(Ordering::Relaxed) {
            0 => Ok(()),
            number => {
                let signal = number as i32;
                let name = signal_name(signal).unwrap_or("a signal");
                Err(Failed::by_signal(signal, format!("{name} ended it {what}")))
            }
        }
    }
}

fn failed(cause: std::io::Error) -> Error {
    Error::os("cannot catch SIGINT", cause)
}

/// Those that end a program, and that this one may hear.
fn heard() -> impl Iterator<Item = i32> {
    [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| !is_ignored(*signal))
}

/// Whether the parent process wants that, as nohup(1) does with SIGHUP.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask =
        status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
