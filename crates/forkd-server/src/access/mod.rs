//! Which clients are served: the policy of one listening socket, asked in one place for all models and transports,
//! before a child, a thread or a worker is there for the client.
//!
//! [`rules`] says which sources may come in at all, [`gcra`] how often, [`sources`] what is known of each; [`early_drop`] how
//! many may say nothing. It makes no system call and reads no clock: times are passed in, in microseconds.

mod atomic {
    pub(super) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
}

use forkd_sys::plain;

mod bucket;
pub(crate) mod early_drop;
pub(crate) mod gcra;
pub(crate) mod rules;
pub(crate) mod source;
pub(crate) mod sources;

use atomic::AtomicU64;
use bucket::Excess;
use early_drop::EarlyDrop;
use gcra::Rate;
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
    /// How often clients of one source may come.
    pub rate_per_source: Option<Rate>,
    /// How often clients may come, whatever their source.
    pub rate: Option<Rate>,
    /// Whether a client that comes too soon is refused; otherwise it waits in the queue. One of a source that comes too often
    /// is always refused: it would have to wait in the place of others.
    pub rate_refuses: bool,
    /// How many connections may not have completed their first exchange until new ones are refused.
    pub early_drop: Option<EarlyDrop>,
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
        // named, and not just no other kind of source
        if self.from.decide(source).rule.is_some() { Ok(()) } else { Err(Refusal::Proxy) }
    }
}

impl AccessSpec {
    /// Whether any client is served.
    pub(crate) fn is_open(&self) -> bool {
        self.rules.is_empty()
            && self.rate.is_none()
            && !self.counts()
            && self.early_drop.is_none()
            && self.proxy.is_none()
    }

    /// Whether something is known of each source.
    pub(crate) fn counts(&self) -> bool {
        self.max_per_source.is_some() || self.rate_per_source.is_some()
    }

    /// Decides by the rules whether a client is served.
    pub(crate) fn admit(&self, peer: Peer) -> Result<(), Refusal> {
        match self.rules.decide(peer) {
            Decision { admits: true, .. } => Ok(()),
            Decision { admits: false, .. } => Err(Refusal::Denied),
        }
    }

    /// Counts a client that is served otherwise, unless its source has as many as it may, or clients come too often.
    pub(crate) fn count(
        &self,
        Tables { sources, listener, paid_at }: Tables<'_>,
        peer: Peer,
        now: impl Fn() -> u64,
    ) -> Result<Option<Ticket>, Refusal> {
        let source = Source::of(peer, self.source_prefix).filter(|_| self.counts());
        let ticket = source.map_or(Ok(None), |source| {
            sources.enter(listener, source, self.max_per_source, self.rate_per_source, &now).map_err(
                |excess| match excess {
                    Excess::Clients => Refusal::SourceLimit,
                    Excess::Rate => Refusal::SourceRate,
                },
            )
        })?;
        match self.rate {
            Some(rate) if !self.rate_refuses => rate.charge(paid_at, now()),
            Some(rate) if !rate.admit(paid_at, now()) => {
                ticket.into_iter().for_each(|ticket| sources.leave(ticket));
                return Err(Refusal::Rate);
            }
            _ => {}
        }
        Ok(ticket)
    }

    /// How long the next client is left in the queue, in microseconds, if it may not come yet.
    pub(crate) fn wait(&self, paid_at: &AtomicU64, now: impl Fn() -> u64) -> Option<u64> {
        let rate = self.rate.filter(|_| !self.rate_refuses)?;
        rate.wait(paid_at, now())
    }
}

/// What is known of clients, in memory that processes share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tables<'a> {
    pub(crate) sources: &'a Sources,
    /// The number of the listening socket.
    pub(crate) listener: usize,
    /// When the clients of the listening socket so far are paid for (see [`gcra`]).
    pub(crate) paid_at: &'a AtomicU64,
}

#[cfg(test)]
mod tests {
    mod model;
}
