//! A worker's work, for threads and coroutines: they are not bound to any frame of its main function's.

use std::sync::{Arc, Mutex};

use super::hooks::Turns;
use super::serve::{Post, Work};
use crate::scoreboard::{Scoreboard, Slot};
use crate::transport::guard::Guard;

/// What a [`Work`] is made of.
pub(super) struct Shared {
    post: Post,
    guard: Guard,
    board: Scoreboard,
    slot: &'static Slot,
    turns: Option<Arc<Mutex<Turns>>>,
}

impl Shared {
    pub(super) fn of(work: &Work<'_>) -> Self {
        let Work { post, guard, board, slot, turns } = *work;
        Self { post: post.clone(), guard: guard.clone(), board: board.clone(), slot, turns: turns.cloned() }
    }

    pub(super) fn work(&self) -> Work<'_> {
        let Self { post, guard, board, slot, turns } = self;
        Work { post, guard, board, slot, turns: turns.as_ref() }
    }
}
