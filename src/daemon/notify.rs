//! Tells a service manager how the daemon is (sd_notify(3)): ready, reloading, stopping, alive.
//!
//! The socket is opened once, at the start, so that a change of root or user does not matter. Nothing
//! here waits or fails: what the manager is too busy to take is kept for the next turn if it must
//! arrive, and left out if a newer one will say it better. When something is due is decided by a clock
//! that is passed in.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use super::lines;
use crate::sys;

/// The shortest time between two status texts.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// When a message is tried again that the manager was too busy to take.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// The service manager that started us; does nothing if there is none.
#[derive(Debug, Default)]
pub struct ServiceManager {
    socket: Option<UnixDatagram>,
    /// What must arrive, in order, and has not been taken yet; a handful at most, as what is superseded
    /// goes.
    queue: VecDeque<(Event, String)>,
    /// While something is queued: before it nothing is sent.
    retry_at: Option<Instant>,
    status: Pace,
    watchdog: Option<Watchdog>,
    /// A message got lost, and it has been said.
    complained: bool,
}

impl ServiceManager {
    /// Connects to the manager that `NOTIFY_SOCKET` names, and takes the variables out of the
    /// environment, so that programs started later don't speak for the daemon.
    ///
    /// A manager that can't be reached is warned of, and there is none then: the log must be open.
    #[must_use]
    pub fn from_env() -> Self {
        let watchdog = sd_notify::watchdog_enabled();
        let [address, ..] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"]
            .map(|name| sys::handover::take_variable(name).unwrap_or_default());
        let Some(address) = address else { return Self::default() };
        match connect(&address) {
            Ok(socket) => Self::new(socket, watchdog),
            Err(error) => {
                lines::manager_unreachable(&address.display(), &error);
                Self::default()
            }
        }
    }

    fn new(socket: UnixDatagram, watchdog: Option<Duration>) -> Self {
        let watchdog = watchdog.map(|interval| Watchdog { interval, due: None });
        Self { socket: Some(socket), watchdog, ..Self::default() }
    }

