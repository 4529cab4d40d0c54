//! Which clients are served: the policy of one listening socket, asked in one place for all models and transports,
//! before a child, a thread or a worker is there for the client.
//!
//! [`rules`] says which sources may come in at all, [`gcra`] how often, [`penalty`] for how long not, [`sources`] what is
//! known of each, and [`listing`] shows it; [`early_drop`] how many may say nothing. It makes no system call and reads no
//! clock: times are passed in, in microseconds.

mod atomic {
    pub(super) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
}

use forkd_sys::plain;

mod bucket;
pub(crate) mod early_drop;
pub(crate) mod gcra;
pub(crate) mod listing;
pub(crate) mod penalty;
pub(crate) mod rules;
pub(crate) mod source;
pub(crate) mod sources;

use atomic::AtomicU64;
use std::time::Duration;

use bucket::{Excess, Terms};
use early_drop::EarlyDrop;
use gcra::Rate;
use penalty::Penalties;
use rules::{Decision, Rule, Rules};
use source::{Prefixes, Source};
use sources::{Sources, Ticket};

use crate::transport::proxy::ProxyVersion;
use crate::transport::{Offence, Peer, Refusal};

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
    /// What a source is refused for, and for how long.
    pub penalties: Penalties,
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

    /// Whether something is known of sources.
    pub(crate) fn counts(&self) -> bool {
        self.is_limited() || !self.penalties.is_empty()
    }

    /// Whether something is known of each source that has come.
    fn is_limited(&self) -> bool {
        self.max_per_source.is_some() || self.rate_per_source.is_some()
    }

    /// The same where sources can be forged: a stranger could have others penalised.
    pub(crate) fn without_penalties(self) -> Self {
        Self { penalties: Penalties::default(), ..self }
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
        let terms = Terms {
            most: self.max_per_source,
            notes: self.is_limited(),
            is_penalised: |record: &AtomicU64| self.is_penalised(record, peer, &now),
            pays: |paid_at: &AtomicU64| self.rate_per_source.is_none_or(|rate| rate.admit(paid_at, now())),
        };
        let ticket = source.map_or(Ok(None), |source| {
            sources.enter(listener, source, &terms, || now() / 1000).map_err(|excess| match excess {
                Excess::Clients => Refusal::SourceLimit,
                Excess::Rate => Refusal::SourceRate,
                Excess::Penalty => Refusal::Penalty,
            })
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

    /// Whether the source of a client with this record is penalised, and the client is not exempt.
    fn is_penalised(&self, record: &AtomicU64, peer: Peer, now: impl Fn() -> u64) -> bool {
        !self.penalties.is_empty()
            && self.penalties.in_force(record, || now() / 1000).is_some()
            && !self.exempts(peer)
    }

    /// Whether a client is never penalised: it is exempt, or the proxy, whose other clients would be.
    fn exempts(&self, peer: Peer) -> bool {
        self.penalties.exempts(peer) || self.proxy.as_ref().is_some_and(|proxy| proxy.admit(peer).is_ok())
    }

    /// Takes note of what a client has done; tells its source, and for how long that is refused from now on, if it was
    /// not already.
    pub(crate) fn penalise(
        &self,
        Tables { sources, listener, .. }: Tables<'_>,
        peer: Peer,
        offence: Offence,
        now_us: impl Fn() -> u64,
    ) -> Option<(Rule, Duration)> {
        if !self.penalties.names(offence) || self.exempts(peer) {
            return None;
        }
        let (source, now_ms) = (Source::of(peer, self.source_prefix)?, now_us() / 1000);
        let words = sources.words_of(listener, source, now_ms)?;
        let length = self.penalties.impose(words.record, offence, now_ms)?;
        Some((source.rule(self.source_prefix), length))
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
