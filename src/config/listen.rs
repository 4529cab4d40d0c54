//! One group of endpoints that are served in the same way; the rules that its options obey are in `rules`.
//!
//! Invariant: a group that is [`checked`](ListenOptions::checked) has every value in range and no option without an
//! effect; a refusal names the option at fault, so that the caller can point at where it was given.

use std::path::Path;

use super::Listed;
use super::definition::Table;
use super::layers::Conflict;
use super::options::ListenOptions;
use crate::Error;
use forkd_server::Endpoint;
use forkd_server::model::Workers;

impl ListenOptions {
    /// Fills in the defaults of all that has an effect, and checks the result.
    pub(super) fn checked(self) -> Result<Self, Conflict> {
        let group = self.with_endpoints();
        group.obey_the_rules()?;
        let mut filled = group.filled();
        for option in Self::DEFINITIONS {
            if !option.has_effect_on(&group) {
                filled.forget(option.id);
            }
        }
        Ok(filled)
    }

    /// What of these options has no effect beside the others.
    pub(super) fn without_effect(&self) -> Vec<Conflict> {
        self.clone().with_endpoints().idle()
    }

    /// Where no endpoint is named, those that fit are meant.
    fn with_endpoints(mut self) -> Self {
        if self.endpoints.is_empty() {
            let (host, port) = ("127.0.0.1".to_owned(), 7007);
            let mut all = vec![Endpoint::Tcp { host: host.clone(), port }, Endpoint::Udp { host, port }];
            all.retain(|endpoint| self.suits(endpoint).is_ok());
            self.endpoints = all;
        }
        self
    }

    /// Refuses a socket of systemd's that the service can't have: the configuration could not know what it is.
    pub(crate) fn check_inherited(&self, endpoint: &Endpoint) -> Result<(), Error> {
        self.suits(endpoint).map_err(|why| {
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

    /// Has files looked for from `here`: the directory of http and lists of networks always, since / is the current directory once a daemon
    /// runs; of exec a program with a relative path, in the `background`.
    pub(super) fn anchor(&mut self, here: &Path, background: bool) {
        for listed in self.allow.iter_mut().chain(&mut self.deny).chain(&mut self.proxy_from) {
            if let Listed::File(path) = listed {
                *path = here.join(&*path);
            }
        }
        self.root = self.root.take().map(|root| here.join(root));
        for words in [&mut self.exec, &mut self.worker_exec] {
            if let Some(program) = words.first_mut().filter(|program| background && program.contains('/'))
                && let Some(path) = here.join(&*program).to_str()
            {
                *program = path.to_owned();
            }
        }
    }

    /// Whether the service can be had at an endpoint, and is no weapon there; if not, says why. What a socket
    /// that is handed over stands for is known only then.
    pub(crate) fn suits(&self, endpoint: &Endpoint) -> Result<(), String> {
        let service = self.service();
        if endpoint.is_datagram() && !service.takes_datagrams() {
            return Err(format!(
                "is {service}, which needs a connection, and {endpoint} has none; leave that out"
            ));
        }
        let is_open = matches!(endpoint, Endpoint::Udp { .. }) && !self.allow_amplification();
        if is_open && service.amplifies() {
            return Err(format!(
                "is {service}, which answers a datagram to {endpoint} with more bytes than it has: an attacker who \
                 forges a sender's address could have it flood others; leave the endpoint out, or give \
                 `allow-amplification`"
            ));
        }
        Ok(())
    }

    pub(super) fn is_elastic(&self) -> bool {
        let has_spares = self.model().serves_one_at_a_time() && !self.service().accepts_by_itself();
        has_spares && self.workers.is_some_and(Workers::is_elastic)
    }

    pub(super) fn has_any(&self, is_such: impl FnMut(&Endpoint) -> bool) -> bool {
        self.endpoints.iter().any(is_such)
    }
}
