//! Which of many descriptors are ready: epoll(7) on Linux and illumos, or kqueue(2) on the BSDs and macOS.
//!
//! Level-triggered: what is ready is told again and again until it is not; or, if asked for, told
//! once whenever it becomes so. A poller must not be used on both sides of a fork: an epoll instance is
//! shared, and a child that takes a descriptor out takes it from its parent, too.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interest {
    /// That a read would not block.
    pub read: bool,
    /// That a write would not block.
    pub write: bool,
    /// That the peer sends no more, before all that it has sent is read; where the system tells of that.
    pub end: bool,
}

impl Interest {
    /// Neither: only that the peer has gone, where the system tells of that.
    pub const NONE: Self = Self { read: false, write: false, end: false };
    /// To read.
    pub const READ: Self = Self { read: true, ..Self::NONE };
    /// To write.
    pub const WRITE: Self = Self { write: true, ..Self::NONE };
    /// To read and to write.
    pub const BOTH: Self = Self { write: true, ..Self::READ };
    /// That the peer sends no more.
    pub const END: Self = Self { end: true, ..Self::NONE };
}

/// A descriptor is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// What it was added with.
    pub token: usize,
    /// A read would not block, if only because the peer has gone.
    pub readable: bool,
    /// A write would not block, if only because the peer has gone.
    pub writable: bool,
    /// The peer will send no more: once what has come is read, that is the end.
    pub ended: bool,
}

/// How many events one wait returns at most: what is left comes with the next.
const MOST: usize = 64;

/// Waits for many descriptors at once: epoll(7), or kqueue(2) on the BSDs.
#[derive(Debug)]
pub struct Poller {
    queue: Queue,
}

impl Poller {
    /// # Errors
    ///
    /// As epoll_create1(2) or kqueue(2): there may be no descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self { queue: Queue::new()? })
    }

    /// Begins to look after a descriptor, which is known as `token`. It is forgotten when it is closed, if no
    /// other process has it, too.
    pub fn add(&self, fd: impl AsFd, token: usize, interest: Interest) -> io::Result<()> {
        self.queue.add(fd.as_fd(), token, interest)
    }

    /// Begins to look after a descriptor for good, in both directions: it is told once whenever it has become
    /// ready again (`EPOLLET`), so the caller must remember it until a call would block.
    pub fn add_edge(&self, fd: impl AsFd, token: usize) -> io::Result<()> {
        self.queue.add_edge(fd.as_fd(), token)
    }

    /// Waits for something else from now on; `before` is what was waited for.
    pub fn change(
        &self,
        fd: impl AsFd,
        token: usize,
        before: Interest,
        interest: Interest,
    ) -> io::Result<()> {
        self.queue.change(fd.as_fd(), token, before, interest)
    }

    /// Takes one descriptor that is ready, if there is one, without waiting: those that are ready take turns.
    pub fn next(&self) -> io::Result<Option<Event>> {
        let mut event = None;
        match self.queue.wait(1, Some(Duration::ZERO), |ready| event = Some(ready)) {
            Err(rustix::io::Errno::INTR) => Ok(None),
            outcome => outcome.map(|()| event).map_err(Into::into),
        }
    }

    /// Looks after a descriptor no longer.
    pub fn remove(&self, fd: impl AsFd, interest: Interest) -> io::Result<()> {
        self.queue.remove(fd.as_fd(), interest)
    }

    /// Waits until some are ready, at most for `limit`, and puts them into `events` in place of what
    /// that had. A signal ends the wait, too.
    pub fn wait(&self, events: &mut Vec<Event>, limit: Option<Duration>) -> io::Result<()> {
        events.clear();
        match self.queue.wait(MOST, limit, |event| events.push(event)) {
            Err(rustix::io::Errno::INTR) => Ok(()),
            outcome => Ok(outcome?),
        }
    }
}

/// The poller can itself be waited for.
impl AsFd for Poller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }
}

#[cfg(any(target_os = "linux", target_os = "illumos"))]
use by_epoll::Queue;

#[cfg(any(target_os = "linux", target_os = "illumos"))]
mod by_epoll {
    use rustix::event::{Timespec, epoll};

    use super::*;

    #[derive(Debug)]
    pub(super) struct Queue(OwnedFd);

