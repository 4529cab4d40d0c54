//! The datagrams of one client that are under way.
//!
//! The invariant: numbers ascend without gaps, and the oldest is under way, so what is over takes no room
//! but between others.

use std::collections::VecDeque;

use super::clock::Nanos;

/// A datagram that is under way: when it was due, and when it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flight {
    pub(super) due: Nanos,
    pub(super) sent: Nanos,
}

#[derive(Debug, Default)]
pub(super) struct Flights {
    /// From the oldest, whose number is `oldest`, to the newest; `None` is over.
    flights: VecDeque<Option<Flight>>,
    oldest: u64,
}

impl Flights {
    pub(super) fn oldest(&self) -> u64 {
        self.oldest
    }

    /// The number of the next one that is sent.
    pub(super) fn next(&self) -> u64 {
        self.oldest + self.flights.len() as u64
    }

    pub(super) fn len(&self) -> usize {
        self.flights.len()
    }

    pub(super) fn start(&mut self, flight: Flight) {
        self.flights.push_back(Some(flight));
    }

    /// An answer has come; `None` if it is not, or no longer, waited for.
    pub(super) fn land(&mut self, number: u64) -> Option<Flight> {
        let at = usize::try_from(number.checked_sub(self.oldest)?).ok()?;
        let flight = self.flights.get_mut(at)?.take();
        self.tidy();
        flight
    }

    /// Gives up what was sent before `moment`.
    pub(super) fn give_up(&mut self, moment: Nanos, mut lost: impl FnMut(Flight)) {
        for slot in &mut self.flights {
            match *slot {
                Some(flight) if flight.sent >= moment => break,
                Some(flight) => lost(flight),
                None => {}
            }
            *slot = None;
        }
        self.tidy();
    }

    /// Forgets all, and does not use a number again that may have been sent.
    pub(super) fn reset(&mut self) {
        self.oldest = self.next() + 1;
        self.flights.clear();
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Flight> {
        self.flights.iter().flatten()
    }

    fn tidy(&mut self) {
        while let Some(None) = self.flights.front() {
            self.flights.pop_front();
            self.oldest += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flights(sent: impl IntoIterator<Item = Nanos>) -> Flights {
        let mut flights = Flights::default();
        sent.into_iter().for_each(|sent| flights.start(Flight { due: sent, sent }));
        flights
    }

    #[test]
    fn answers_may_come_in_any_order_and_once() {
        let mut flights = flights([10, 20, 30]);
        assert_eq!(flights.land(1), Some(Flight { due: 20, sent: 20 }));
        assert_eq!((flights.land(1), flights.land(3), flights.oldest()), (None, None, 0));
        assert!(flights.land(0).is_some());
        assert_eq!((flights.oldest(), flights.next(), flights.len()), (2, 3, 1));
        assert_eq!(flights.land(0), None);
    }

    #[test]
    fn what_is_too_old_is_lost() {
        let (mut flights, mut lost) = (flights([10, 20, 30]), Vec::new());
        flights.land(1);
        flights.give_up(30, |flight| lost.push(flight.sent));
        assert_eq!((lost, flights.oldest(), flights.iter().count()), (vec![10], 2, 1));
    }

    #[test]
    fn no_number_is_used_twice() {
        let mut flights = flights([10, 20]);
        flights.reset();
        assert_eq!((flights.oldest(), flights.next(), flights.len()), (3, 3, 0));
    }
}
