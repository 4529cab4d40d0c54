//! One group of endpoints that are served in the same way, and the rules its options obey.
//!
//! Invariant: a [`Listen`] made from options has every value in range and no option that its model would
//! ignore; a refusal names the option at fault, so that the caller can point at where it was given.

use std::time::Duration;

use super::options::ListenOptions;
use super::values::{EntryText, MAX_CHILDREN, Mode, Overflow, Span, WorkerRange};
use crate::model::Model;
use crate::service::{Builtin, Service, Settings};
use crate::transport::Endpoint;

/// Endpoints that are served in the same way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// What is bound; never empty.
    pub endpoints: Vec<Endpoint>,
    /// What is done with the bytes.
    pub service: Builtin,
    /// What the service is told.
    pub settings: Settings,
    /// Who runs the handler.
    pub model: Model,
    /// The size of the pool (prefork).
    pub workers: WorkerRange,
    /// The fewest idle workers of an elastic pool, from 1 to the most workers.
    pub min_spare: u32,
    /// The most idle workers of an elastic pool, above `min_spare`.
    pub max_spare: u32,
    /// The most children alive at once (fork), from 1 to [`MAX_CHILDREN`].
    pub max_children: u32,
    /// The most connections that a worker serves at once (event, coroutine), at least 1; `None` means as many
    /// as it has descriptors for.
    pub max_connections: Option<u32>,
    /// After how many connections a worker is replaced (prefork); 0 means never.
    pub max_connections_per_child: u64,
    /// What happens to a connection at `max_children` (fork).
    pub overflow: Overflow,
    /// The length of the listen queue, at least 1; the kernel caps it.
    pub backlog: u32,
    /// How long a connection may be silent, at least a millisecond; `None` means for ever.
    pub idle_timeout: Option<Duration>,
    /// Whether an IPv6 socket refuses IPv4.
    pub v6only: bool,
    /// The permission bits of a Unix socket's file; `None` leaves them to the umask.
    pub socket_mode: Option<u32>,
}

impl Default for Listen {
    fn default() -> Self {
        let (host, port) = ("127.0.0.1".to_owned(), 7007);
        Self {
            endpoints: vec![Endpoint::Tcp { host: host.clone(), port }, Endpoint::Udp { host, port }],
            service: Builtin::default(),
            settings: Settings::default(),
            model: Model::default(),
            workers: WorkerRange::default(),
            min_spare: 2,
            max_spare: 8,
            max_children: 1024,
            max_connections: None,
            max_connections_per_child: 0,
            overflow: Overflow::default(),
            backlog: 4096,
            idle_timeout: None,
            v6only: false,
            socket_mode: None,
        }
    }
}

/// Why a group of options makes no sense.
#[derive(Debug)]
pub(super) struct Conflict {
    /// The name in the file of the option at fault, which was given (`endpoints` may be missing).
    pub(super) key: &'static str,
    /// The rest of a sentence that starts with the option.
    pub(super) why: String,
}

impl Listen {
    /// Fills in the defaults and checks the result.
    pub(super) fn new(options: ListenOptions) -> Result<Self, Conflict> {
        let default = Self::default();
        let listen = Self {
            endpoints: match options.endpoints.is_empty() {
                true => default.endpoints,
                false => options.endpoints.clone(),
            },
            service: options.service.unwrap_or_default(),
            settings: settings(&options),
            model: options.model.unwrap_or_default(),
            workers: options.workers.unwrap_or_else(|| WorkerRange::of(options.model.unwrap_or_default())),
            min_spare: options.min_spare.unwrap_or(default.min_spare),
            max_spare: options.max_spare.unwrap_or(default.max_spare),
            max_children: options.max_children.unwrap_or(default.max_children),
            max_connections: options.max_connections,
            max_connections_per_child: options.max_connections_per_child.unwrap_or_default(),
            overflow: options.overflow.unwrap_or_default(),
            backlog: options.backlog.unwrap_or(default.backlog),
            idle_timeout: options.idle_timeout.map(|span| span.0),
            v6only: options.v6only,
            socket_mode: options.socket_mode.map(|mode| mode.0),
        };
        listen.refuse_where_inherited(&options)?;
        listen.refuse_service_without_place()?;
        listen.model.require(&listen.service()).map_err(|why| Conflict { key: "service", why })?;
        listen.refuse_misplaced(&options)?;
        listen.refuse_out_of_range(&options)?;
        Ok(listen)
    }

