//! When clients are taken from a listener's queue: the rules of accepting, once for all models. Pure, as the pool's
//! policy.
//!
//! A model's driver polls and makes the calls. Before each accept(2) or recvmsg(2) it asks what comes
//! [next](Admission::next); after the call it says how that went: [`accepted`](Admission::accepted),
//! [`refused`](Admission::refused) or [`failed`](Admission::failed). What a driver knows better is an argument: whether
//! there is [room](Room) for a client, and how much one [`Round`] takes.
//!
//! The invariant: a client is taken from the queue only if there is room for it, no shortage was met in the last
//! [`REST`], and no stop has begun, or the client was queued before that. The machine writes only where something
//! changes: in the master's memory each other write would be a page fault after a fork.

use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::limit::{Episode, RateLimit};

/// The pause after accept(2) has found no descriptor or no memory.
pub(crate) const REST: Duration = Duration::from_millis(100);

/// The pauses after a process or a thread could not be started.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The pause after this many failures in a row: it doubles with each.
pub(crate) fn back_off(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST_PAUSE)
}

/// What an accept(2) or recvmsg(2) that fails says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No client is queued.
    Empty,
    /// The call has taken one client from the queue and lost it, or was interrupted: the next may be fine.
    Passing,
    /// The socket listens no more, or the descriptor is that of no socket any more (`sys::shutdown_fd::ShutdownFd`).
    Shut,
    /// This process, or the system, has no descriptor or no memory for a connection.
    Shortage,
    /// An error that accept(2) should not give.
    Other,
}

impl Failure {
    /// Linux passes on errors that were pending on the new connection (accept(2), "Error handling").
    pub(crate) fn of(error: Errno) -> Self {
        match error {
            Errno::AGAIN => Self::Empty,
            Errno::NOTSOCK | Errno::INVAL => Self::Shut,
            Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM => Self::Shortage,
            Errno::INTR
            | Errno::CONNABORTED
            | Errno::CONNRESET
            | Errno::PROTO
            | Errno::NETDOWN
            | Errno::NOPROTOOPT
            | Errno::HOSTDOWN
            | Errno::HOSTUNREACH
            | Errno::OPNOTSUPP
            | Errno::NETUNREACH
            | Errno::TIMEDOUT
            | Errno::PERM => Self::Passing,
            _ => Self::Other,
        }
    }
}

/// The clients that were queued when a stop began and have not been taken: a number, or a counter that workers share.
pub(crate) trait Queued {
    /// Counts one client as taken; `false` if there is none left.
    fn take(&mut self) -> bool;
    /// That client is still queued.
    fn put_back(&mut self);
}

impl Queued for u32 {
    fn take(&mut self) -> bool {
        let is_left = *self > 0;
        *self -= u32::from(is_left);
        is_left
    }

    fn put_back(&mut self) {
        *self += 1;
    }
}

/// Whether one more client can be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    Free,
    /// Not now, though the limit is not reached: a client is pending, or ended children are still to be reaped.
    Soon,
    /// As many clients are served as are allowed.
    Full,
    /// Yes, but other workers have fewer clients.
    Elsewhere,
    /// Not before so long has passed: clients come more often than they may.
    Later(Duration),
}

/// What a driver does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Takes a client, and says how that went.
    Accept,
    /// Takes a client that is not served, and says how that went.
    Reject,
    /// Looks after others, and begins another round when a client may be queued.
    Wait,
    /// Waits until a client has left.
    WaitForRoom,
    /// Leaves the next client to other workers, for a while.
    LeaveToOthers,
    /// Takes no client until then, or until one that leaves gives a descriptor back; then the rest is
    /// [over](Admission::rested).
    Rest(Instant),
    /// Takes no client for so long.
    Pause(Duration),
    /// Takes no more clients.
    Done,
}

/// What the log is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    /// The clients wait for want of a descriptor or of memory.
    ShortageBegins(Errno),
    ShortageEnds,
    /// accept(2) has failed as it should not; this many such lines were left out before this one.
    Failed(Errno, u64),
}

