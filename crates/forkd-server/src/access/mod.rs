//! Which clients are served: the policy of one listening socket, asked in one place for all models and transports,
//! before a child, a thread or a worker is there for the client.
//!
//! [`rules`] says which sources may come in at all, [`sources`] how many clients each has. It makes no system call and
//! reads no clock.

mod atomic {
    pub(super) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
}

use forkd_sys::plain;

mod bucket;
pub(crate) mod rules;
pub(crate) mod source;
pub(crate) mod sources;

use rules::{Decision, Rules};
use source::{Prefixes, Source};
use sources::{Sources, Ticket};

use crate::transport::proxy::ProxyVersion;
use crate::transport::{Peer, Refusal};

/// What limits the clients of a listening socket by where they come from.
#[derive(Debug, Clone, Default)]
pub struct AccessSpec {
    /// Which sources are served.
    pub rules: Rules,
    /// The most connections of one source that are alive, or datagrams of it in work.
    pub max_per_source: Option<u16>,
    /// What counts as one source.
    pub source_prefix: Prefixes,
    /// Clients come by a proxy that says who they are.
    pub proxy: Option<ProxySpec>,
}

/// By which proxies clients come.
#[derive(Debug, Clone)]
pub struct ProxySpec {
    /// What they send in front.
    pub version: ProxyVersion,
    /// The sources that are proxies, and believed.
    pub from: Rules,
}

impl ProxySpec {
    /// Decides whether what comes from this source is taken.
    pub(crate) fn admit(&self, source: Peer) -> Result<(), Refusal> {
        if self.from.decide(source).admits { Ok(()) } else { Err(Refusal::Proxy) }
    }
}

impl AccessSpec {
    /// Whether any client is served.
    pub(crate) fn is_open(&self) -> bool {
        self.rules.is_empty() && !self.counts() && self.proxy.is_none()
    }

    /// Whether the clients of a source are counted.
    pub(crate) fn counts(&self) -> bool {
        self.max_per_source.is_some()
    }

    /// Decides by the rules whether a client is served.
    pub(crate) fn admit(&self, peer: Peer) -> Result<(), Refusal> {
        match self.rules.decide(peer) {
            Decision { admits: true, .. } => Ok(()),
            Decision { admits: false, .. } => Err(Refusal::Denied),
        }
    }

    /// Counts a client that is served otherwise, unless its source has as many as it may.
    pub(crate) fn count(
        &self,
        sources: &Sources,
        listener: usize,
        peer: Peer,
    ) -> Result<Option<Ticket>, Refusal> {
        let (Some(most), Some(source)) = (self.max_per_source, Source::of(peer, self.source_prefix)) else {
            return Ok(None);
        };
        sources.enter(listener, source, most).map_err(|()| Refusal::SourceLimit)
    }
}

#[cfg(test)]
mod tests {
    mod model;
}