    /// Makes the service.
    pub(crate) fn service(&self) -> Service {
        self.service.service(&self.settings)
    }

    /// Refuses what would be a weapon, or can't work.
    fn refuse_service_without_place(&self) -> Result<(), Conflict> {
        let Some(endpoint) = self.endpoints.iter().find(|endpoint| endpoint.is_datagram()) else {
            return Ok(());
        };
        let service = self.service();
        let (name, is_weapon) = (service.name(), service.amplifies() && !self.settings.amplify);
        let why = match () {
            () if !self.service.takes_datagrams() => {
                format!("is {name}, a dialogue, for which {endpoint} has no connection; leave that out")
            }
            () if is_weapon && matches!(endpoint, Endpoint::Udp { .. }) => format!(
                "is {name}, which answers a datagram to {endpoint} with more bytes than it has: whoever forges a \
                 sender's address could have it flood others; leave the endpoint out, or give allow-amplification"
            ),
            () => return Ok(()),
        };
        Err(Conflict { key: "service", why })
    }

    fn is_elastic(&self) -> bool {
        self.model.serves_one_at_a_time() && self.workers.is_elastic()
    }

    /// Whether all sockets come ready made.
    fn is_inherited(&self) -> bool {
        self.endpoints.iter().all(Endpoint::is_inherited)
    }

    /// Refuses what whoever makes the sockets has decided.
    fn refuse_where_inherited(&self, given: &ListenOptions) -> Result<(), Conflict> {
        let of_the_unit =
            [("backlog", "Backlog="), ("v6only", "BindIPv6Only="), ("socket-mode", "SocketMode=")];
        let misplaced = of_the_unit.into_iter().find(|(key, _)| self.is_inherited() && given.has(key));
        let (Some((key, directive)), Some(endpoint)) = (misplaced, self.endpoints.first()) else {
            return Ok(());
        };
        let why =
            format!("has no effect on {endpoint}, which is ready made; set {directive} in its socket unit");
        Err(Conflict { key, why })
    }

    /// Refuses what would have no effect: whoever gave it expects one.
    fn refuse_misplaced(&self, given: &ListenOptions) -> Result<(), Conflict> {
        const POOL: &str = "a pool (any model but fork)";
        const ELASTIC: &str = "an elastic pool (model prefork or iterative with workers MIN..MAX)";
        const CHILDREN: &str = "a child for each connection (model fork)";
        const MANY: &str = "workers that serve many at once without threads (model event or coroutine)";
        const ACK: &str = "the service ack";
        const MENU: &str = "the service menu";
        const MESSAGES: &str = "a service with messages (ack or menu)";
        let pooled = self.model.has_pool();
        let forks = self.model == Model::Fork;
        let (acks, asks) = (self.service == Builtin::Ack, self.service == Builtin::Menu);
        let on_disk = self.endpoints.iter().any(|endpoint| endpoint.path().is_some());
        let misplaced = [
            ("reply", ACK, acks),
            ("framing", MESSAGES, acks || asks),
            ("greeting", MENU, asks),
            ("answer", MENU, asks),
            ("workers", POOL, pooled),
            ("max-connections-per-child", POOL, pooled),
            ("min-spare", ELASTIC, self.is_elastic()),
            ("max-spare", ELASTIC, self.is_elastic()),
            ("max-children", CHILDREN, forks),
            ("max-connections", MANY, self.model.polls()),
            ("overflow", CHILDREN, forks),
            ("socket-mode", "a socket file (a unix or unixgram endpoint)", on_disk),
        ]
        .into_iter()
        .find(|(key, _, fits)| !fits && given.has(key));
        let Some((key, needs, _)) = misplaced else { return Ok(()) };
        let endpoint = self.endpoints.first().map(Endpoint::to_string).unwrap_or_default();
        Err(Conflict {
            key,
            why: format!("needs {needs}, and {endpoint} has none; add it or leave this out"),
        })
    }

