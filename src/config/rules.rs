//! The rules that the options of a group obey: a refusal names the option at fault, and says what to do.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::layers::Conflict;
use super::listen::Listen;
use super::options::ListenOptions;
use super::service::Builtin;
use forkd_server::Endpoint;
use forkd_server::model::MAX_CHILDREN;
use forkd_server::model::{Model, Threads};

/// What an option needs to have an effect, and what to give for it.
type Need = (&'static str, &'static str);

const POOL: Need = ("a pool (any model but fork)", "`model` prefork");
const ELASTIC: Need = (
    "an elastic pool (model prefork or iterative with workers MIN..MAX)",
    "`model` prefork and `workers` MIN..MAX",
);
const THREADS: Need = ("workers with threads (model thread)", "`model` thread");
const THREAD_EACH: Need = (
    "a thread for each connection (model thread, without a fixed number of threads)",
    "`model` thread without `threads`",
);
const CHILDREN: Need = ("a child for each connection (model fork)", "`model` fork");
const MANY: Need = (
    "workers that serve many at once without threads (model event or coroutine)",
    "`model` event or `model` coroutine",
);
const ACK: Need = ("the service ack", "`service` ack");
const HTTP: Need = ("the service http", "`service` http");
const EXEC: Need = ("the service exec", "`service` exec");
const QUEUE: Need =
    ("a queue of connections (a tcp or unix endpoint that forkd binds)", "a tcp or unix endpoint");
const TCP: Need = ("a tcp endpoint", "one");
const IPV6: Need = ("a tcp or udp endpoint that may be of IPv6", "one");
const FILE: Need = ("a socket file (a unix or unixgram endpoint)", "such an endpoint");

impl Listen {
    pub(super) fn obey_the_rules(&self, given: &ListenOptions) -> Result<(), Conflict> {
        self.refuse_service_without_place()?;
        // one that can't be made is found out when it is
        if let Ok(service) = self.service() {
            self.model.require(&service).map_err(|why| Conflict::of_service(why, &["exec", "model"]))?;
        }
        // whoever gave it expects an effect
        self.idle(given).into_iter().next().map_or(Ok(()), Err)?;
        self.refuse_out_of_range(given)
    }

    /// Refuses what would be a weapon, or can't work.
    fn refuse_service_without_place(&self) -> Result<(), Conflict> {
        if self.service == Builtin::Exec && self.settings.exec.is_empty() {
            let why = "is exec, and no program is named; give `exec` with one, and its arguments";
            return Err(Conflict::new("service", why));
        }
        let misfit = self.endpoints.iter().find_map(|endpoint| self.suits(endpoint).err());
        misfit.map_or(Ok(()), |why| Err(Conflict::of_service(why, &["exec"])))
    }

    /// What was given and has no effect.
    pub(super) fn idle(&self, given: &ListenOptions) -> Vec<Conflict> {
        let mut idle = self.idle_where_inherited();
        idle.extend(self.misplaced(given));
        if self.service == Builtin::Exec {
            let why = "has no effect on exec, whose program has the connection to itself; leave it out";
            idle.push(Conflict::new("idle-timeout", why));
        }
        if self.workers.is_elastic() && self.model.has_pool() && !self.is_elastic() {
            let (range, model) = (self.workers, self.model);
            let why = format!("is {range}, but a worker of {model} serves many at once: give one number");
            idle.push(Conflict::new("workers", why));
        }
        idle.retain(|conflict| given.has(conflict.key));
        idle
    }

    fn may_be_ipv6(&self) -> bool {
        // a name may stand for anything
        self.endpoints
            .iter()
            .any(|endpoint| endpoint.host().is_some_and(|host| host.parse::<Ipv4Addr>().is_err()))
    }

    /// What whoever makes the sockets has decided.
    fn idle_where_inherited(&self) -> Vec<Conflict> {
        let of_the_unit =
            [("backlog", "Backlog="), ("v6only", "BindIPv6Only="), ("socket-mode", "SocketMode=")];
        let Some(endpoint) = self.endpoints.first().filter(|_| self.is_inherited()) else {
            return Vec::new();
        };
        let idle = |(key, directive)| {
            let why = format!(
                "has no effect on {endpoint}, which is ready made; set {directive} in its socket unit"
            );
            Conflict::new(key, why)
        };
        of_the_unit.into_iter().map(idle).collect()
    }

