//! What the service manager hears of this daemon, and when.

use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use super::notify::ServiceManager;
use forkd_server::supervise::{Companion, Notice};
use forkd_server::supervise::{Stage, View};

/// How often the work of pools is looked at: their connections don't wake the master.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How much longer than its delay and its grace time a stop may take.
const MARGIN: Duration = Duration::from_secs(5);

impl Companion for ServiceManager {
    fn descriptors(&self) -> Vec<RawFd> {
        self.descriptor().into_iter().collect()
    }

    fn deadline(&self, view: View<'_>) -> Option<Instant> {
        let look = (self.is_there() && view.has_pool()).then(|| view.now() + LOOK_EVERY);
        self.next_message().into_iter().chain(look).min()
    }

    fn turn(&mut self, view: View<'_>) {
        if view.is_ready() {
            self.send_due(view.now(), || in_a_few_words(view));
        } else {
            self.flush(view.now());
        }
    }

    fn told(&mut self, notice: Notice<'_>, view: View<'_>) {
        match notice {
            // at a stop it is STOPPING=1 that holds
            Notice::ReloadEnded(_) if !view.is_running() => {}
            Notice::Ready | Notice::ReloadEnded(_) => self.ready(view.now(), &in_a_few_words(view)),
            // the reload that comes with it has said that it is ready
            Notice::Upgrading | Notice::UpgradeEnded(_) => {}
            Notice::Reloading => self.reloading(view.now()),
            Notice::Stopping(time) => self.stopping(view.now(), time + MARGIN),
        }
    }
}

fn in_a_few_words(view: View<'_>) -> String {
    let doing = match view.stage() {
        Stage::Starting | Stage::Running => "serving",
        Stage::Draining => "draining",
        Stage::Ending | Stage::Killing => "stopping",
    };
    let mut text = format!("{doing}: {} children, {} connections", view.children(), view.connections());
    if let Some(shortage) = view.shortage() {
        text += "; ";
        text += &shortage;
    }
    text
}
