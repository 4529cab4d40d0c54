//! The sockets that a configuration names: bound anew, or kept from the one before.

use std::collections::HashMap;
use std::sync::Arc;

use crate::access::AccessSpec;
use crate::model::Overflow;
use crate::model::hooks::Hooks;
use crate::spec::{ListenerSpec, ModelSpec};
use crate::transport::bind::{
    Holder, adapt, bind_all, bind_at_one_port, kernel_backlog_limit, receive_buffer_cap,
};
use crate::transport::listener::Kind;
use crate::transport::udp_filter::UdpFilter;
use crate::transport::{Endpoint, Inherited, Listener};
use crate::{Error, events};
use forkd_net::unit;

/// A bound socket and how it is served.
#[derive(Debug, Clone)]
pub struct Bound {
    /// The endpoint as the configuration has it.
    pub(super) asked: Endpoint,
    pub(super) spec: Arc<ListenerSpec>,
    pub(super) listener: Arc<Listener>,
    /// Its number on the scoreboard, if it has served before.
    pub(super) number: Option<usize>,
    pub(super) hooks: Hooks,
}

impl Bound {
    pub(crate) fn new(asked: Endpoint, spec: Arc<ListenerSpec>, listener: Listener) -> Self {
        Self { asked, spec, listener: Arc::new(listener), number: None, hooks: Hooks::default() }
    }

    /// One that the program before this one has served, with its number on the scoreboard.
    pub(super) fn restored(
        asked: Endpoint,
        spec: Arc<ListenerSpec>,
        listener: Arc<Listener>,
        number: usize,
    ) -> Self {
        Self { asked, spec, listener, number: Some(number), hooks: Hooks::default() }
    }

    /// The same, with these hooks of the application.
    pub(crate) fn with(self, hooks: Hooks) -> Self {
        Self { hooks, ..self }
    }

    /// The socket.
    pub fn listener(&self) -> &Listener {
        &self.listener
    }

    /// Says in the log what is served here.
    pub(crate) fn announce(&self) {
        let ListenerSpec { service, model, .. } = &*self.spec;
        let workers = model.workers_for(self.listener.kind(), service);
        let workers = model.model.has_pool().then_some(workers.min..=workers.max);
        events::listening(self.listener.endpoint(), service.name(), &model.model, workers);
        if !self.listener.is_inherited() {
            tell_of_seclusion(self.listener.endpoint());
        }
        tell_of_cap(&self.listener, &self.spec);
    }

    /// Refuses what could serve no client here, or not as was asked. The root directory and the user must be
    /// those of the children.
    pub(super) fn check_all(bound: &[Self]) -> Result<(), Error> {
        // a socket of the wrong kind says more than what is missing for one of the right kind
        bound.iter().try_for_each(Self::check_kind)?;
        bound.iter().try_for_each(Self::check)
    }

    fn check(&self) -> Result<(), Error> {
        let ListenerSpec { service, access, model, .. } = &*self.spec;
        let ModelSpec { model, idle_timeout, spare, overflow, .. } = model;
        if service.hands_over() && idle_timeout.is_some() {
            return Err(
                self.refused("hands its connections over, so an idle time-out has no effect; leave that out")
            );
        }
        if service.hands_over() && access.early_drop.is_some() {
            return Err(self.refused(
                "hands its connections over, so no first exchange of theirs is seen, and an early drop would refuse all in \
                 the end; leave that out",
            ));
        }
        if self.listener.is_inherited() {
            let datagrams = self.listener.kind() == Kind::Datagram;
            model.check_system(!datagrams, datagrams, true)?;
        }
        if model.never_waits_to_accept() {
            self.listener.check_accept_now()?;
        }
        if *spare > 0 && *overflow == Overflow::Reject {
            self.listener.check_accept_among_waiting()?;
        }
        service.check()
    }

    /// Refuses a socket of a kind that the service can't have.
    fn check_kind(&self) -> Result<(), Error> {
        if self.listener.is_inherited() {
            self.spec.suits.check(self.listener.endpoint())?;
        }
        let AccessSpec { rules, proxy, .. } = &self.spec.access;
        let names_users = rules.has_any(true) || proxy.as_ref().is_some_and(|proxy| proxy.from.has_any(true));
        if names_users && self.listener.kind() == Kind::Datagram && self.listener.is_unix() {
            let endpoint = self.listener.endpoint();
            return Err(Error::Config(format!(
                "cannot serve {endpoint}: its datagrams do not tell their users, of whom there are rules (uid:N, gid:N); leave \
                 those out, and give the socket's file permissions"
            )));
        }
        let service = &self.spec.service;
        let needs_connections = service.hands_over() && service.as_application().is_none();
        match needs_connections && self.listener.kind() == Kind::Datagram {
            true => Err(self.refused("needs connections, and there are none")),
            false => Ok(()),
        }
    }

    fn refused(&self, why: &str) -> Error {
        let (endpoint, service) = (self.listener.endpoint(), self.spec.service.name());
        Error::Config(format!("cannot serve {endpoint}: {service} {why}"))
    }

    pub(super) fn spec(&self) -> &ListenerSpec {
        &self.spec
    }

    /// Whether it will do for this endpoint of a new configuration.
    fn serves(&self, asked: &Endpoint, spec: &ListenerSpec) -> bool {
        let is_other = self.spec.bind.v6only != spec.bind.v6only && self.listener.endpoint().is_ipv6();
        !self.listener.is_inherited() && self.asked == *asked && !is_other
    }