    /// What needs another model, service or endpoint.
    fn misplaced(&self, given: &ListenOptions) -> Vec<Conflict> {
        let pooled = self.model.has_pool();
        let (forks, threaded) = (self.model == Model::Fork, self.model == Model::Thread);
        let acks = self.service == Builtin::Ack;
        let is_http = self.service == Builtin::Http;
        let on_disk = self.endpoints.iter().any(|endpoint| endpoint.path().is_some());
        let places = [
            ("reply", ACK, acks),
            ("framing", ACK, acks),
            ("root", HTTP, is_http),
            ("route", HTTP, is_http),
            ("exec", EXEC, self.service == Builtin::Exec),
            ("workers", POOL, pooled),
            ("max-connections-per-child", POOL, pooled),
            ("min-spare", ELASTIC, self.is_elastic()),
            ("max-spare", ELASTIC, self.is_elastic()),
            ("threads", THREADS, threaded),
            ("max-threads", THREAD_EACH, threaded && given.threads.is_none()),
            ("max-children", CHILDREN, forks),
            ("max-connections", MANY, self.model.polls()),
            ("overflow", CHILDREN, forks),
            ("backlog", QUEUE, self.has_queue()),
            ("keepalive", TCP, self.may_be_tcp()),
            ("v6only", IPV6, self.may_be_ipv6()),
            ("socket-mode", FILE, on_disk),
        ];
        let endpoint = self.endpoints.first().map(Endpoint::to_string).unwrap_or_default();
        let misplaced = places.into_iter().filter(|(.., fits)| !fits);
        let why = |(needs, way_out)| {
            format!("needs {needs}, and {endpoint} has none; give {way_out}, or leave this out")
        };
        misplaced.map(|(key, need, _)| Conflict::new(key, why(need))).collect()
    }

    fn refuse_out_of_range(&self, given: &ListenOptions) -> Result<(), Conflict> {
        let Self { max_children, backlog, .. } = *self;
        let refuse = |key, why: String| Err(Conflict::new(key, why));
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
                ("max-spare", format!("is {max}; choose more than `min-spare`, which is {min}"))
            }
            () => (
                "min-spare",
                format!("is {min}, but the default of `max-spare` is {max}; give a larger one too"),
            ),
        };
        Err(Conflict::new(key, why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads the body of a `[[listen]]` table.
    fn listen(table: &str) -> Result<Listen, String> {
        Listen::new(&toml::from_str(table).unwrap())
            .map_err(|conflict| format!("{} {}", conflict.key, conflict.why))
    }

    #[test]
    fn nothing_given_is_the_default() {
        assert_eq!(listen("").unwrap(), Listen::default());
    }

    #[test]
    fn an_option_without_effect_is_refused() {
        for (table, expected) in [
            (
                "workers = 4",
                "workers needs a pool (any model but fork), and tcp://127.0.0.1:7007 has none; give `model` prefork, \
                 or leave this out",
            ),
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
            (
                "v6only = true",
                "v6only needs a tcp or udp endpoint that may be of IPv6, and tcp://127.0.0.1:7007 has",
            ),
            ("endpoints = ['unix:///x']\nv6only = true", "v6only needs a tcp or udp endpoint"),
            (
                "endpoints = ['udp://a:1', 'unixgram:///x']\nbacklog = 5",
                "backlog needs a queue of connections",
            ),
            ("endpoints = ['udp://a:1', 'systemd:a']\nbacklog = 5", "backlog needs a queue of connections"),
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
        for host in ["[::1]", "localhost"] {
            assert!(
                listen(&format!("endpoints = ['tcp://127.0.0.1:1', 'udp://{host}:1']\nv6only = true"))
                    .is_ok()
            );
        }
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
            (
                listen("endpoints = ['udp://a:1', 'unix:///x']\nkeepalive = '1m'"),
                "keepalive needs a tcp endpoint, and udp://a:1 has none",
            ),
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
            (elastic("min-spare = 8"), "min-spare is 8, but the default of `max-spare` is 8; give a larger"),
            (
                listen("model = 'event'\nworkers = '1..4'"),
                "workers is 1..4, but a worker of event serves many at once: give one number",
            ),
            (elastic("max-spare = 2"), "max-spare is 2; choose more than `min-spare`, which is 2"),
            (elastic("min-spare = 9\nmax-spare = 3"), "max-spare is 3; choose more than `min-spare`"),
        ] {
            let refusal = outcome.unwrap_err();
            assert!(refusal.starts_with(expected), "{refusal}");
        }
        assert!(elastic("min-spare = 1\nmax-spare = 2").is_ok());
        assert!(elastic("min-spare = 32\nmax-spare = 33").is_ok());
    }
}
