//! What a program has the master's loop do beside its own work, such as to answer at a control socket.

use std::fmt::Debug;
use std::os::fd::{BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use nix::poll::PollFlags;

use super::saved::SavedPart;
use super::upgrade::Request;
use super::view::View;
use crate::Error;

/// A part of the program that lives in the master's loop. It never waits: all clients would wait with it.
pub trait Companion: Debug {
    /// The descriptors that it has from the start, which children close.
    fn descriptors(&self) -> Vec<RawFd> {
        Vec::new()
    }

    /// Calls `add` with each descriptor to wait for, and with the number by which
    /// [`on_ready`](Self::on_ready) is to know it.
    fn watch<'a>(&'a self, _now: Instant, _add: &mut dyn FnMut(BorrowedFd<'a>, PollFlags, usize)) {}

    /// When it wants a turn, at the latest.
    fn deadline(&self, _view: View<'_>) -> Option<Instant> {
        None
    }

    /// A descriptor is ready.
    fn on_ready(&mut self, _number: usize, _view: View<'_>) {}

    /// The loop has turned.
    fn turn(&mut self, _view: View<'_>) {}

    /// Whether a reload is wanted. Asked when one could begin: it answers these requests, and none that come later.
    fn takes_reload(&mut self) -> bool {
        false
    }

    /// Whether another program is to replace this one; asked as for a reload.
    fn takes_upgrade(&mut self) -> Option<Request> {
        None
    }

    /// Whether nothing is lost if the next program goes on now with what is [written down](Self::save).
    fn may_be_left(&self) -> bool {
        true
    }

    /// Writes down what it has that the next program goes on with.
    fn save(&self) -> Vec<SavedPart> {
        Vec::new()
    }

    /// Something has happened.
    fn told(&mut self, _notice: Notice<'_>, _view: View<'_>) {}
}

/// What companions are told.
#[derive(Debug, Clone, Copy)]
pub enum Notice<'a> {
    /// The first workers are up.
    Ready,
    /// The configuration is read again.
    Reloading,
    /// The new configuration is in force, or the old one goes on for this reason.
    ReloadEnded(Result<(), &'a Error>),
    /// Another program is tried.
    Upgrading,
    /// This program has replaced the one before it, or could not be replaced for this reason.
    UpgradeEnded(Result<(), &'a Error>),
    /// The master stops, or will after a delay: all of it may take this time, and what it takes to end children.
    Stopping(Duration),
}

/// The companions of a master, in the order in which they are told what happens.
#[derive(Debug, Default)]
pub(super) struct Companions(Vec<Box<dyn Companion>>);

impl Companions {
    pub(super) fn join(&mut self, companion: impl Companion + 'static) {
        self.0.push(Box::new(companion));
    }

    /// Calls `add` with each descriptor to wait for, the companion that it is of, and the companion's number for it.
    pub(super) fn watch<'a>(
        &'a self,
        now: Instant,
        mut add: impl FnMut(BorrowedFd<'a>, PollFlags, usize, usize),
    ) {
        for (index, companion) in self.0.iter().enumerate() {
            companion.watch(now, &mut |fd, flags, number| add(fd, flags, index, number));
        }
    }

    pub(super) fn deadline(&self, view: View<'_>) -> Option<Instant> {
        self.0.iter().filter_map(|companion| companion.deadline(view)).min()
    }

    pub(super) fn on_ready(&mut self, index: usize, number: usize, view: View<'_>) {
        self.0[index].on_ready(number, view);
    }

    pub(super) fn turn(&mut self, view: View<'_>) {
        self.0.iter_mut().for_each(|companion| companion.turn(view));
    }

    /// Whether any of them wants a reload.
    pub(super) fn take_reload(&mut self) -> bool {
        self.0.iter_mut().fold(false, |wanted, companion| companion.takes_reload() | wanted)
    }

    /// A request for an upgrade, if there is any.
    pub(super) fn take_upgrade(&mut self) -> Option<Request> {
        self.0.iter_mut().find_map(|companion| companion.takes_upgrade())
    }

    /// Whether all may be left now.
    pub(super) fn may_be_left(&self) -> bool {
        self.0.iter().all(|companion| companion.may_be_left())
    }

    pub(super) fn save(&self) -> Vec<SavedPart> {
        self.0.iter().flat_map(|companion| companion.save()).collect()
    }

    pub(super) fn tell(&mut self, notice: Notice<'_>, view: View<'_>) {
        self.0.iter_mut().for_each(|companion| companion.told(notice, view));
    }
}
