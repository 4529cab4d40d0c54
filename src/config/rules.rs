//! The rules that the options of a group obey: a refusal names the option at fault, and says what to do.
//!
//! Invariant: they look at the options alone, and open nothing.

use std::time::Duration;

use super::choice::Choice;
use super::definition::{Definition, Need, Table};
use super::layers::Conflict;
use super::options::ListenOptions;
use super::service::Builtin;
use super::values::Span;
use forkd_server::Endpoint;
use forkd_server::model::{Model, Workers};
use forkd_server::supervise::{MAX_LIFETIME, Offence, Penalty};
use forkd_server::transport::ProxyVersion;

impl ListenOptions {
    pub(super) fn obey_the_rules(&self) -> Result<(), Conflict> {
        self.refuse_service_without_place()?;
        // what was given is expected to have an effect
        self.idle().into_iter().next().map_or(Ok(()), Err)?;
        self.refuse_blind_trust()?;
        self.refuse_vain_penalties()?;
        self.refuse_vain_early_drop()?;
        self.refuse_out_of_range()
    }

    /// Refuses a header that is believed of all, and one that datagrams can't have.
    fn refuse_blind_trust(&self) -> Result<(), Conflict> {
        let Some(version) = self.proxy else { return Ok(()) };
        if self.proxy_from.is_empty() {
            let why = "believes what proxies say, and none is named: each client could say who it likes to be; give \
                       `proxy-from` with the networks of the proxies";
            return Err(Conflict::new("proxy", why));
        }
        let datagrams = self.endpoints.iter().find(|endpoint| endpoint.is_datagram());
        match datagrams {
            Some(endpoint) if version == ProxyVersion::V1 => {
                let why = format!(
                    "is v1, which has no datagrams, and {endpoint} has nothing else; give `proxy` v2"
                );
                Err(Conflict::new("proxy", why))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a penalty that no client can get, and two for the same.
    fn refuse_vain_penalties(&self) -> Result<(), Conflict> {
        for (at, penalty) in self.penalty.iter().enumerate() {
            let Penalty { offence, .. } = penalty;
            let is_second = self.penalty[..at].iter().any(|other| other.offence == *offence);
            let why = match offence {
                _ if is_second => format!("names {offence} twice; write it once"),
                Offence::Rate if !self.limits_sources() => format!(
                    "is {penalty}, and no limit of a source is given that a client could exceed; give `rate-per-source` or \
                     `max-per-source`, or leave this out"
                ),
                Offence::Protocol if self.service() != Builtin::Http => format!(
                    "is {penalty}, and {} has no protocol that a client could break; give `service` http, or leave this out",
                    self.service().name()
                ),
                Offence::Timeout if !self.limits_silence() && self.max_lifetime.is_none() => format!(
                    "is {penalty}, and no limit of time is given; give `idle-timeout` or `max-lifetime`, or leave this out"
                ),
                Offence::Unread if !self.limits_silence() => format!(
                    "is {penalty}, and no limit of time is given; give `idle-timeout`, or leave this out"
                ),
                _ => continue,
            };
            return Err(Conflict::new("penalty", why));
        }
        Ok(())
    }

    /// Refuses an early drop that silent connections would never bring about: they have all places before.
    fn refuse_vain_early_drop(&self) -> Result<(), Conflict> {
        let Some((rule, places)) = self.early_drop.zip(self.model_spec().places()) else { return Ok(()) };
        if u64::from(rule.full()) < places {
            return Ok(());
        }
        let model = self.model();
        let option = match (model, self.threads) {
            (Model::Fork, _) => "max-children",
            (Model::Prefork | Model::Iterative, _) => "workers",
            (Model::Thread, Some(_)) => "threads",
            (Model::Thread, None) => "max-threads",
            _ => "max-connections",
        };
        let why = format!(
            "is {rule}, and {model} has {places} places (`{option}`): silent connections have all of them before any is \
             refused as one too many; give a FULL below {places}, or more places"
        );
        Err(Conflict::new("early_drop", why))
    }

    /// Whether connections may be silent for so long; http has a limit of its own.
    fn limits_silence(&self) -> bool {
        self.idle_timeout.is_some() || self.service() == Builtin::Http
    }

    /// Refuses what would be a weapon, or can't work.
    fn refuse_service_without_place(&self) -> Result<(), Conflict> {
        let service = self.service();
        if service == Builtin::Exec && self.exec.is_empty() {
            let why = "is exec, and no program is named; give `exec` with one, and its arguments";
            return Err(Conflict::new("service", why));
        }
        if service == Builtin::Program && self.worker_exec.is_empty() {
            let why = "is program, and none is named; give `worker-exec` with one, and its arguments";
            return Err(Conflict::new("service", why));
        }
        if !self.exec.is_empty() && !self.worker_exec.is_empty() {
            let why = "is given beside `exec`: a client is served by one program or the other; leave one of them out";
            return Err(Conflict::new("worker_exec", why));
        }
        if service.accepts_by_itself() && self.model() != Model::Prefork {
            let why = format!(
                "is {}, and has no effect on workers that are programs, which serve as they like; leave it out",
                self.model()
            );
            return Err(Conflict::new("model", why));
        }
        let misfit = self.endpoints.iter().find_map(|endpoint| self.suits(endpoint).err());
        misfit.map_or(Ok(()), |why| Err(Conflict::of_service(why, &["exec"])))?;
        self.refuse_users_of_datagrams().map_err(|(id, why)| Conflict::new(id, why))?;
        let fit = self.model().require(service.name(), service.waits_for_client());
        fit.map_err(|why| Conflict::of_service(why, &["exec", "model"]))
    }

    /// What was given and has no effect.
    pub(super) fn idle(&self) -> Vec<Conflict> {
        let given = Self::DEFINITIONS.iter().filter(|option| self.has(option.id));
        given.filter_map(|option| Some(Conflict::new(option.id, self.why_idle(option)?))).collect()
    }

    fn why_idle(&self, option: &Definition) -> Option<String> {
        let (endpoint, directive) = (self.endpoints.first()?, option.directive);
        if !directive.is_empty() && self.endpoints.iter().all(Endpoint::is_inherited) {
            return Some(format!(
                "has no effect on {endpoint}, which is ready made; set {directive} in its socket unit"
            ));
        }
        if self.service().accepts_by_itself() && option.is_for_clients() {
            let why = "has no effect on workers that are programs, which accept their clients by themselves; leave it out";
            return Some(why.to_owned());
        }
        match option.needs {
            Some(Need { what, give, refusal, is_met }) if !is_met(self) => {
                let why = format!("needs {what}, and {endpoint} has none; give {give}, or leave this out");
                Some(refusal.map_or(why, ToOwned::to_owned))
            }
            // those that a proxy names have addresses, whatever socket they come by
            _ if option.id == "allow" && self.proxy.is_none() => self.why_not_listed(&self.allow),
            _ if option.id == "deny" && self.proxy.is_none() => self.why_not_listed(&self.deny),
            _ if option.id == "proxy_from" => self.why_not_listed(&self.proxy_from),
            _ if option.id == "penalty_exempt" && self.proxy.is_none() => {
                self.why_not_listed(&self.penalty_exempt)
            }
            _ if option.id == "workers" && !self.service().accepts_by_itself() => {
                let workers = self.workers.filter(|workers| workers.is_elastic() && !self.is_elastic())?;
                Some(format!(
                    "is {workers}, but a worker of {} serves many at once: give one number",
                    self.model()
                ))
            }
            _ => None,
        }
    }

    fn refuse_out_of_range(&self) -> Result<(), Conflict> {
        for option in Self::DEFINITIONS {
            let (Some(range), Some(number)) = (&option.range, self.number(option.id)) else { continue };
            if !range.contains(&number) {
                let choice = match (range.start(), *range.end()) {
                    (least, u64::MAX) => format!("at least {least}, or leave it out"),
                    (least, most) => format!("{least} to {most}"),
                };
                return Err(Conflict::new(option.id, format!("is {number}; choose {choice}")));
            }
        }
        // what socket options and poll(2) round down to 0 would mean "never" to one and "now" to the other
        if self.idle_timeout.is_some_and(|timeout| timeout.0 < Duration::from_millis(1)) {
            let why = "is below 1ms; choose more, or leave it out for never";
            return Err(Conflict::new("idle_timeout", why));
        }
        if let Some(Span(limit)) = self.max_lifetime
            && !(Duration::from_millis(1)..=MAX_LIFETIME).contains(&limit)
        {
            let why = "is out of range; choose 1ms to 30days, or leave it out for no limit";
            return Err(Conflict::new("max_lifetime", why));
        }
        self.refuse_hasty_workers()?;
        let (spare, most) = (self.spare(), self.max_children());
        if spare > most {
            let why = format!(
                "is {spare}, but there are at most {most} children (`max-children`); choose 0 to {most}"
            );
            return Err(Conflict::new("spare", why));
        }
        self.refuse_spares_out_of_order()
    }

    /// Refuses times in which no worker that is a program could start or say anything.
    fn refuse_hasty_workers(&self) -> Result<(), Conflict> {
        let (ready, timeout) = (self.ready_after().0, self.start_timeout().0);
        let least = Duration::from_millis(1);
        let times = [
            ("start_timeout", Some(timeout)),
            ("worker_watchdog", self.worker_watchdog.map(|span| span.0)),
            ("max_worker_age", self.max_worker_age.map(|span| span.0)),
        ];
        if let Some((id, _)) = times.iter().find(|(_, time)| time.is_some_and(|time| time < least)) {
            return Err(Conflict::new(id, "is below 1ms; choose more"));
        }
        if ready.is_some_and(|ready| ready >= timeout) {
            let why = format!(
                "is not below `start-timeout`, which is {}: each worker would be killed before it is ready; choose less, or a longer \
                 `start-timeout`",
                Span(timeout)
            );
            return Err(Conflict::new("ready_after", why));
        }
        Ok(())
    }

    fn refuse_spares_out_of_order(&self) -> Result<(), Conflict> {
        let (min, max, most) = (
            self.min_spare(),
            self.max_spare(),
            self.workers.and_then(Workers::range).map_or(0, |range| range.max),
        );
        let (id, why) = match () {
            () if self.is_elastic() && min > most => (
                "min_spare",
                format!("is {min}, but the pool has at most {most} workers; choose 1 to {most}"),
            ),
            () if max > min => return Ok(()),
            () if self.max_spare.is_some() => {
                ("max_spare", format!("is {max}; choose more than `min-spare`, which is {min}"))
            }
            () => (
                "min_spare",
                format!("is {min}, but the default of `max-spare` is {max}; give a larger one too"),
            ),
        };
        Err(Conflict::new(id, why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::definition::Origin;

    /// Reads the body of a `[[listen]]` table.
    fn listen(table: &str) -> Result<ListenOptions, String> {
        let group: ListenOptions = toml::from_str(table).unwrap();
        group.checked().map_err(|conflict| format!("{} {}", Origin::File.name(conflict.id), conflict.why))
    }

    #[test]
    fn nothing_given_is_the_default() {
        assert_eq!(listen("").unwrap(), ListenOptions::default().checked().unwrap());
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
                "model = 'prefork'\nspare = 9",
                "spare needs a child for each connection (model fork, a tcp or unix",
            ),
            (
                "endpoints = ['udp://a:1']\nspare = 9",
                "spare needs a child for each connection (model fork, a tcp or",
            ),
            (
                "model = 'prefork'\nmax-connections = 9",
                "max-connections needs workers that serve many at once without threads (model event or coroutine)",
            ),
            (
                "model = 'prefork'\noverflow = 'wait'",
                "overflow needs a child for each connection (model fork), or a rate, and",
            ),
            ("threads = 4", "threads needs workers with threads (model thread)"),
            ("model = 'prefork'\nmax-threads = 4", "max-threads needs a thread for each connection"),
            (
                "model = 'thread'\nthreads = 4\nmax-threads = 9",
                "max-threads needs a thread for each connection (model thread, without a fixed number of threads)",
            ),
            ("service = 'echo'\nexec = ['cat']", "exec needs the service exec"),
            ("service = 'echo'\nworker-exec = ['cat']", "worker-exec needs workers that are programs"),
            ("rolling = 2", "rolling needs workers that are programs (the service program), and tcp"),
            (
                "worker-exec = ['cat']\nallow = ['10.0.0.1']",
                "allow has no effect on workers that are programs, which accept their clients by themselves",
            ),
            ("worker-exec = ['cat']\nidle-timeout = '1m'", "idle-timeout has no effect on workers that are"),
            ("worker-exec = ['cat']\nmin-spare = 3", "min-spare needs an elastic pool"),
            ("worker-exec = ['cat']\nmodel = 'fork'", "model is fork, and has no effect on workers that are"),
            ("worker-exec = ['cat']\nexec = ['cat']", "worker-exec is given beside `exec`"),
            ("service = 'program'", "service is program, and none is named; give `worker-exec` with one"),
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
            (
                "endpoints = ['tcp://a:1', 'unixgram:///x']\nreceive-buffer = 5",
                "receive-buffer needs a udp endpoint that forkd binds, and tcp://a:1 has none; give one, or leave",
            ),
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
        assert!(
            listen("worker-exec = ['cat']\nendpoints = ['tcp://a:1', 'udp://a:1']\nworkers = '2..8'").is_ok()
        );
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
            (listen("spare = 1025"), "spare is 1025; choose 0 to 1024"),
            (
                listen("max-children = 4\nspare = 5"),
                "spare is 5, but there are at most 4 children (`max-children`)",
            ),
            (listen("model = 'thread'\nthreads = 0"), "threads is 0; choose 1 to 32000"),
            (listen("model = 'thread'\nmax-threads = 32001"), "max-threads is 32001; choose 1 to 32000"),
            (listen("model = 'event'\nmax-connections = 0"), "max-connections is 0; choose at least 1"),
            (listen("backlog = 0"), "backlog is 0"),
            (listen("backlog = 4294967295"), "backlog is 4294967295"),
            (
                listen("endpoints = ['udp://a:1']\nreceive-buffer = 0"),
                "receive-buffer is 0; choose 1 to 2147483647",
            ),
            (
                listen("proxy = 'v2'"),
                "proxy believes what proxies say, and none is named: each client could say who it likes to be; give \
                 `proxy-from` with the networks of the proxies",
            ),
            (
                listen("proxy-from = ['10.0.0.1']"),
                "proxy-from has no effect without `proxy`; give that, or leave this out",
            ),
            (
                listen("endpoints = ['tcp://a:1', 'udp://a:1']\nproxy = 'v1'\nproxy-from = ['10.0.0.1']"),
                "proxy is v1, which has no datagrams, and udp://a:1 has nothing else; give `proxy` v2",
            ),
            (
                listen("penalty = ['timeout=1m']"),
                "penalty is timeout=1m, and no limit of time is given; give `idle-timeout` or `max-lifetime`, or leave",
            ),
            (
                listen("max-lifetime = '1h'\npenalty = ['unread=1m']"),
                "penalty is unread=1m, and no limit of time is given; give `idle-timeout`, or leave this out",
            ),
            (
                listen("idle-timeout = '1m'\npenalty = ['crash=1s', 'timeout=1s', 'crash=2s']"),
                "penalty names crash twice; write it once",
            ),
            (
                listen("penalty = ['rate=1s']"),
                "penalty is rate=1s, and no limit of a source is given that a client could exceed; give `rate-per-source` or",
            ),
            (
                listen("penalty = ['protocol=1m']"),
                "penalty is protocol=1m, and echo has no protocol that a client could break; give `service` http",
            ),
            (
                listen("endpoints = ['udp://a:1']\npenalty = ['crash=1m']"),
                "penalty has no effect on datagrams, whose source can be forged: a stranger could have others refused",
            ),
            (
                listen("penalty-exempt = ['10.0.0.0/8']"),
                "penalty-exempt has no effect without `penalty`; give that, or leave this out",
            ),
            (
                listen("penalty = ['crash=1m']\npenalty-exempt = ['uid:7']"),
                "penalty-exempt has no effect on tcp://127.0.0.1:7007, whose clients have networks, not users",
            ),
            (listen("idle-timeout = '0s'"), "idle-timeout is below 1ms"),
            (listen("idle-timeout = '999us'"), "idle-timeout is below 1ms"),
            (listen("max-lifetime = '999us'"), "max-lifetime is out of range; choose 1ms to 30days"),
            (listen("max-lifetime = '31days'"), "max-lifetime is out of range; choose 1ms to 30days"),
            (
                listen("endpoints = ['udp://a:1']\nmax-lifetime = '1h'"),
                "max-lifetime needs connections (a tcp or unix endpoint)",
            ),
            (
                listen("allow = ['uid:7']"),
                "allow has no effect on tcp://127.0.0.1:7007, whose clients have networks, not users; write a network",
            ),
            (
                listen("endpoints = ['unix:///x']\ndeny = ['10.0.0.0/8']"),
                "deny has no effect on unix:///x, whose clients have users, not networks; write uid:N or gid:N",
            ),
            (
                listen("endpoints = ['unix:///x', 'unixgram:///y']\ndeny = ['uid:7']"),
                "deny has uid:7, but a datagram to unixgram:///y does not tell its user; leave one of them out",
            ),
            (
                listen("endpoints = ['udp://a:1', 'unix:///x']\nkeepalive = '1m'"),
                "keepalive needs a tcp endpoint, and udp://a:1 has none",
            ),
            (listen("worker-exec = ['cat']\nstart-timeout = '0s'"), "start-timeout is below 1ms"),
            (listen("worker-exec = ['cat']\nworker-watchdog = '0s'"), "worker-watchdog is below 1ms"),
            (
                listen("worker-exec = ['cat']\nready-after = '2m'"),
                "ready-after is not below `start-timeout`, which is 1m: each worker would be killed before it is ready",
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