    fn refuse_out_of_range(&self, given: &ListenOptions) -> Result<(), Conflict> {
        let Self { max_children, backlog, .. } = *self;
        let refuse = |key, why: String| Err(Conflict { key, why });
        if !(1..=MAX_CHILDREN).contains(&max_children) {
            return refuse("max-children", format!("is {max_children}; choose 1 to {MAX_CHILDREN}"));
        }
        if self.max_connections == Some(0) {
            return refuse("max-connections", "is 0; choose at least 1, or leave it out".into());
        }
        // listen(2) takes an int
        if !(1..=i32::MAX as u32).contains(&backlog) {
            return refuse("backlog", format!("is {backlog}; choose 1 to {}", i32::MAX));
        }
        // what socket options and poll(2) round down to 0 would mean "never" to one and "now" to the other
        if self.idle_timeout.is_some_and(|timeout| timeout < Duration::from_millis(1)) {
            return refuse("idle-timeout", "is below 1ms; choose more, or leave it out for never".into());
        }
        if self.workers.is_elastic() && self.model.has_pool() && !self.is_elastic() {
            let (range, model) = (self.workers, self.model);
            return refuse(
                "workers",
                format!("is {range}, but a worker of {model} serves many at once: give one number"),
            );
        }
        self.refuse_spares_out_of_order(given.max_spare.is_some())
    }

    fn refuse_spares_out_of_order(&self, max_is_given: bool) -> Result<(), Conflict> {
        let (min, max, most) = (self.min_spare, self.max_spare, self.workers.max);
        let (key, why) = match () {
            () if min == 0 => ("min-spare", "is 0; choose at least 1".into()),
            () if self.is_elastic() && min > most => (
                "min-spare",
                format!("is {min}, but the pool has at most {most} workers; choose 1 to {most}"),
            ),
            () if max > min => return Ok(()),
            () if max_is_given => {
                ("max-spare", format!("is {max}; choose more than min-spare, which is {min}"))
            }
            () => (
                "min-spare",
                format!("is {min}, but the default of max-spare is {max}; give a larger max-spare too"),
            ),
        };
        Err(Conflict { key, why })
    }
}

fn settings(options: &ListenOptions) -> Settings {
    let mut settings = Settings::default();
    if let Some(reply) = &options.reply {
        settings.reply.clone_from(reply);
    }
    settings.amplify = options.allow_amplification;
    settings.framing = options.framing.unwrap_or_default();
    if let Some(greeting) = &options.greeting {
        settings.texts.greeting.clone_from(greeting);
    }
    if !options.answer.is_empty() {
        let answers = options.answer.iter().map(|answer| (answer.entry.clone(), answer.text.clone()));
        settings.texts.answers = answers.collect();
    }
    settings
}

