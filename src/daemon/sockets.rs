//! The sockets that a configuration names: bound anew, or kept from the one before.

use std::rc::Rc;

use crate::config::{Config, Listen};
use crate::service::Service;
use crate::transport::bind::{BindOptions, Holder, adapt, bind_all, kernel_backlog_limit};
use crate::transport::listener::Kind;
use crate::transport::{Endpoint, Inherited, Listener};
use crate::{Error, events};

/// A bound socket and what its group of the configuration says.
#[derive(Debug, Clone)]
pub(crate) struct Bound {
    /// The endpoint as the configuration has it.
    pub(super) asked: Endpoint,
    pub(super) listen: Listen,
    pub(super) service: Service,
    pub(super) listener: Rc<Listener>,
    /// Its number on the scoreboard, if it has served before.
    pub(super) number: Option<usize>,
}

impl Bound {
    pub(crate) fn new(asked: Endpoint, listen: Listen, service: Service, listener: Listener) -> Self {
        Self { asked, listen, service, listener: Rc::new(listener), number: None }
    }

    pub(crate) fn listener(&self) -> &Listener {
        &self.listener
    }

    /// Says in the log what is served here.
    pub(crate) fn announce(&self) {
        let Listen { model, workers, .. } = &self.listen;
        let workers = model.has_pool().then_some(workers as &dyn std::fmt::Display);
        events::listening(self.listener.endpoint(), self.service.name(), *model, workers);
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
    fn kept(&self, asked: &Endpoint, listen: &Listen) -> Self {
        Self { asked: asked.clone(), listen: listen.clone(), service: listen.service(), ..self.clone() }
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

/// What a group of the configuration says about binding.
pub(crate) fn bind_options(listen: &Listen) -> BindOptions {
    BindOptions { backlog: listen.backlog, v6only: listen.v6only, socket_mode: listen.socket_mode }
}

/// Who else has bound something, for the sentence that says why an address is taken.
fn holders<'a>(bound: &'a [Bound], open: &'a [Bound]) -> Vec<Holder<'a>> {
    let now = bound.iter().map(|bound| Holder { endpoint: bound.listener.endpoint(), is_old: false });
    let before = open.iter().map(|bound| Holder { endpoint: bound.listener.endpoint(), is_old: true });
    now.chain(before).collect()
}

/// Binds or adopts all that the configuration names and that is not `open` already, and says what of it
/// can't be as was asked.
pub(crate) fn bind(config: &Config, open: &[Bound], inherited: &Inherited) -> Result<Vec<Bound>, Error> {
    let mut bound: Vec<Bound> = Vec::new();
    for listen in &config.listen {
        for asked in &listen.endpoints {
            let serves = |old: &&Bound| old.serves(asked, listen);
            let kept: Vec<Bound> = open.iter().filter(serves).map(|old| old.kept(asked, listen)).collect();
            if !kept.is_empty() {
                bound.extend(kept);
                continue;
            }
            let listeners = bind_all(asked, bind_options(listen), &holders(&bound, open), inherited)?;
            for listener in listeners {
                let is_left = |old: &&Bound| !bound.iter().any(|taken| taken.number == old.number);
                let same = open.iter().filter(is_left).find(|old| old.is_same_inherited(&listener));
                bound.push(match same {
                    Some(old) => old.kept(asked, listen),
                    None => Bound::new(asked.clone(), listen.clone(), listen.service(), listener),
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