    impl Queue {
        pub(super) fn new() -> io::Result<Self> {
            Ok(Self(epoll::create(epoll::CreateFlags::CLOEXEC)?))
        }

        pub(super) fn add(&self, fd: BorrowedFd<'_>, token: usize, interest: Interest) -> io::Result<()> {
            Ok(epoll::add(&self.0, fd, epoll::EventData::new_u64(token as u64), flags(interest))?)
        }

        pub(super) fn add_edge(&self, fd: BorrowedFd<'_>, token: usize) -> io::Result<()> {
            let flags = flags(Interest { end: true, ..Interest::BOTH }) | epoll::EventFlags::ET;
            Ok(epoll::add(&self.0, fd, epoll::EventData::new_u64(token as u64), flags)?)
        }

        pub(super) fn change(
            &self,
            fd: BorrowedFd<'_>,
            token: usize,
            _before: Interest,
            interest: Interest,
        ) -> io::Result<()> {
            Ok(epoll::modify(&self.0, fd, epoll::EventData::new_u64(token as u64), flags(interest))?)
        }

        pub(super) fn remove(&self, fd: BorrowedFd<'_>, _interest: Interest) -> io::Result<()> {
            Ok(epoll::delete(&self.0, fd)?)
        }

        pub(super) fn wait(
            &self,
            most: usize,
            limit: Option<Duration>,
            mut tell: impl FnMut(Event),
        ) -> rustix::io::Result<()> {
            let limit = limit.map(|limit| Timespec::try_from(limit).unwrap_or(LONGEST));
            let mut ready = [std::mem::MaybeUninit::uninit(); MOST];
            let (ready, _) = epoll::wait(&self.0, &mut ready[..most], limit.as_ref())?;
            for event in ready {
                let (flags, gone) = (event.flags, epoll::EventFlags::ERR | epoll::EventFlags::HUP);
                tell(Event {
                    token: event.data.u64() as usize,
                    readable: flags.intersects(epoll::EventFlags::IN | gone),
                    writable: flags.intersects(epoll::EventFlags::OUT | gone),
                    ended: flags.intersects(epoll::EventFlags::RDHUP | gone),
                });
            }
            Ok(())
        }
    }

    const LONGEST: Timespec = Timespec { tv_sec: i32::MAX as i64 / 1000, tv_nsec: 0 };

    fn flags(interest: Interest) -> epoll::EventFlags {
        let mut flags = epoll::EventFlags::empty();
        flags.set(epoll::EventFlags::IN, interest.read);
        flags.set(epoll::EventFlags::OUT, interest.write);
        flags.set(epoll::EventFlags::RDHUP, interest.end);
        flags
    }

    impl AsFd for Queue {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "illumos")))]
use by_kqueue::Queue;

#[cfg(not(any(target_os = "linux", target_os = "illumos")))]
mod by_kqueue {
    use std::os::fd::AsRawFd;

    use nix::sys::event::{EvFlags, EventFilter, FilterFlag, KEvent, Kqueue};

    use super::*;

    #[derive(Debug)]
    pub(super) struct Queue(Kqueue);

    impl Queue {
        pub(super) fn new() -> io::Result<Self> {
            Ok(Self(Kqueue::new()?))
        }

        pub(super) fn add(&self, fd: BorrowedFd<'_>, token: usize, interest: Interest) -> io::Result<()> {
            self.change(fd, token, Interest::NONE, interest)
        }

        pub(super) fn add_edge(&self, fd: BorrowedFd<'_>, token: usize) -> io::Result<()> {
            let filters = [EventFilter::EVFILT_READ, EventFilter::EVFILT_WRITE];
            let changes = filters.map(|filter| {
                let (fd, none) = (fd.as_raw_fd() as usize, FilterFlag::empty());
                KEvent::new(fd, filter, EvFlags::EV_ADD | EvFlags::EV_CLEAR, none, 0, token as isize as _)
            });
            self.0.kevent(&changes, &mut [], None)?;
            Ok(())
        }