/// How many clients may come in before the driver looks after others. It lies on the driver's stack.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Round {
    served: u32,
    refused: u32,
    is_over: bool,
}

impl Round {
    /// Until no client is queued.
    pub(crate) const ENDLESS: Self = Self::of(u32::MAX, u32::MAX);

    /// Until this many clients are served or this many are not, or none is queued.
    pub(crate) const fn of(served: u32, refused: u32) -> Self {
        Self { served, refused, is_over: false }
    }

    /// Whether as many clients have come in as may, so that there may be more.
    pub(crate) fn is_spent(self) -> bool {
        self.served == 0 || self.refused == 0
    }
}

#[derive(Debug)]
enum Stage<Q> {
    Open,
    Draining(Q),
    Closed,
}

/// How a listener's clients come in.
#[derive(Debug)]
pub(crate) struct Admission<Q> {
    stage: Stage<Q>,
    /// A client for which there is no room is rejected.
    rejects: bool,
    rest_until: Option<Instant>,
    shortage: Episode,
    failures: RateLimit,
    full: RateLimit,
}

impl<Q: Queued> Admission<Q> {
    /// It may reject clients for which there is no room; otherwise they wait.
    pub(crate) fn new(rejects: bool) -> Self {
        Self {
            stage: Stage::Open,
            rejects,
            rest_until: None,
            shortage: Episode::default(),
            failures: RateLimit::default(),
            full: RateLimit::default(),
        }
    }

    /// What comes next. A client that is to be accepted or rejected counts as taken, if it was queued at a stop.
    pub(crate) fn next(&mut self, round: &Round, room: Room) -> Next {
        match (&self.stage, self.rest_until) {
            (Stage::Closed, _) => return Next::Done,
            (_, Some(then)) => return Next::Rest(then),
            _ => {}
        }
        if round.is_over || round.is_spent() || room == Room::Soon {
            return Next::Wait;
        }
        if room == Room::Full && !self.rejects {
            return Next::WaitForRoom;
        }
        if room == Room::Elsewhere && !self.is_draining() {
            return Next::LeaveToOthers;
        }
        if let Room::Later(pause) = room
            && !self.is_draining()
        {
            return Next::Pause(pause);
        }
        match self.take_queued() {
            false => Next::Done,
            true if room == Room::Full => Next::Reject,
            true => Next::Accept,
        }
    }

    /// Counts a client that was queued at a stop as taken; `false` if all of these have been.
    pub(crate) fn take_queued(&mut self) -> bool {
        if let Stage::Draining(queued) = &mut self.stage
            && !queued.take()
        {
            self.close();
        }
        !self.is_closed()
    }

    /// The client that was to be taken is still queued.
    pub(crate) fn put_back(&mut self) {
        if let Stage::Draining(queued) = &mut self.stage {
            queued.put_back();
        }
    }

    /// Whether a client that comes would be taken.
    pub(crate) fn wants_clients(&self, room: Room, now: Instant) -> bool {
        let rests = self.rest_until.is_some_and(|then| now < then);
        let takes = match room {
            Room::Free => true,
            Room::Full => self.rejects,
            Room::Later(_) => self.is_draining(),
            Room::Soon | Room::Elsewhere => false,
        };
        takes && !rests && !self.is_closed()
    }

    /// A client has come in and is served.
    pub(crate) fn accepted(&mut self, round: &mut Round) -> Option<News> {
        round.served = round.served.saturating_sub(1);
        self.shortage.end().then_some(News::ShortageEnds)
    }

    /// A client has come in and is not served.
    pub(crate) fn refused(&mut self, round: &mut Round) {
        round.refused = round.refused.saturating_sub(1);
    }

    /// No client has come in.
    pub(crate) fn failed(&mut self, round: &mut Round, error: Errno, now: Instant) -> Option<News> {
        let failure = Failure::of(error);
        if failure != Failure::Passing {
            self.put_back();
        }
        match (failure, &self.stage) {
            (Failure::Passing, _) => self.refused(round),
            // those that were queued have been served
            (Failure::Empty | Failure::Shut, Stage::Draining(_)) => self.stage = Stage::Closed,
            (Failure::Empty, _) => round.is_over = true,
            (Failure::Shortage, _) => {
                self.rest_until = Some(now + REST);
                return self.shortage.begin(now).then_some(News::ShortageBegins(error));
            }
            (Failure::Shut | Failure::Other, _) => {
                self.rest_until = Some(now + REST);
                return self.failures.admit(now).map(|suppressed| News::Failed(error, suppressed));
            }
        }
        None
    }

