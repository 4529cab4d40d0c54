//! What the service manager hears of this daemon, and when.

use std::time::{Duration, Instant};

use super::master::Master;
use super::phase::Phase;
use super::station::{Kind, Station, faces};

/// How often the work of pools is looked at: their connections don't wake the master.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How much longer than its grace time a stop may take.
const MARGIN: Duration = Duration::from_secs(5);

impl Master {
    /// The daemon serves, at first or after a reload.
    pub(super) fn say_ready(&mut self) {
        let status = self.in_a_few_words();
        self.manager.ready(self.cx.now, &status);
    }

    /// The daemon is about to stop.
    pub(super) fn say_stopping(&mut self, grace: Duration) {
        self.manager.stopping(self.cx.now, grace + MARGIN);
    }

    /// In each turn: how it is, and that it lives.
    pub(super) fn report(&mut self) {
        if !self.manager.is_there() {
            return;
        }
        if !self.is_ready {
            self.manager.flush(self.cx.now);
            return;
        }
        let mut manager = std::mem::take(&mut self.manager);
        manager.turn(self.cx.now, || self.in_a_few_words());
        self.manager = manager;
    }

    pub(super) fn next_report(&self) -> Option<Instant> {
        let has_pool = self.stations.iter().any(|station| matches!(station.kind, Kind::Pooling(_)));
        let look = (has_pool && self.manager.is_there()).then(|| self.cx.now + LOOK_EVERY);
        self.manager.deadline().into_iter().chain(look).min()
    }

    fn in_a_few_words(&self) -> String {
        let doing = if self.phase == Phase::Running { "serving" } else { "stopping" };
        let mut text = format!("{doing}: {} children, {} connections", self.children(), self.connections());
        if let Some(shortage) = self.shortage() {
            text += "; ";
            text += &shortage;
        }
        text
    }

    /// What the system refuses to start, why, and how many clients are held for that reason.
    fn shortage(&self) -> Option<String> {
        let board = self.cx.board;
        let by_us = faces(&self.stations).map(|station| board.totals(station.number()).held());
        let held: u32 = by_us.chain(board.children().map(|child| child.held())).sum();
        let holding = if held > 0 { format!(", holding {held}") } else { String::new() };
        let cannot =
            |what: &str, errno| format!("{what}: {}{holding}", std::io::Error::from_raw_os_error(errno));
        if let Some(shortage) = self.cx.shortage {
            return Some(cannot("cannot fork", shortage.errno));
        }
        if let Some(errno) = self.stations.iter().find_map(Station::cannot_fork_workers) {
            return Some(cannot("cannot fork all workers", errno));
        }
        (held > 0).then(|| format!("cannot start threads{holding}"))
    }

    /// How many connections and datagrams there have been, of children dead or alive.
    pub(super) fn connections(&self) -> u64 {
        let ended =
            faces(&self.stations).map(|station| self.cx.board.totals(station.number()).sums().connections);
        let now = self.cx.board.millis(self.cx.now);
        let going_on = self.cx.board.children().map(|child| child.carried(now).connections);
        ended.chain(going_on).fold(self.past_connections, u64::saturating_add)
    }
}
