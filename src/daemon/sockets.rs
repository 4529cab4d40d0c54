//! The sockets that a configuration names: bound anew, or kept from the one before.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::{Config, Listen};
use crate::model::hooks::Hooks;
use crate::service::Service;
use crate::transport::bind::{BindOptions, Holder, adapt, bind_all, bind_at_one_port, kernel_backlog_limit};
use crate::transport::listener::Kind;
use crate::transport::{Endpoint, Inherited, Listener};
use crate::{Error, events};
use forkd_net::unit;

/// A bound socket and what its group of the configuration says.
#[derive(Debug, Clone)]
pub(crate) struct Bound {
    /// The endpoint as the configuration has it.
    pub(super) asked: Endpoint,
    pub(super) listen: Listen,
    pub(super) service: Service,
    pub(super) listener: Arc<Listener>,
    /// Its number on the scoreboard, if it has served before.
    pub(super) number: Option<usize>,
    pub(super) hooks: Hooks,
}

impl Bound {
    pub(crate) fn new(asked: Endpoint, listen: Listen, service: Service, listener: Listener) -> Self {
        Self { asked, listen, service, listener: Arc::new(listener), number: None, hooks: Hooks::default() }
    }

    /// The same, with these hooks of the application.
    pub(crate) fn with(self, hooks: Hooks) -> Self {
        Self { hooks, ..self }
    }

    pub(crate) fn listener(&self) -> &Listener {
        &self.listener
    }

    /// Says in the log what is served here.
    pub(crate) fn announce(&self) {
        let Listen { model, workers, .. } = &self.listen;
        let workers = model.has_pool().then_some(workers.min..=workers.max);
        events::listening(self.listener.endpoint(), self.service.name(), model, workers);
        if !self.listener.is_inherited() {
            tell_of_seclusion(self.listener.endpoint());
        }
    }

    /// Refuses what could serve nobody here, or not as was asked. The root directory and the user must be
    /// those of the children.
    pub(super) fn check_all(bound: &[Self]) -> Result<(), Error> {
        // a socket of the wrong kind says more than what is missing for one of the right kind
        bound.iter().try_for_each(Self::check_kind)?;
        bound.iter().try_for_each(Self::check)
    }

    fn check(&self) -> Result<(), Error> {
        if self.service.hands_over() && self.listen.idle_timeout.is_some() {
            return Err(
                self.refused("hands its connections over, so an idle time-out has no effect; leave that out")
            );
        }
        if self.listener.is_inherited() {
            let datagrams = self.listener.kind() == Kind::Datagram;
            self.listen.model.check_system(!datagrams, datagrams, true)?;
        }
        if self.listen.model.never_waits_to_accept() {
            self.listener.check_accept_now()?;
        }
        self.service.check()
    }

    /// Refuses a socket of a kind that the service can't have.
    fn check_kind(&self) -> Result<(), Error> {
        if self.listener.is_inherited() {
            check_kind(&self.listen, self.listener.endpoint())?;
        }
        match self.service.hands_over() && self.listener.kind() == Kind::Datagram {
            true => Err(self.refused("needs connections, and there are none")),
            false => Ok(()),
        }
    }

    fn refused(&self, why: &str) -> Error {
        let (endpoint, service) = (self.listener.endpoint(), self.service.name());
        Error::Config(format!("cannot serve {endpoint}: {service} {why}"))
    }

    pub(super) fn listen(&self) -> &Listen {
        &self.listen
    }

    /// Whether it will do for this endpoint of a new configuration.
    fn serves(&self, asked: &Endpoint, listen: &Listen) -> bool {
        let is_other = self.listen.v6only != listen.v6only && self.listener.endpoint().is_ipv6();
        !self.listener.is_inherited() && self.asked == *asked && !is_other
    }

