//! What the master serves, as the configuration has it: read once at the start, and again at each reload.

use std::cell::RefCell;
use std::rc::Rc;

use crate::config::Config;
use crate::config::definition::Table;
use crate::config::options::{DaemonOptions, ListenOptions};
use crate::config::values::LogSink;
use crate::{Error, log};
use forkd_server::sandbox::Sandbox;
use forkd_server::service::Service;
use forkd_server::supervise::{Generation, ListenerSpec, Source, StopTimes};

/// Reads the configuration.
pub(crate) type Read = Box<dyn Fn() -> Result<Config, Error>>;

/// The configuration in force, and where the next one comes from.
pub(crate) struct Configuration {
    read: Read,
    /// What the first reload finds, until it is in force: where a program has replaced another.
    first: Option<Config>,
    in_force: Rc<RefCell<InForce>>,
    /// What a reload has read and not put in force yet.
    next: Option<InForce>,
}

/// What is served.
#[derive(Debug)]
pub(crate) struct InForce {
    pub(crate) config: Config,
    services: Vec<Made>,
}

/// A service, and what it was made of.
#[derive(Debug)]
struct Made {
    of: ListenOptions,
    service: Service,
}

impl Configuration {
    /// Makes the first generation, and the source of those that come after it.
    ///
    /// # Errors
    ///
    /// Those of [`ListenOptions::make_service`].
    pub(crate) fn new(first: &Config, read: Read) -> Result<(Self, Generation), Error> {
        let (in_force, generation) = InForce::new(first.clone(), &[])?;
        let in_force = Rc::new(RefCell::new(in_force));
        Ok((Self { read, first: None, in_force, next: None }, generation))
    }

    /// The same, of which the first generation is to be put in force by a reload.
    pub(crate) fn beginning_with_a_reload(self) -> Self {
        let first = Some(self.in_force.borrow().config.clone());
        Self { first, ..self }
    }

    /// The configuration in force, whichever that is when it is looked at.
    pub(crate) fn in_force(&self) -> Rc<RefCell<InForce>> {
        Rc::clone(&self.in_force)
    }
}

impl InForce {
    fn new(config: Config, old: &[Made]) -> Result<(Self, Generation), Error> {
        let make = |listen: &ListenOptions| {
            Ok(Made { service: service(listen, &config.daemon, old)?, of: listen.clone() })
        };
        let services = config.listen.iter().map(make).collect::<Result<Vec<_>, Error>>()?;
        let listeners = config
            .listen
            .iter()
            .zip(&services)
            .map(|(listen, made)| {
                let spec = listen.spec(made.service.clone(), listen.access()?);
                Ok(ListenerSpec { sandbox: sandbox(&config.daemon), ..spec })
            })
            .collect::<Result<Vec<_>, Error>>()?;
        let (stop_times, max_generations) = (stop_times(&config.daemon), config.daemon.max_generations());
        let generation = Generation { stop_times, max_generations, listeners };
        Ok((Self { config, services }, generation))
    }
}

/// How long a stop may take.
pub(crate) fn stop_times(daemon: &DaemonOptions) -> StopTimes {
    StopTimes { drain_delay: daemon.drain_delay().0, grace: daemon.grace().0 }
}

/// What the processes that serve clients may do besides.
fn sandbox(daemon: &DaemonOptions) -> Sandbox {
    let sandbox = Sandbox::from(daemon.sandbox());
    match daemon.log() {
        // after a restart of the syslog daemon
        LogSink::Syslog => sandbox.reconnects(),
        LogSink::Stderr => sandbox,
    }
}

/// Makes the service of a group. What it opens may be out of reach since the daemon has another root
/// directory or is another user: then the `old` one of the same settings goes on.
fn service(listen: &ListenOptions, daemon: &DaemonOptions, old: &[Made]) -> Result<Service, Error> {
    let is_confined = daemon.chroot.is_some() || daemon.user.is_some();
    let made = listen.make_service(daemon.chroot.as_deref());
    match (made, old.iter().find(|old| old.of.has_service_of(listen))) {
        (Err(_), Some(old)) if is_confined => Ok(old.service.clone()),
        (made, _) => made,
    }
}

impl Source for Configuration {
    fn prepare(&mut self) -> Result<Generation, Error> {
        let config = self.first.clone().map_or_else(&self.read, Ok)?;
        let in_force = self.in_force.borrow();
        refuse_what_needs_a_restart(&in_force.config.daemon, &config.daemon)?;
        let (next, generation) = InForce::new(config, &in_force.services)?;
        // new workers are born with it
        log::set_level(next.config.daemon.log_level());
        self.next = Some(next);
        Ok(generation)
    }

    fn put_in_force(&mut self) {
        self.first = None;
        if let Some(next) = self.next.take() {
            *self.in_force.borrow_mut() = next;
        }
    }

    fn roll_back(&mut self) {
        self.next = None;
        log::set_level(self.in_force.borrow().config.daemon.log_level());
    }
}

/// What is done once, before the daemon is ready, can't be done again.
fn refuse_what_needs_a_restart(now: &DaemonOptions, next: &DaemonOptions) -> Result<(), Error> {
    let (free, fixed): (Vec<_>, Vec<_>) = DaemonOptions::DEFINITIONS.iter().partition(|option| option.reload);
    match fixed.into_iter().find(|option| !now.agrees(next, option.id)) {
        None => Ok(()),
        Some(option) => Err(Error::Config(format!(
            "{} is another one in the new configuration, which needs a restart; a reload can change {} and what is in \
             [[listen]]",
            option.key(),
            free.iter().map(|option| option.key()).collect::<Vec<_>>().join(", ")
        ))),
    }
}