        /// Each direction is a filter of its own.
        pub(super) fn change(
            &self,
            fd: BorrowedFd<'_>,
            token: usize,
            before: Interest,
            interest: Interest,
        ) -> io::Result<()> {
            let (read, write) = (EventFilter::EVFILT_READ, EventFilter::EVFILT_WRITE);
            let mut changes = Vec::new();
            for (filter, was, is) in
                [(read, before.read, interest.read), (write, before.write, interest.write)]
            {
                if was != is {
                    let flags = if is { EvFlags::EV_ADD } else { EvFlags::EV_DELETE };
                    let (fd, none) = (fd.as_raw_fd() as usize, FilterFlag::empty());
                    changes.push(KEvent::new(fd, filter, flags, none, 0, token as isize as _));
                }
            }
            self.0.kevent(&changes, &mut [], None)?;
            Ok(())
        }

        pub(super) fn remove(&self, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
            self.change(fd, 0, interest, Interest::NONE)
        }

        pub(super) fn wait(
            &self,
            most: usize,
            limit: Option<Duration>,
            mut tell: impl FnMut(Event),
        ) -> rustix::io::Result<()> {
            let limit = limit.map(|limit| libc::timespec {
                tv_sec: limit.as_secs().min(i32::MAX as u64) as _,
                tv_nsec: limit.subsec_nanos() as _,
            });
            let none = KEvent::new(0, EventFilter::EVFILT_READ, EvFlags::empty(), FilterFlag::empty(), 0, 0);
            let mut ready = [none; MOST];
            let count = self
                .0
                .kevent(&[], &mut ready[..most], limit)
                .map_err(|errno| rustix::io::Errno::from_raw_os_error(errno as i32))?;
            for event in &ready[..count] {
                let gone = event.flags().contains(EvFlags::EV_ERROR);
                tell(Event {
                    token: event.udata() as usize,
                    readable: gone || event.filter() == Ok(EventFilter::EVFILT_READ),
                    writable: gone || event.filter() == Ok(EventFilter::EVFILT_WRITE),
                    ended: gone || event.flags().contains(EvFlags::EV_EOF),
                });
            }
            Ok(())
        }
    }

    impl AsFd for Queue {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn ready(poller: &Poller) -> Vec<Event> {
        let mut events = Vec::new();
        poller.wait(&mut events, Some(Duration::ZERO)).expect("wait");
        events
    }

    #[test]
    fn tells_what_is_ready_until_it_is_not() {
        let (a, b) = UnixStream::pair().expect("pair");
        let poller = Poller::new().expect("poller");
        poller.add(&a, 7, Interest::READ).expect("add");
        assert_eq!(ready(&poller), []);
        rustix::io::write(&b, b"x").expect("write");
        let readable = Event { token: 7, readable: true, writable: false, ended: false };
        assert_eq!((ready(&poller), ready(&poller)), (vec![readable], vec![readable]));
        rustix::io::read(&a, &mut [0_u8; 1]).expect("read");
        assert_eq!(ready(&poller), []);
        poller.change(&a, 8, Interest::READ, Interest::WRITE).expect("change");
        assert_eq!(ready(&poller), [Event { token: 8, readable: false, writable: true, ended: false }]);
        poller.remove(&a, Interest::WRITE).expect("remove");
        assert_eq!(ready(&poller), []);
    }

    #[test]
    fn an_edge_is_told_once_and_the_end_with_it() {
        let (a, b) = UnixStream::pair().expect("pair");
        let poller = Poller::new().expect("poller");
        poller.add_edge(&a, 7).expect("add");
        let told = |readable, ended| vec![Event { token: 7, readable, writable: true, ended }];
        assert_eq!((ready(&poller), ready(&poller)), (told(false, false), vec![]));
        rustix::io::write(&b, b"xx").expect("write");
        assert_eq!((ready(&poller), ready(&poller)), (told(true, false), vec![]));
        rustix::io::read(&a, &mut [0_u8; 1]).expect("read");
        assert_eq!(ready(&poller), []);
        b.shutdown(std::net::Shutdown::Write).expect("shutdown");
        assert_eq!((ready(&poller), ready(&poller)), (told(true, true), vec![]));
    }

    #[test]
    fn a_peer_that_has_gone_is_told_whatever_is_waited_for() {
        let (a, b) = UnixStream::pair().expect("pair");
        let poller = Poller::new().expect("poller");
        poller.add(&a, 1, Interest::WRITE).expect("add");
        drop(b);
        let events = ready(&poller);
        assert!(events.len() == 1 && events[0].writable, "{events:?}");
    }
}