    /// Whether there is one.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.socket.is_some()
    }

    /// The descriptor, which children have no use for.
    pub(super) fn descriptor(&self) -> Option<RawFd> {
        self.socket.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// The daemon serves, at first or again after [`reloading`](Self::reloading).
    pub fn ready(&mut self, now: Instant, status: &str) {
        self.status.sent(now, status);
        // from here on the manager waits for signs of life, even if nothing ever wakes the loop
        self.watchdog.iter_mut().for_each(|watchdog| _ = watchdog.due.get_or_insert(now));
        self.tell(now, Event::Ready, &[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// The configuration is being read again; [`ready`](Self::ready) must follow, whatever comes of it.
    pub fn reloading(&mut self, now: Instant) {
        match NotifyState::monotonic_usec_now() {
            // in one datagram: systemd 253 and newer tell by it which reload this is
            Ok(time) => self.tell(now, Event::Reloading, &[NotifyState::Reloading, time]),
            Err(error) => self.complain(&error),
        }
    }

    /// The daemon ends, which may take this long.
    pub fn stopping(&mut self, now: Instant, remaining: Duration) {
        let states = [NotifyState::Stopping, NotifyState::Custom(&extension(remaining))];
        self.tell(now, Event::Stopping, &states);
    }

    /// To be called in each turn of the loop. Says how the daemon is, if that has changed and was not
    /// said within the last second; and that it is alive, if that is due.
    ///
    /// The watchdog asks whether the loop turns, and nothing else: a shortage would not end by a restart, which
    /// cuts all clients that are served.
    pub fn send_due(&mut self, now: Instant, status: impl FnOnce() -> String) {
        if self.socket.is_none() || !self.flush(now) {
            return;
        }
        // first, since a full socket may take only one
        if let Some(watchdog) = &self.watchdog
            && watchdog.is_due(now)
        {
            let taken = self.offer(&[NotifyState::Watchdog]);
            self.watchdog.iter_mut().for_each(|watchdog| watchdog.offered(now, taken));
        }
        if self.status.is_due(now) {
            let text = status();
            if !self.status.is_news(&text) || self.offer(&[NotifyState::Status(&text)]) {
                self.status.sent(now, &text);
            } else {
                self.status.postpone(now);
            }
        }
    }

    /// When [`send_due`](Self::send_due) has something to do, at the latest.
    #[must_use]
    pub fn next_message(&self) -> Option<Instant> {
        if !self.queue.is_empty() {
            // the rest may be overdue, and goes after it
            return self.retry_at;
        }
        let watchdog = self.watchdog.as_ref().and_then(|watchdog| watchdog.due);
        watchdog.into_iter().chain(self.status.deadline()).min()
    }

    /// Says what must arrive.
    fn tell(&mut self, now: Instant, event: Event, states: &[NotifyState<'_>]) {
        if self.socket.is_some() {
            event.supersede(&mut self.queue);
            self.queue.push_back((event, message(states)));
            self.flush(now);
        }
    }

    /// Sends what is queued, unless it has just been tried; tells whether nothing is left.
    ///
    /// To be called in each turn of the loop in which [`send_due`](Self::send_due) isn't.
    pub fn flush(&mut self, now: Instant) -> bool {
        if self.queue.is_empty() {
            // in nearly every turn; a write would copy a page after a fork
            return true;
        }
        if self.retry_at.is_some_and(|then| now < then) {
            return false;
        }
        while let Some((event, message)) = self.queue.pop_front() {
            if !self.send(&message) {
                self.queue.push_front((event, message));
                self.retry_at = Some(now + RETRY_AFTER);
                return false;
            }
        }
        self.retry_at = None;
        true
    }

    /// Says what may be left out; tells whether the manager took it.
    fn offer(&mut self, states: &[NotifyState<'_>]) -> bool {
        self.send(&message(states))
    }

    /// Tells whether the message is done with: false, if the manager is too busy for it.
    fn send(&mut self, message: &str) -> bool {
        match self.socket.as_ref().map(|socket| socket.send(message.as_bytes())) {
            Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => false,
            Some(Err(error)) => {
                self.complain(&error);
                true
            }
            _ => true,
        }
    }

    fn complain(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.complained, true) {
            lines::manager_lost(error);
        }
    }
}

/// `NotifyState` has 32 bits for it, which is about an hour.
fn extension(remaining: Duration) -> String {
    format!("EXTEND_TIMEOUT_USEC={}", remaining.as_micros())
}

/// One datagram: a line for each.
fn message(states: &[NotifyState<'_>]) -> String {
    states.iter().map(|state| format!("{state}\n")).collect()
}

/// A socket file, or after an `@` a name of Linux's own (unix(7), "abstract").
fn connect(address: &OsStr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    match address.as_bytes() {
        #[cfg(target_os = "linux")]
        [b'@', name @ ..] => {
            use std::os::linux::net::SocketAddrExt;
            socket.connect_addr(&std::os::unix::net::SocketAddr::from_abstract_name(name)?)?;
        }
        _ => socket.connect(address)?,
    }
    Ok(socket)
}

/// What must arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Ready,
    Reloading,
    Stopping,
}

impl Event {
    /// Takes out of the queue what need not be said any more once this is. Then it has, whatever happens
    /// while the manager is busy, a `Ready`, a `Reloading` with its `Ready`, and a `Stopping` at most.
    fn supersede(self, queue: &mut VecDeque<(Self, String)>) {
        let reload = queue.iter().position(|(event, _)| *event == Self::Reloading);
        let mut index = 0..;
        queue.retain(|(event, _)| {
            // of a reload before, and not the end of the start, without which systemd knows of none
            let is_later = reload.is_none_or(|reload| index.next().is_some_and(|index| index >= reload));
            !match self {
                Self::Ready => *event == Self::Ready && is_later,
                Self::Reloading => {
                    reload.is_some() && is_later && matches!(event, Self::Ready | Self::Reloading)
                }
                Self::Stopping => *event == Self::Stopping,
            }
        });
    }
}

/// When the next status text may be sent.
#[derive(Debug, Default)]
struct Pace {
    next: Option<Instant>,
    /// Something may have changed since the last text.
    stale: bool,
    last: String,
}

impl Pace {
    /// Whether a text should be made; if not, it will be at [`deadline`](Self::deadline).
    fn is_due(&mut self, now: Instant) -> bool {
        let due = self.next.is_none_or(|next| now >= next);
        // no write where there is nothing to change: after a fork it would copy a page
        if !due && !self.stale {
            self.stale = true;
        }
        due
    }

    fn is_news(&self, text: &str) -> bool {
        self.last != text
    }

    fn sent(&mut self, now: Instant, text: &str) {
        if self.is_news(text) {
            text.clone_into(&mut self.last);
        }
        self.next = Some(now + STATUS_EVERY);
        self.stale = false;
    }

    fn postpone(&mut self, now: Instant) {
        self.next = Some(now + STATUS_EVERY);
        self.stale = true;
    }

    fn deadline(&self) -> Option<Instant> {
        self.next.filter(|_| self.stale)
    }
}

/// When the manager wants a sign of life.
#[derive(Debug)]
struct Watchdog {
    /// How long it waits for one before it ends us.
    interval: Duration,
    due: Option<Instant>,
}

impl Watchdog {
    fn is_due(&self, now: Instant) -> bool {
        self.due.is_none_or(|due| now >= due)
    }

    /// Half the interval is what sd_watchdog_enabled(3) recommends; a manager that was too busy may take it
    /// before the other half is over.
    fn offered(&mut self, now: Instant, taken: bool) {
        self.due = Some(now + self.interval / if taken { 2 } else { 8 });
    }
}

#[cfg(test)]
mod tests;