    /// No client can come in, since there is no room; with the number of lines left out, if that is to be logged.
    pub(crate) fn found_full(&mut self, now: Instant) -> Option<u64> {
        self.full.admit(now)
    }

    /// Until when clients wait for want of a descriptor or of memory.
    pub(crate) fn rest_until(&self) -> Option<Instant> {
        self.rest_until
    }

    /// The rest is over, or a client that has left may have given a descriptor back.
    pub(crate) fn rested(&mut self) {
        if self.rest_until.is_some() {
            self.rest_until = None;
        }
    }

    /// Serves those that are queued, and no others.
    pub(crate) fn drain(&mut self, queued: Q) {
        self.stage = Stage::Draining(queued);
    }

    /// Takes no more clients.
    pub(crate) fn close(&mut self) {
        self.stage = Stage::Closed;
    }

    pub(crate) fn is_draining(&self) -> bool {
        matches!(self.stage, Stage::Draining(_))
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.stage, Stage::Closed)
    }
}

/// No process, or no thread, can be started for a client that has come in: it is kept, no other comes in, and it is
/// tried again later and later.
#[derive(Debug, Default)]
pub(crate) struct Shortage {
    failures: u32,
    /// Since when, and when to try again.
    lasts: Option<(Instant, Instant)>,
    lines: Episode,
}

impl Shortage {
    /// It has failed; tells whether to log that.
    pub(crate) fn failed(&mut self, now: Instant) -> bool {
        self.failures += 1;
        let since = self.lasts.map_or(now, |(since, _)| since);
        self.lasts = Some((since, now + back_off(self.failures)));
        self.lines.begin(now)
    }

    /// It has worked; for how long it had not, if that is to be logged.
    pub(crate) fn worked(&mut self, now: Instant) -> Option<Duration> {
        let (since, _) = self.lasts?;
        (self.failures, self.lasts) = (0, None);
        self.lines.end().then(|| now - since)
    }

    /// While it lasts: when to try again.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.lasts.map(|(_, retry_at)| retry_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Round = Round::ENDLESS;

