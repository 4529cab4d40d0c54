//! When a worker of a pool that serves many at once leaves the processor to the others: pure.
//!
//! While clients ask without a pause a worker never sleeps, and the kernel lets it run to the end of its time slice,
//! some milliseconds. Where there are more workers and other busy processes than processors, the clients of a worker
//! that waits for one wait for as long. So a worker yields the processor (sched_yield(2)) after [`TURNS`] turns of
//! clients, which is well below a time slice; if no other process waits for the processor, that costs next to nothing.
//!
//! A process that is no worker may take the processor then, and keeps it to the end of *its* slice. So after a yield
//! that was [`LATE`] the worker pauses, and for longer each time that the next one is late, too.

use std::time::{Duration, Instant};

use crate::admission::back_off;

/// After how many turns of clients it yields.
const TURNS: usize = 16;

/// For how long a yield of the processor lasts at most if other workers of the pool have it.
const LATE: Duration = Duration::from_millis(1);

/// What a worker goes by.
#[derive(Debug, Default)]
pub(crate) struct Yielding {
    /// Since the last time.
    turns: usize,
    /// How many times in a row it was late.
    late: u32,
    not_before: Option<Instant>,
}

impl Yielding {
    /// After so many more turns: whether to yield.
    pub(crate) fn is_due(&mut self, turns: usize, now: impl FnOnce() -> Instant) -> bool {
        self.turns += turns;
        if self.turns < TURNS {
            return false;
        }
        self.turns = 0;
        self.not_before.is_none_or(|then| now() >= then)
    }

    /// It has yielded, and has the processor back.
    pub(crate) fn yielded(&mut self, left: Instant, back: Instant) {
        if back.duration_since(left) < LATE {
            (self.late, self.not_before) = (0, None);
            return;
        }
        self.late = self.late.saturating_add(1);
        self.not_before = Some(back + back_off(self.late));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn it_yields_after_some_turns_in_however_many_rounds() {
        for (rounds, yields) in [
            (vec![0; 100], 0),
            (vec![TURNS - 1], 0),
            (vec![TURNS], 1),
            // a whole round comes to its end
            (vec![10 * TURNS, 1], 1),
            (vec![1; 3 * TURNS + 1], 3),
        ] {
            let mut yielding = Yielding::default();
            let found = rounds.iter().filter(|&&turns| yielding.is_due(turns, Instant::now)).count();
            assert_eq!(found, yields, "{rounds:?}");
        }
    }

    #[test]
    fn it_pauses_for_longer_and_longer_while_others_keep_the_processor() {
        let (mut yielding, mut now) = (Yielding::default(), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..9 {
            assert!(yielding.is_due(TURNS, || now));
            yielding.yielded(now, now + 4 * MS);
            now += 4 * MS;
            let begun = now;
            while !yielding.is_due(TURNS, || now) {
                now += MS;
            }
            pauses.push((now - begun).as_millis());
        }
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        // and one that is short makes good for all
        yielding.yielded(now, now + MS / 2);
        assert!(yielding.is_due(TURNS, || now));
        yielding.yielded(now, now + LATE);
        assert!(!yielding.is_due(TURNS, || now + 9 * MS) && yielding.is_due(TURNS, || now + 12 * MS));
    }
}
