//! What the master waits for: the registry of descriptors, and when the next thing is due.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags};
use smallvec::SmallVec;

use super::context::ACCEPT_REST;
use super::master::Master;
use super::phase::Phase;
use super::station::{Kind, Life};
use crate::Error;

/// Lists that are short as a rule and lie on the stack: after a fork, a write to the heap would
/// copy a page of it.
pub(super) type Few<T> = SmallVec<[T; 12]>;

/// What a ready descriptor stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    Signal,
    Wake,
    /// The application wants the end.
    Shutdown,
    /// A descriptor of a companion, by the companion's own number.
    Companion(usize, usize),
    /// A process of an attendant has died; its pid.
    AttendantDeath(usize, u32),
    /// Clients at a station.
    Clients(usize),
    /// A worker of a station has died; its slot.
    Death(usize, u32),
}

impl Master {
    /// Waits until a descriptor is ready or the next thing is due, and not beyond `until`.
    pub(super) fn wait(&self, until: Option<Instant>) -> Result<Few<Event>, Error> {
        let (mut fds, mut events) = (Few::new(), Few::new());
        self.watch(|fd, flags, event| {
            fds.push(PollFd::new(fd, flags));
            events.push(event);
        });
        let timeout = self.timeout(until);
        self.poll(&mut fds, timeout).map_err(|cause| Error::os("cannot wait for events", cause))?;
        let ready = |fd: &PollFd<'_>| fd.revents().is_some_and(|flags| !flags.is_empty());
        Ok(fds.iter().zip(events).filter(|(fd, _)| ready(fd)).map(|(_, event)| event).collect())
    }

    fn poll(&self, fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> std::io::Result<()> {
        let mut most = fds.len();
        let mut limit = timeout;
        loop {
            match self.cx.blocked.wait(&mut fds[..most], limit) {
                // poll(2) takes no more descriptors than RLIMIT_NOFILE, which may have been lowered:
                // then the first ones, signals above all, must do, and the others are looked at soon.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) && most > 0 => {
                    most /= 2;
                    limit = Some(timeout.unwrap_or(ACCEPT_REST).min(ACCEPT_REST));
                }
                other => return other,
            }
        }
    }

    /// The registry: which descriptors matter now, and what each stands for.
    fn watch<'a>(&'a self, mut add: impl FnMut(BorrowedFd<'a>, PollFlags, Event)) {
        let readable = PollFlags::POLLIN;
        if let Some(signals) = &self.cx.signals {
            add(signals.as_fd(), readable, Event::Signal);
        }
        add(self.cx.board.wake().as_fd(), readable, Event::Wake);
        if let (Some((handle, _)), Phase::Running) = (&self.application, self.phase) {
            add(handle.bell(), readable, Event::Shutdown);
        }
        for (index, companion) in self.companions.iter().enumerate() {
            companion.watch(self.cx.now, &mut |fd, flags, number| {
                add(fd, flags, Event::Companion(index, number));
            });
        }
        for (index, attendant) in self.attendants.iter().enumerate() {
            for (watch, pid) in attendant.watches() {
                add(watch, readable, Event::AttendantDeath(index, pid));
            }
        }
        for (number, station) in self.stations.iter().enumerate() {
            match &station.kind {
                Kind::Forking(forking)
                    if station.life != Life::Starting && forking.wants_clients(&self.cx) =>
                {
                    add(forking.post.listener.as_fd(), readable, Event::Clients(number));
                }
                Kind::Forking(_) | Kind::Gone { .. } => {}
                Kind::Pooling(pooling) => {
                    for (watch, slot) in pooling.watches() {
                        add(watch.as_fd(), readable, Event::Death(number, slot));
                    }
                }
            }
        }
    }

    /// How long to wait; `None`: until something happens.
    fn timeout(&self, until: Option<Instant>) -> Option<Duration> {
        if self.someone_waits() {
            // Said before looking: a child that ends after the look wakes us.
            self.cx.board.set_waiting(true);
            if self.cx.board.has_dead() {
                return Some(Duration::ZERO);
            }
        }
        let stations = self.stations.iter().filter_map(|station| station.deadline(&self.cx));
        let companions = self.companions.iter().filter_map(|companion| companion.deadline(self.view()));
        let attendants = self.attendants.iter().filter_map(|attendant| attendant.deadline(self.cx.now));
        let work = self.application.as_ref().and_then(|(_, turns)| turns.longest());
        let others = [
            self.next_look(),
            self.phase.deadline(),
            self.reload_deadline(),
            work.map(|every| self.cx.now + every),
            until,
        ];
        let next = stations.chain(companions).chain(attendants).chain(others.into_iter().flatten()).min();
        next.map(|then| then.saturating_duration_since(Instant::now()))
    }
}