    fn worker() -> (Admission<u32>, Round, Instant) {
        (Admission::new(false), ALL, Instant::now())
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn each_error_has_one_meaning() {
        use Failure::{Empty, Other, Passing, Shortage, Shut};
        for (errors, failure) in [
            (&[Errno::AGAIN, Errno::WOULDBLOCK][..], Empty),
            (&[Errno::INTR, Errno::CONNABORTED, Errno::PROTO, Errno::NETDOWN, Errno::PERM], Passing),
            (&[Errno::NOTSOCK, Errno::INVAL], Shut),
            (&[Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM], Shortage),
            (&[Errno::BADF, Errno::IO, Errno::FAULT], Other),
        ] {
            assert!(errors.iter().all(|&error| Failure::of(error) == failure), "{errors:?}");
        }
    }

    #[test]
    fn a_client_is_left_to_other_workers_but_not_at_a_stop() {
        let (mut admission, round, _) = worker();
        assert_eq!(admission.next(&round, Room::Elsewhere), Next::LeaveToOthers);
        admission.drain(1);
        assert_eq!(admission.next(&round, Room::Elsewhere), Next::Accept);
        assert_eq!(admission.next(&round, Room::Elsewhere), Next::Done);
    }

    #[test]
    fn a_client_that_comes_too_soon_is_left_in_the_queue_but_not_at_a_stop() {
        let (mut admission, round, now) = worker();
        assert_eq!(admission.next(&round, Room::Later(ms(5))), Next::Pause(ms(5)));
        assert!(!admission.wants_clients(Room::Later(ms(5)), now));
        assert_eq!(admission.next(&round, Room::Free), Next::Accept);
        admission.drain(1);
        assert!(admission.wants_clients(Room::Later(ms(5)), now));
        assert_eq!(admission.next(&round, Room::Later(ms(5))), Next::Accept);
        assert_eq!(admission.next(&round, Room::Later(ms(5))), Next::Done);
    }

    #[test]
    fn an_empty_queue_ends_the_round_and_an_error_of_one_connection_does_not() {
        let (mut admission, mut round, now) = worker();
        for error in [Errno::CONNABORTED, Errno::INTR, Errno::PROTO] {
            assert_eq!(admission.failed(&mut round, error, now), None);
            assert_eq!(admission.next(&round, Room::Free), Next::Accept, "{error}");
        }
        assert_eq!(admission.failed(&mut round, Errno::AGAIN, now), None);
        assert_eq!(admission.next(&round, Room::Free), Next::Wait);
        assert!(!round.is_spent(), "there is no other client");
        assert_eq!(admission.next(&ALL, Room::Free), Next::Accept);
    }

    #[test]
    fn a_round_is_a_few_that_are_served_or_many_that_are_not() {
        for (served, outcomes, count) in [
            (4, &[true][..], 4),
            (4, &[false], 64),
            (4, &[false, false, false, true], 7),
            (4, &[true, true, true, false], 67),
            (1, &[true], 1),
            (0, &[true], 0),
        ] {
            let (mut admission, mut round) = (Admission::<u32>::new(false), Round::of(served, 64));
            let mut taken = 0;
            while admission.next(&round, Room::Free) == Next::Accept {
                match outcomes[taken.min(outcomes.len() - 1)] {
                    true => _ = admission.accepted(&mut round),
                    false => admission.refused(&mut round),
                }
                taken += 1;
            }
            assert_eq!((taken, round.is_spent()), (count, true), "{served} {outcomes:?}");
        }
    }

    #[test]
    fn a_shortage_is_a_rest_with_one_line_at_its_beginning_and_one_at_its_end() {
        for error in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
            let (mut admission, mut round, now) = worker();
            assert_eq!(admission.failed(&mut round, error, now), Some(News::ShortageBegins(error)));
            assert_eq!(admission.next(&round, Room::Free), Next::Rest(now + REST));
            assert_eq!(admission.rest_until(), Some(now + REST));
            admission.rested();
            assert_eq!(admission.next(&round, Room::Free), Next::Accept);
            assert_eq!(admission.failed(&mut round, error, now + REST), None);
            assert_eq!(admission.next(&round, Room::Free), Next::Rest(now + REST * 2));
            admission.rested();
            assert_eq!(admission.accepted(&mut round), Some(News::ShortageEnds));
            assert_eq!(admission.accepted(&mut round), None);
        }
    }

    #[test]
    fn an_error_that_should_not_be_is_a_rest_with_a_limited_number_of_lines() {
        let (mut admission, mut round, now) = worker();
        let mut failed = |at| {
            let news = admission.failed(&mut round, Errno::IO, at);
            assert_eq!(admission.next(&round, Room::Free), Next::Rest(at + REST));
            admission.rested();
            news
        };
        for _ in 0..5 {
            assert_eq!(failed(now), Some(News::Failed(Errno::IO, 0)));
        }
        assert_eq!((failed(now), failed(now)), (None, None));
        assert_eq!(failed(now + ms(10_000)), Some(News::Failed(Errno::IO, 2)));
        // so is a socket that another process has shut
        let shut = admission.failed(&mut round, Errno::INVAL, now + ms(20_000));
        assert_eq!(shut, Some(News::Failed(Errno::INVAL, 0)));
    }

