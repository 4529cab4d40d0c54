//! Which clients are served: the policy of one listening socket, asked in one place for all models and transports,
//! before a child, a thread or a worker is there for the client.
//!
//! [`rules`] says which sources may come in at all. It is pure.

pub(crate) mod rules;

use rules::{Decision, Rules};

use crate::transport::{Peer, Refusal};

/// What limits the clients of a listening socket by where they come from.
#[derive(Debug, Clone, Default)]
pub struct AccessSpec {
    /// Which sources are served.
    pub rules: Rules,
}

impl AccessSpec {
    /// Whether any client is served.
    pub(crate) fn is_open(&self) -> bool {
        self.rules.is_empty()
    }

    /// Decides whether a client is served.
    pub(crate) fn admit(&self, peer: Peer) -> Result<(), Refusal> {
        match self.rules.decide(peer) {
            Decision { admits: true, .. } => Ok(()),
            Decision { admits: false, .. } => Err(Refusal::Denied),
        }
    }
}
