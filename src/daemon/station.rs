//! One listening socket together with its children, whichever model they follow.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::context::Context;
use super::forking::Forking;
use super::pooling::Pooling;
use crate::Error;
use crate::model::Model;
use crate::transport::Listener;

/// A listening socket and those who serve its clients.
#[derive(Debug)]
pub(super) enum Station {
    /// The master accepts, and forks a child for each client.
    Forking(Forking),
    /// Workers accept.
    Pooling(Pooling),
}

impl Station {
    pub(super) fn listener(&self) -> &Listener {
        match self {
            Self::Forking(forking) => &forking.listener,
            Self::Pooling(pooling) => &pooling.listener,
        }
    }

    /// Its number on the scoreboard.
    pub(super) fn number(&self) -> usize {
        match self {
            Self::Forking(forking) => forking.number,
            Self::Pooling(pooling) => pooling.number,
        }
    }

    pub(super) fn model(&self) -> Model {
        match self {
            Self::Forking(_) => Model::Fork,
            Self::Pooling(_) => Model::Prefork,
        }
    }

    /// How many children it has.
    pub(super) fn alive(&self, cx: &Context) -> u32 {
        cx.board.totals(self.number()).alive.load(Ordering::Relaxed)
    }

    /// When it wants a turn, at the latest.
    pub(super) fn deadline(&self, cx: &Context) -> Option<Instant> {
        match self {
            Self::Forking(forking) => forking.deadline(cx),
            Self::Pooling(pooling) => pooling.deadline(),
        }
    }

    /// Does what there is to do, now that the loop has turned.
    pub(super) fn on_turn(&mut self, cx: &mut Context) -> Result<(), Error> {
        match self {
            Self::Forking(forking) => {
                forking.on_turn(cx);
                Ok(())
            }
            Self::Pooling(pooling) => pooling.on_turn(cx),
        }
    }

    /// Whether its first workers are up.
    pub(super) fn is_ready(&self, cx: &Context) -> bool {
        match self {
            Self::Forking(_) => true,
            Self::Pooling(pooling) => pooling.is_ready(cx),
        }
    }

    /// Whether no more clients will come from it.
    pub(super) fn is_closed(&self) -> bool {
        match self {
            Self::Forking(forking) => forking.is_closed(),
            Self::Pooling(pooling) => pooling.is_closed(),
        }
    }
}