    #[test]
    fn clients_without_room_wait_or_are_rejected() {
        for (rejects, room, next) in [
            (false, Room::Free, Next::Accept),
            (false, Room::Soon, Next::Wait),
            (false, Room::Full, Next::WaitForRoom),
            (true, Room::Free, Next::Accept),
            (true, Room::Soon, Next::Wait),
            (true, Room::Full, Next::Reject),
        ] {
            let (mut admission, now) = (Admission::<u32>::new(rejects), Instant::now());
            assert_eq!(admission.next(&ALL, room), next, "{rejects} {room:?}");
            let takes = matches!(next, Next::Accept | Next::Reject);
            assert_eq!(admission.wants_clients(room, now), takes, "{rejects} {room:?}");
            // one at the end of a queue, too
            admission.drain(1);
            assert_eq!(admission.next(&ALL, room), next, "{rejects} {room:?}");
            admission.failed(&mut ALL.clone(), Errno::MFILE, now);
            assert!(!admission.wants_clients(room, now + REST / 2), "it rests");
            assert_eq!(admission.wants_clients(room, now + REST), takes);
            admission.close();
            assert!(!admission.wants_clients(room, now + REST));
        }
    }

    #[test]
    fn a_drain_takes_exactly_those_that_were_queued() {
        let (mut admission, mut round, now) = worker();
        admission.drain(4);
        // one served, one not, and one lost
        assert_eq!(admission.next(&round, Room::Free), Next::Accept);
        assert_eq!(admission.accepted(&mut round), None);
        assert_eq!(admission.next(&round, Room::Free), Next::Accept);
        admission.refused(&mut round);
        assert_eq!(admission.next(&round, Room::Free), Next::Accept);
        assert_eq!(admission.failed(&mut round, Errno::CONNABORTED, now), None);
        // the last one waits for a descriptor, and for room, and is taken once
        assert_eq!(admission.next(&round, Room::Free), Next::Accept);
        assert!(admission.failed(&mut round, Errno::MFILE, now).is_some());
        assert_eq!(admission.next(&round, Room::Free), Next::Rest(now + REST));
        admission.rested();
        assert_eq!(admission.next(&round, Room::Full), Next::WaitForRoom);
        assert!(admission.is_draining());
        assert_eq!(admission.next(&round, Room::Free), Next::Accept);
        assert_eq!(admission.accepted(&mut round), Some(News::ShortageEnds));
        assert_eq!(admission.next(&round, Room::Free), Next::Done);
        assert!(admission.is_closed());
    }

    #[test]
    fn a_drain_ends_with_an_empty_queue_whatever_was_counted() {
        for error in [Errno::AGAIN, Errno::INVAL, Errno::NOTSOCK] {
            let (mut admission, mut round, now) = worker();
            admission.drain(1000);
            assert_eq!(admission.next(&round, Room::Free), Next::Accept);
            assert_eq!(admission.failed(&mut round, error, now), None);
            assert_eq!(admission.next(&round, Room::Free), Next::Done, "{error}");
        }
        let (mut admission, round, _) = worker();
        admission.drain(0);
        assert_eq!(admission.next(&round, Room::Free), Next::Done);
    }

    #[test]
    fn a_closed_listener_takes_no_client() {
        for room in [Room::Free, Room::Soon, Room::Full] {
            let (mut admission, mut round, now) = worker();
            admission.failed(&mut round, Errno::MFILE, now);
            admission.close();
            assert_eq!(admission.next(&round, room), Next::Done);
            assert!(!admission.take_queued());
        }
    }

    #[test]
    fn the_pause_doubles_up_to_a_second_and_begins_anew_with_a_success() {
        let pauses = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, u32::MAX].map(|n| back_off(n).as_millis());
        assert_eq!(pauses, [10, 10, 20, 40, 80, 160, 320, 640, 1000, 1000, 1000]);
        let (mut shortage, start) = (Shortage::default(), Instant::now());
        assert_eq!((shortage.worked(start), shortage.retry_at()), (None, None));
        for round in 0..3 {
            let mut now = start + ms(5000 * round);
            for (failure, pause) in [10, 20, 40, 80].into_iter().enumerate() {
                assert_eq!(shortage.failed(now), failure == 0, "one line");
                assert_eq!(shortage.retry_at(), Some(now + ms(pause)));
                now += ms(pause);
            }
            assert_eq!(shortage.worked(now), Some(ms(150)));
            assert_eq!((shortage.worked(now), shortage.retry_at()), (None, None));
        }
    }
}
