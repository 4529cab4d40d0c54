//! The datagrams of one client that are under way.
//!
//! The invariant: numbers ascend without gaps, and the oldest is under way, so what is over takes no room
//! but between others.

use std::collections::VecDeque;

use super::clock::Nanos;

/// A datagram that is under way: when it was due, and when it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Datagram {
    pub(super) due: Nanos,
    pub(super) sent: Nanos,
}

#[derive(Debug, Default)]
pub(super) struct InFlight {
    /// From the oldest, whose number is `oldest`, to the newest; `None` is over.
    in_flight: VecDeque<Option<Datagram>>,
    oldest: u64,
}

impl InFlight {
    pub(super) fn oldest(&self) -> u64 {
        self.oldest
    }

    /// The number of the next one that is sent.
    pub(super) fn next(&self) -> u64 {
        self.oldest + self.in_flight.len() as u64
    }

    pub(super) fn len(&self) -> usize {
        self.in_flight.len()
    }

    pub(super) fn start(&mut self, datagram: Datagram) {
        self.in_flight.push_back(Some(datagram));
    }

    /// An answer has come; `None` if it is not, or no longer, waited for.
    pub(super) fn answered(&mut self, number: u64) -> Option<Datagram> {
        let at = usize::try_from(number.checked_sub(self.oldest)?).ok()?;
        let datagram = self.in_flight.get_mut(at)?.take();
        self.tidy();
        datagram
    }

    /// Gives up what was sent before `moment`.
    pub(super) fn give_up(&mut self, moment: Nanos, mut lost: impl FnMut(Datagram)) {
        for slot in &mut self.in_flight {
            match *slot {
                Some(datagram) if datagram.sent >= moment => break,
                Some(datagram) => lost(datagram),
                None => {}
            }
            *slot = None;
        }
        self.tidy();
    }

    /// Forgets all, and does not use a number again that may have been sent.
    pub(super) fn reset(&mut self) {
        self.oldest = self.next() + 1;
        self.in_flight.clear();
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Datagram> {
        self.in_flight.iter().flatten()
    }

    fn tidy(&mut self) {
        while let Some(None) = self.in_flight.front() {
            self.in_flight.pop_front();
            self.oldest += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_flight(sent: impl IntoIterator<Item = Nanos>) -> InFlight {
        let mut in_flight = InFlight::default();
        sent.into_iter().for_each(|sent| in_flight.start(Datagram { due: sent, sent }));
        in_flight
    }

    #[test]
    fn answers_may_come_in_any_order_and_once() {
        let mut in_flight = in_flight([10, 20, 30]);
        assert_eq!(in_flight.answered(1), Some(Datagram { due: 20, sent: 20 }));
        assert_eq!((in_flight.answered(1), in_flight.answered(3), in_flight.oldest()), (None, None, 0));
        assert!(in_flight.answered(0).is_some());
        assert_eq!((in_flight.oldest(), in_flight.next(), in_flight.len()), (2, 3, 1));
        assert_eq!(in_flight.answered(0), None);
    }

    #[test]
    fn what_is_too_old_is_lost() {
        let (mut in_flight, mut lost) = (in_flight([10, 20, 30]), Vec::new());
        in_flight.answered(1);
        in_flight.give_up(30, |datagram| lost.push(datagram.sent));
        assert_eq!((lost, in_flight.oldest(), in_flight.iter().count()), (vec![10], 2, 1));
    }

    #[test]
    fn no_number_is_used_twice() {
        let mut in_flight = in_flight([10, 20]);
        in_flight.reset();
        assert_eq!((in_flight.oldest(), in_flight.next(), in_flight.len()), (3, 3, 0));
    }
}