    /// The same socket under a new configuration.
    fn kept(&self, asked: &Endpoint, listen: &Listen, service: Service) -> Self {
        Self { asked: asked.clone(), listen: listen.clone(), service, ..self.clone() }
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
    pub(super) fn adapt(listener: &Listener, before: &Listen, now: &Listen) {
        if bind_options(before) != bind_options(now)
            && let Err(error) = adapt(listener, bind_options(now))
        {
            events::not_adapted(listener.endpoint(), &error);
        }
    }
}

/// Refuses a socket of systemd's that the service can't have: the configuration could not know what it is.
pub(crate) fn check_kind(listen: &Listen, endpoint: &Endpoint) -> Result<(), Error> {
    listen.suits(endpoint).map_err(|why| {
        let text = endpoint.to_string();
        let address = text.split_once("://").map_or(&*text, |(_, address)| address);
        // as systemd.socket(5) has every address
        let address = address.strip_prefix("[::]:").unwrap_or(address);
        Error::Config(format!(
            "the service {why}. To leave it out of its .socket unit, write there: ListenStream=, then \
             ListenDatagram=, then ListenStream={address}, as tcp-only.conf does"
        ))
    })
}

/// Warns of a socket that this daemon has bound where none of its clients comes.
pub(crate) fn tell_of_seclusion(endpoint: &Endpoint) {
    if let Some(why) = unit::seclusion(endpoint.path()) {
        events::secluded(endpoint, &why);
    }
}

/// What a group of the configuration says about binding.
pub(crate) fn bind_options(listen: &Listen) -> BindOptions {
    BindOptions {
        backlog: listen.backlog,
        v6only: listen.v6only,
        socket_mode: listen.socket_mode,
        keep_alive: listen.keep_alive,
        ..BindOptions::default()
    }
}

/// Who else has bound something, for the sentence that says why an address is taken.
fn holders<'a>(bound: &'a [Bound], open: &'a [Bound]) -> Vec<Holder<'a>> {
    let now = bound.iter().map(|bound| Holder { endpoint: bound.listener.endpoint(), is_old: false });
    let before = open.iter().map(|bound| Holder { endpoint: bound.listener.endpoint(), is_old: true });
    now.chain(before).collect()
}

/// Makes the service of a group. What it opens may be out of reach since the daemon has another root
/// directory or is another user: then one that was `open` already goes on.
fn service(listen: &Listen, config: &Config, open: &[Bound]) -> Result<Service, Error> {
    let said = |listen: &Listen| (listen.service, listen.settings.clone());
    let old = open.iter().find(|old| said(&old.listen) == said(listen));
    let is_confined = config.daemon.chroot.is_some() || config.daemon.user.is_some();
    match (listen.service(), old) {
        (Err(_), Some(old)) if is_confined => Ok(old.service.clone()),
        (made, _) => made,
    }
}

/// Binds or adopts an endpoint of a group; `early`, together with it, the one that has the same port.
fn bind_one(
    listen: &Listen,
    at: usize,
    early: &mut HashMap<usize, Vec<Listener>>,
    open: &[Bound],
    holders: &[Holder<'_>],
    inherited: &Inherited,
) -> Result<Vec<Listener>, Error> {
    let (asked, options) = (&listen.endpoints[at], bind_options(listen));
    let mut partners = listen.endpoints.iter().enumerate().filter(|(_, other)| asked.shares_port_with(other));
    let is_open = |other: &Endpoint| open.iter().find(|old| old.serves(other, listen));
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

/// Binds or adopts all that the configuration names and that is not `open` already, and says what of it
/// can't be as was asked.
pub(crate) fn bind(config: &Config, open: &[Bound], inherited: &Inherited) -> Result<Vec<Bound>, Error> {
    let mut bound: Vec<Bound> = Vec::new();
    config.listen.iter().try_for_each(Listen::check_system)?;
    for listen in &config.listen {
        let service = service(listen, config, open)?;
        let mut early = HashMap::new();
        for (at, asked) in listen.endpoints.iter().enumerate() {
            let serves = |old: &&Bound| old.serves(asked, listen);
            let kept: Vec<Bound> =
                open.iter().filter(serves).map(|old| old.kept(asked, listen, service.clone())).collect();
            if !kept.is_empty() {
                bound.extend(kept);
                continue;
            }
            let listeners = match early.remove(&at) {
                Some(listeners) => listeners,
                None => bind_one(listen, at, &mut early, open, &holders(&bound, open), inherited)?,
            };
            for listener in listeners {
                let is_left = |old: &&Bound| !bound.iter().any(|taken| taken.number == old.number);
                let same = open.iter().filter(is_left).find(|old| old.is_same_inherited(&listener));
                bound.push(match same {
                    Some(old) => old.kept(asked, listen, service.clone()),
                    None => Bound::new(asked.clone(), listen.clone(), service.clone(), listener),
                });
            }
        }
    }
    let served = config.listen.iter().flat_map(|listen| &listen.endpoints);
    let endpoints: Vec<&Endpoint> = served.chain(config.daemon.metrics.iter().map(|m| &m.0)).collect();
    inherited.unused(&endpoints).into_iter().for_each(events::handed_over_in_vain);
    let is_queue = |bound: &&Bound| bound.listener.kind() == Kind::Stream && !bound.listener.is_inherited();
    let longest = bound.iter().filter(is_queue).map(|bound| bound.listen.backlog).max();
    if let (Some(asked), Some(cap)) = (longest, kernel_backlog_limit())
        && asked > cap
    {
        events::backlog_capped(asked, cap);
    }
    Ok(bound)
}
