//! One client at a time, for an application that has a loop of its own (`Serving::handle_request`).
//!
//! Between two clients the application has the process, and the master does nothing: signals wait, and
//! the dead are not counted.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::master::Master;
use super::phase::Phase;
use super::station::current;
use crate::Error;

impl Master {
    /// Forks a child for one client; `false` if none has come until then, or the server has ended.
    pub(crate) fn serve_one(&mut self, until: Option<Instant>) -> Result<bool, Error> {
        let enough = self.forked() + 1;
        self.enough = Some(enough);
        let mut is_late = false;
        let served = loop {
            // a client that no child could be forked for gets one here, as soon as there can be one
            self.turn()?;
            if self.phase != Phase::Running {
                self.run(|_| Ok(()))?;
                break false;
            }
            if self.forked() >= enough || is_late {
                break self.forked() >= enough;
            }
            self.wait_and_see(until)?;
            is_late = until.is_some_and(|until| until <= self.cx.now);
        };
        self.enough = None;
        Ok(served)
    }

    /// How many children there have been.
    pub(super) fn forked(&self) -> u64 {
        current(&self.stations)
            .map(|station| self.cx.board.totals(station.number()).forked.load(Ordering::Relaxed))
            .sum()
    }
}