impl From<&Listen> for ListenOptions {
    /// Names every option that has a meaning for the endpoints and the model, defaults too.
    fn from(listen: &Listen) -> Self {
        let pooled = listen.model.has_pool();
        let forks = listen.model == Model::Fork;
        let (acks, asks) = (listen.service == Builtin::Ack, listen.service == Builtin::Menu);
        let Settings { reply, amplify, framing, texts } = &listen.settings;
        let entry =
            |(entry, text): (&String, &String)| EntryText { entry: entry.clone(), text: text.clone() };
        Self {
            endpoints: listen.endpoints.clone(),
            service: Some(listen.service),
            reply: acks.then(|| reply.clone()),
            framing: (acks || asks).then_some(*framing),
            greeting: asks.then(|| texts.greeting.clone()),
            answer: if asks { texts.answers.iter().map(entry).collect() } else { Vec::new() },
            allow_amplification: *amplify,
            backlog: (!listen.is_inherited()).then_some(listen.backlog),
            v6only: listen.v6only,
            socket_mode: listen.socket_mode.map(Mode),
            model: Some(listen.model),
            workers: pooled.then_some(listen.workers),
            min_spare: listen.is_elastic().then_some(listen.min_spare),
            max_spare: listen.is_elastic().then_some(listen.max_spare),
            max_connections_per_child: pooled.then_some(listen.max_connections_per_child),
            max_children: forks.then_some(listen.max_children),
            max_connections: listen.max_connections,
            overflow: forks.then_some(listen.overflow),
            idle_timeout: listen.idle_timeout.map(Span),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads the body of a `[[listen]]` table.
    fn listen(table: &str) -> Result<Listen, String> {
        Listen::new(toml::from_str(table).unwrap())
            .map_err(|conflict| format!("{} {}", conflict.key, conflict.why))
    }

    #[test]
    fn nothing_given_is_the_default() {
        assert_eq!(listen("").unwrap(), Listen::default());
    }

    #[test]
    fn an_option_without_effect_is_refused() {
        for (table, expected) in [
            ("workers = 4", "workers needs a pool (any model but fork), and tcp://127.0.0.1:7007 has none"),
            ("max-connections-per-child = 0", "max-connections-per-child needs a pool"),
            ("min-spare = 1", "min-spare needs an elastic pool"),
            ("model = 'prefork'\nmax-spare = 9", "max-spare needs an elastic pool"),
            ("model = 'prefork'\nworkers = 4\nmin-spare = 1", "min-spare needs an elastic pool"),
            ("model = 'prefork'\nmax-children = 9", "max-children needs a child for each connection"),
            (
                "model = 'prefork'\nmax-connections = 9",
                "max-connections needs workers that serve many at once without threads (model event or coroutine)",
            ),
            ("model = 'prefork'\noverflow = 'wait'", "overflow needs a child for each connection"),
            ("endpoints = ['tcp://a:1']\nsocket-mode = '600'", "socket-mode needs a socket file"),
            ("endpoints = ['systemd:a']\nsocket-mode = '600'", "socket-mode has no effect on systemd:a"),
            (
                "endpoints = ['systemd:a']\nbacklog = 1",
                "backlog has no effect on systemd:a, which is ready made",
            ),
            ("endpoints = ['systemd:a', 'systemd:b']\nv6only = true", "v6only has no effect on systemd:a"),
        ] {
            let refusal = listen(table).unwrap_err();
            assert!(refusal.starts_with(expected), "{table:?}: {refusal}");
        }
        assert!(listen("endpoints = ['tcp://a:1', 'unix:///x']\nsocket-mode = '600'").is_ok());
        assert!(listen("endpoints = ['tcp://a:1', 'systemd:a']\nbacklog = 1").is_ok());
    }

    #[test]
    fn a_value_out_of_range_is_refused() {
        let elastic = |rest: &str| listen(&format!("model = 'prefork'\nworkers = '4..32'\n{rest}"));
        for (outcome, expected) in [
            (listen("max-children = 0"), "max-children is 0; choose 1 to 65536"),
            (listen("max-children = 65537"), "max-children is 65537"),
            (listen("model = 'event'\nmax-connections = 0"), "max-connections is 0; choose at least 1"),
            (listen("backlog = 0"), "backlog is 0"),
            (listen("backlog = 4294967295"), "backlog is 4294967295"),
            (listen("idle-timeout = '0s'"), "idle-timeout is below 1ms"),
            (listen("idle-timeout = '999us'"), "idle-timeout is below 1ms"),
            (elastic("min-spare = 0"), "min-spare is 0"),
            (
                elastic("min-spare = 33\nmax-spare = 40"),
                "min-spare is 33, but the pool has at most 32 workers",
            ),
            (elastic("min-spare = 8"), "min-spare is 8, but the default of max-spare is 8; give a larger"),
            (
                listen("model = 'event'\nworkers = '1..4'"),
                "workers is 1..4, but a worker of event serves many at once: give one number",
            ),
            (elastic("max-spare = 2"), "max-spare is 2; choose more than min-spare, which is 2"),
            (elastic("min-spare = 9\nmax-spare = 3"), "max-spare is 3; choose more than min-spare"),
        ] {
            let refusal = outcome.unwrap_err();
            assert!(refusal.starts_with(expected), "{refusal}");
        }
        assert!(elastic("min-spare = 1\nmax-spare = 2").is_ok());
        assert!(elastic("min-spare = 32\nmax-spare = 33").is_ok());
    }
}
