//! One group of endpoints that are served in the same way, and the rules its options obey.
//!
//! Invariant: a [`Listen`] made from options has every value in range and no option that its model would
//! ignore; a refusal names the option at fault, so that the caller can point at where it was given.

use std::path::Path;
use std::time::Duration;

use super::RouteText;
use super::options::ListenOptions;
use super::values::{EntryText, MAX_CHILDREN, Mode, Overflow, Span, WorkerRange};
use crate::Error;
use crate::model::{Model, Threads};
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
    /// The size of the pool.
    pub workers: WorkerRange,
    /// The fewest idle workers of an elastic pool, from 1 to the most workers.
    pub min_spare: u32,
    /// The most idle workers of an elastic pool, above `min_spare`.
    pub max_spare: u32,
    /// The threads of a worker (thread), from 1 to [`Threads::MOST`].
    pub threads: Threads,
    /// The most children alive at once (fork), from 1 to [`MAX_CHILDREN`].
    pub max_children: u32,
    /// The most connections that a worker serves at once (event, coroutine), at least 1; `None` means as many
    /// as it has descriptors for.
    pub max_connections: Option<u32>,
    /// After how many connections a worker is replaced; 0 means never.
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
            threads: Threads::default(),
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
        let implied = if options.exec.is_empty() { Builtin::default() } else { Builtin::Exec };
        let service = options.service.unwrap_or(implied);
        let mut listen = Self {
            endpoints: options.endpoints.clone(),
            service,
            settings: settings(&options),
            model: options.model.unwrap_or_default(),
            workers: options.workers.unwrap_or_else(|| WorkerRange::of(options.model.unwrap_or_default())),
            min_spare: options.min_spare.unwrap_or(default.min_spare),
            max_spare: options.max_spare.unwrap_or(default.max_spare),
            threads: threads(&options),
            max_children: options.max_children.unwrap_or(default.max_children),
            max_connections: options.max_connections,
            max_connections_per_child: options.max_connections_per_child.unwrap_or_default(),
            overflow: options.overflow.unwrap_or_default(),
            backlog: options.backlog.unwrap_or(default.backlog),
            idle_timeout: options.idle_timeout.map(|span| span.0),
            v6only: options.v6only,
            socket_mode: options.socket_mode.map(|mode| mode.0),
        };
        if listen.endpoints.is_empty() {
            listen.endpoints = default.endpoints;
            // where nothing is named, what fits is meant
            let fits = |endpoint: &Endpoint| listen.suits(endpoint).is_ok();
            listen.endpoints = listen.endpoints.iter().filter(|endpoint| fits(endpoint)).cloned().collect();
        }
        listen.refuse_where_inherited(&options)?;
        listen.refuse_service_without_place()?;
        // one that can't be made is found out when it is
        if let Ok(service) = listen.service() {
            listen.model.require(&service).map_err(|why| Conflict { key: "service", why })?;
        }
        listen.refuse_misplaced(&options)?;
        listen.refuse_out_of_range(&options)?;
        Ok(listen)
    }

    /// Makes the service.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if it needs something that can't be opened.
    pub(crate) fn service(&self) -> Result<Service, Error> {
        self.service.service(&self.settings)
    }

    /// Has a program with a relative path looked for from `here`; one without any path is looked for in PATH.
    pub(super) fn anchor(&mut self, here: &Path) {
        if let Some(program) = self.settings.exec.first_mut().filter(|program| program.contains('/'))
            && let Some(path) = here.join(&*program).to_str()
        {
            *program = path.to_owned();
        }
    }

    /// Refuses what would be a weapon, or can't work.
    fn refuse_service_without_place(&self) -> Result<(), Conflict> {
        if self.service == Builtin::Exec && self.settings.exec.is_empty() {
            let why = "is exec, and no program is named; give exec with one, and its arguments";
            return Err(Conflict { key: "service", why: why.into() });
        }
        let misfit = self.endpoints.iter().find_map(|endpoint| self.suits(endpoint).err());
        misfit.map_or(Ok(()), |why| Err(Conflict { key: "service", why }))
    }

    /// Whether the service can be had at an endpoint, and is no weapon there; if not, says why. What a socket
    /// that is handed over stands for is known only then.
    pub(crate) fn suits(&self, endpoint: &Endpoint) -> Result<(), String> {
        let name = self.service;
        // one that can't be made is found out when it is
        let amplifies = || self.service().is_ok_and(|service| service.amplifies());
        if !endpoint.is_datagram() {
            return Ok(());
        }
        if !self.service.takes_datagrams() {
            return Err(format!(
                "is {name}, which needs a connection, and {endpoint} has none; leave that out"
            ));
        }
        if matches!(endpoint, Endpoint::Udp { .. }) && !self.settings.amplify && amplifies() {
            return Err(format!(
                "is {name}, which answers a datagram to {endpoint} with more bytes than it has: whoever forges a \
                 sender's address could have it flood others; leave the endpoint out, or give allow-amplification"
            ));
        }
        Ok(())
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
        const THREADS: &str = "workers with threads (model thread)";
        const THREAD_EACH: &str =
            "a thread for each connection (model thread, without a fixed number of threads)";
        const CHILDREN: &str = "a child for each connection (model fork)";
        const MANY: &str = "workers that serve many at once without threads (model event or coroutine)";
        const ACK: &str = "the service ack";
        const MENU: &str = "the service menu";
        const HTTP: &str = "the service http";
        const MESSAGES: &str = "a service with messages (ack or menu)";
        let pooled = self.model.has_pool();
        let (forks, threaded) = (self.model == Model::Fork, self.model == Model::Thread);
        let (acks, asks) = (self.service == Builtin::Ack, self.service == Builtin::Menu);
        let is_http = self.service == Builtin::Http;
        let on_disk = self.endpoints.iter().any(|endpoint| endpoint.path().is_some());
        let misplaced = [
            ("reply", ACK, acks),
            ("framing", MESSAGES, acks || asks),
            ("greeting", MENU, asks),
            ("answer", MENU, asks),
            ("root", HTTP, is_http),
            ("route", HTTP, is_http),
            ("exec", "the service exec", self.service == Builtin::Exec),
            ("workers", POOL, pooled),
            ("max-connections-per-child", POOL, pooled),
            ("min-spare", ELASTIC, self.is_elastic()),
            ("max-spare", ELASTIC, self.is_elastic()),
            ("threads", THREADS, threaded),
            ("max-threads", THREAD_EACH, threaded && given.threads.is_none()),
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
        let (key, threads) = match self.threads {
            Threads::Each(most) => ("max-threads", most),
            Threads::Fixed(count) => ("threads", count),
        };
        if !(1..=Threads::MOST).contains(&threads) {
            return refuse(key, format!("is {threads}; choose 1 to {}", Threads::MOST));
        }
        // listen(2) takes an int
        if !(1..=i32::MAX as u32).contains(&backlog) {
            return refuse("backlog", format!("is {backlog}; choose 1 to {}", i32::MAX));
        }
        // what socket options and poll(2) round down to 0 would mean "never" to one and "now" to the other
        if self.idle_timeout.is_some_and(|timeout| timeout < Duration::from_millis(1)) {
            return refuse("idle-timeout", "is below 1ms; choose more, or leave it out for never".into());
        }
        if self.idle_timeout.is_some() && self.service == Builtin::Exec {
            let why = "has no effect on exec, whose program has the connection to itself; leave it out";
            return refuse("idle-timeout", why.into());
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

fn threads(options: &ListenOptions) -> Threads {
    match (options.threads, options.max_threads) {
        (Some(count), _) => Threads::Fixed(count),
        (None, Some(most)) => Threads::Each(most),
        (None, None) => Threads::default(),
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
    settings.root.clone_from(&options.root);
    settings.routes = options.route.iter().map(|route| (route.path.clone(), route.text.clone())).collect();
    settings.exec.clone_from(&options.exec);
    settings
}

impl From<&Listen> for ListenOptions {
    /// Names every option that has a meaning for the endpoints and the model, defaults too.
    fn from(listen: &Listen) -> Self {
        let pooled = listen.model.has_pool();
        let forks = listen.model == Model::Fork;
        let (count, most) = match listen.threads {
            _ if listen.model != Model::Thread => (None, None),
            Threads::Fixed(count) => (Some(count), None),
            Threads::Each(most) => (None, Some(most)),
        };
        let (acks, asks) = (listen.service == Builtin::Ack, listen.service == Builtin::Menu);
        let Settings { reply, amplify, framing, texts, root, routes, exec } = &listen.settings;
        let route = |(path, text): (&String, &String)| RouteText { path: path.clone(), text: text.clone() };
        let entry =
            |(entry, text): (&String, &String)| EntryText { entry: entry.clone(), text: text.clone() };
        Self {
            endpoints: listen.endpoints.clone(),
            service: Some(listen.service),
            reply: acks.then(|| reply.clone()),
            framing: (acks || asks).then_some(*framing),
            greeting: asks.then(|| texts.greeting.clone()),
            answer: if asks { texts.answers.iter().map(entry).collect() } else { Vec::new() },
            root: root.clone(),
            route: routes.iter().map(route).collect(),
            exec: exec.clone(),
            allow_amplification: *amplify,
            backlog: (!listen.is_inherited()).then_some(listen.backlog),
            v6only: listen.v6only,
            socket_mode: listen.socket_mode.map(Mode),
            model: Some(listen.model),
            workers: pooled.then_some(listen.workers),
            min_spare: listen.is_elastic().then_some(listen.min_spare),
            max_spare: listen.is_elastic().then_some(listen.max_spare),
            max_connections_per_child: pooled.then_some(listen.max_connections_per_child),
            threads: count,
            max_threads: most,
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
            ("threads = 4", "threads needs workers with threads (model thread)"),
            ("model = 'prefork'\nmax-threads = 4", "max-threads needs a thread for each connection"),
            (
                "model = 'thread'\nthreads = 4\nmax-threads = 9",
                "max-threads needs a thread for each connection (model thread, without a fixed number of threads)",
            ),
            ("service = 'echo'\nexec = ['cat']", "exec needs the service exec"),
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
            (listen("model = 'thread'\nthreads = 0"), "threads is 0; choose 1 to 32000"),
            (listen("model = 'thread'\nmax-threads = 32001"), "max-threads is 32001; choose 1 to 32000"),
            (listen("model = 'event'\nmax-connections = 0"), "max-connections is 0; choose at least 1"),
            (listen("backlog = 0"), "backlog is 0"),
            (listen("backlog = 4294967295"), "backlog is 4294967295"),
            (listen("idle-timeout = '0s'"), "idle-timeout is below 1ms"),
            (listen("idle-timeout = '999us'"), "idle-timeout is below 1ms"),
            (listen("exec = ['cat']\nidle-timeout = '1s'"), "idle-timeout has no effect on exec"),
            (listen("service = 'exec'"), "service is exec, and no program is named"),
            (
                listen("exec = ['cat']\nendpoints = ['tcp://a:1', 'unixgram:///x']"),
                "service is exec, which needs a connection, and unixgram:///x has none",
            ),
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