    /// The same socket under a new configuration.
    fn kept(&self, asked: &Endpoint, spec: &Arc<ListenerSpec>) -> Self {
        Self { asked: asked.clone(), spec: Arc::clone(spec), ..self.clone() }
    }

    /// What is handed over is taken anew in each configuration, under one name or another: a socket that
    /// is open already goes on.
    fn is_same_inherited(&self, listener: &Listener) -> bool {
        listener.is_inherited()
            && self.listener.is_inherited()
            && self.listener.kind() == listener.kind()
            && self.listener.endpoint() == listener.endpoint()
    }

    /// What can be changed while the socket is open.
    pub(super) fn adapt(listener: &Listener, before: &ListenerSpec, now: &ListenerSpec) {
        if before.bind != now.bind {
            match adapt(listener, now.bind) {
                Ok(()) => tell_of_cap(listener, now),
                Err(error) => events::not_adapted(listener.endpoint(), &error),
            }
        }
    }
}

/// The filter of a daemon that has these sockets.
pub(super) fn udp_filter<'a>(bound: impl IntoIterator<Item = &'a Bound>) -> UdpFilter {
    UdpFilter::new(bound.into_iter().filter_map(|bound| bound.listener().udp_port()))
}

/// Warns of a socket that this daemon has bound where none of its clients comes.
pub fn tell_of_seclusion(endpoint: &Endpoint) {
    if let Some(why) = unit::seclusion(endpoint.path()) {
        events::secluded(endpoint, &why);
    }
}

/// Warns of a receive buffer that is smaller than was asked.
fn tell_of_cap(listener: &Listener, spec: &ListenerSpec) {
    if let Some((asked, cap)) = receive_buffer_cap(listener, spec.bind) {
        events::receive_buffer_capped(listener.endpoint(), asked, cap);
    }
}

/// Which other process has bound something, for the sentence that says why an address is taken.
fn holders<'a>(bound: &'a [Bound], open: &'a [Bound]) -> Vec<Holder<'a>> {
    let now = bound.iter().map(|bound| Holder { endpoint: bound.listener.endpoint(), is_old: false });
    let before = open.iter().map(|bound| Holder { endpoint: bound.listener.endpoint(), is_old: true });
    now.chain(before).collect()
}

/// Binds or adopts an endpoint of a group; `early`, together with it, the one that has the same port.
fn bind_one(
    spec: &ListenerSpec,
    at: usize,
    early: &mut HashMap<usize, Vec<Listener>>,
    open: &[Bound],
    holders: &[Holder<'_>],
    inherited: &Inherited,
) -> Result<Vec<Listener>, Error> {
    let (asked, options) = (&spec.endpoints[at], spec.bind);
    let mut partners = spec.endpoints.iter().enumerate().filter(|(_, other)| asked.shares_port_with(other));
    let is_open = |other: &Endpoint| open.iter().find(|old| old.serves(other, spec));
    if let Some(port) = partners.clone().find_map(|(_, other)| is_open(other)?.listener.endpoint().port()) {
        return Ok(bind_at_one_port(&[asked], Some(port), options, holders)?.remove(0));
    }
    match partners.find(|(i, _)| *i > at && !early.contains_key(i)) {
        None => bind_all(asked, options, holders, inherited),
        Some((i, partner)) => {
            let mut both = bind_at_one_port(&[asked, partner], None, options, holders)?;
            early.insert(i, both.remove(1));
            Ok(both.remove(0))
        }
    }
}

/// Binds or adopts all that these name and that is not `open` already, and says what of it
/// can't be as was asked.
pub fn bind(specs: Vec<ListenerSpec>, open: &[Bound], inherited: &Inherited) -> Result<Vec<Bound>, Error> {
    let mut bound: Vec<Bound> = Vec::new();
    specs.iter().try_for_each(ListenerSpec::check_system)?;
    let specs: Vec<_> = specs.into_iter().map(Arc::new).collect();
    for spec in &specs {
        let mut early = HashMap::new();
        for (at, asked) in spec.endpoints.iter().enumerate() {
            let serves = |old: &&Bound| old.serves(asked, spec);
            let kept: Vec<Bound> = open.iter().filter(serves).map(|old| old.kept(asked, spec)).collect();
            if !kept.is_empty() {
                bound.extend(kept);
                continue;
            }
            let listeners = match early.remove(&at) {
                Some(listeners) => listeners,
                None => bind_one(spec, at, &mut early, open, &holders(&bound, open), inherited)?,
            };
            for listener in listeners {
                let is_left = |old: &&Bound| !bound.iter().any(|taken| taken.number == old.number);
                let same = open.iter().filter(is_left).find(|old| old.is_same_inherited(&listener));
                bound.push(match same {
                    Some(old) => old.kept(asked, spec),
                    None => Bound::new(asked.clone(), Arc::clone(spec), listener),
                });
            }
        }
    }
    let endpoints: Vec<&Endpoint> = specs.iter().flat_map(|spec| &spec.endpoints).collect();
    inherited.unused(&endpoints).into_iter().for_each(events::handed_over_in_vain);
    let is_queue = |bound: &&Bound| bound.listener.kind() == Kind::Stream && !bound.listener.is_inherited();
    let longest = bound.iter().filter(is_queue).map(|bound| bound.spec.bind.backlog).max();
    if let (Some(asked), Some(cap)) = (longest, kernel_backlog_limit())
        && asked > cap
    {
        events::backlog_capped(asked, cap);
    }
    Ok(bound)
}
