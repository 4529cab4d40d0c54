//! How much one connection may do before others have their turn, and which connections wait behind the others:
//! pure.
//!
//! The rule: a turn ends after [`TURN`] bytes, and a connection that has moved many bytes in its last turns
//! ([`Load::is_bulk`]) has its next turn after all connections that have not, one such connection at a time. So a new
//! connection, or one with a short message, waits for one turn of one bulk connection, however many of these there
//! are.

/// How many bytes a connection may move in one turn, in and out: what 64 KiB and their echo are.
pub(crate) const TURN: usize = 128 * 1024;

/// What a system call or a reply counts at least, so that one without bytes counts.
const LEAST: usize = 2048;

/// From this load on a connection counts as bulk: a message and its echo of 8 KiB in each turn. There the copying
/// takes longer than the system calls.
const BULK: usize = 24 * 1024;

/// What was done in one turn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Turn {
    spent: usize,
}

impl Turn {
    /// Counts a system call, or a reply, that has moved this number of bytes.
    pub(crate) fn count(&mut self, bytes: usize) {
        self.spent = self.spent.saturating_add(bytes.max(LEAST));
    }

    /// Whether others should have theirs now.
    pub(crate) fn is_over(self) -> bool {
        self.spent >= TURN
    }
}

/// What a connection has done in its last turns; half of it is forgotten with each turn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Load {
    recent: usize,
}

impl Load {
    /// Counts a turn.
    pub(crate) fn add(&mut self, turn: Turn) {
        self.recent = (self.recent / 2).saturating_add(turn.spent);
    }

    /// Whether the connection has its next turn after those that are not bulk.
    pub(crate) fn is_bulk(self) -> bool {
        self.recent >= BULK
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(calls: &[usize]) -> Turn {
        let mut turn = Turn::default();
        calls.iter().for_each(|&bytes| turn.count(bytes));
        turn
    }

    #[test]
    fn a_turn_ends_after_many_bytes_or_many_calls() {
        for (calls, is_over) in [
            (vec![], false),
            (vec![TURN - 1], false),
            (vec![TURN], true),
            (vec![16 * 1024; 7], false),
            (vec![16 * 1024; 8], true),
            (vec![0; 63], false),
            (vec![0; 64], true),
            (vec![usize::MAX, usize::MAX], true),
        ] {
            assert_eq!(turn(&calls).is_over(), is_over, "{calls:?}");
        }
    }

    #[test]
    fn who_moves_much_is_bulk_until_some_turns_have_been_short() {
        const KIB: usize = 1024;
        for (turns, is_bulk) in [
            (vec![], false),
            // ping-pong of short messages, for ever
            (vec![2 * KIB; 1000], false),
            // 4 KiB and back
            (vec![8 * KIB; 1000], false),
            // 8 KiB and back
            (vec![16 * KIB; 1000], true),
            (vec![64 * KIB], true),
            (vec![64 * KIB, 2 * KIB], true),
            (vec![64 * KIB, 2 * KIB, 2 * KIB], false),
            (vec![usize::MAX, usize::MAX], true),
        ] {
            let mut load = Load::default();
            turns.iter().for_each(|&bytes| load.add(turn(&[bytes])));
            assert_eq!(load.is_bulk(), is_bulk, "{turns:?}");
        }
    }
}
