//! Every option, defined once: the command line and the configuration file read the same structs, so
//! the same name means the same thing in both, and the doc comment is the help text.
//!
//! Invariant: an option that was not given is absent (`None`, empty or `false`); defaults are filled in
//! by [`Config::resolve`](super::Config::resolve) alone, so that one source can lie over another.

use std::ops::Not;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::RouteText;
use super::choice;
use super::lists::list;
use super::service::Builtin;
use super::values::{KeepAlive, LogFormat, LogLevel, LogSink, MetricsEndpoint, Mode, Span};
use forkd_server::Endpoint;
use forkd_server::model::{Model, Overflow, WorkerRange};
use forkd_server::service::Framing;

/// What is served and how: the options of one `[[listen]]` table.
#[derive(Debug, Clone, Default, PartialEq, clap::Args, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ListenOptions {
    /// tcp://HOST:PORT, udp://HOST:PORT, unix:///PATH, unixgram:///PATH, or systemd:NAME for sockets that
    /// systemd hands over [default: all that it hands over, or else tcp and udp on 127.0.0.1:7007]
    #[arg(value_name = "ENDPOINT")]
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "list")]
    pub endpoints: Vec<Endpoint>,

    /// What is done with the bytes; `--service list` describes them [default: echo]
    #[arg(long, value_name = "NAME", help_heading = "Service")]
    pub service: Option<Builtin>,

    /// What ack answers [default: OK]
    #[arg(long, value_name = "TEXT", help_heading = "Service")]
    pub reply: Option<String>,

    /// How ack tells one message from the next: each line of what one read brings, whether or not
    /// it has an end, or whole lines [default: read]
    #[arg(long, value_name = "read|line", value_parser = choice::one_of::<Framing>(), hide_possible_values = true, help_heading = "Service")]
    #[serde(with = "choice")]
    pub framing: Option<Framing>,

    /// Directory whose files http serves, looked up at each request; no path leads out of it [default: none]
    #[arg(long, value_name = "DIR", help_heading = "Service")]
    pub root: Option<PathBuf>,

    /// What http answers at a path, such as /hello=Hello; may be given several times [default: /time alone]
    #[arg(long, value_name = "PATH=TEXT", help_heading = "Service")]
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "list")]
    pub route: Vec<RouteText>,

    /// Run this program for each connection, which is its standard input and output (the service exec). Takes
    /// the rest of the line, so it comes last
    #[arg(
        long,
        value_names = ["PROGRAM", "ARGS"],
        num_args = 1..,
        allow_hyphen_values = true,
        help_heading = "Service"
    )]
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "list")]
    pub exec: Vec<String>,

    /// Let chargen, daytime, time and ack answer datagrams with more bytes than those have: whoever forges
    /// a sender's address can have them flood others
    #[arg(long, help_heading = "Service")]
    #[serde(skip_serializing_if = "Not::not")]
    pub allow_amplification: bool,

    /// Length of the queue of connections not yet accepted; the kernel caps it at somaxconn [default: 4096]
    #[arg(long, value_name = "N", help_heading = "Listening")]
    pub backlog: Option<u32>,

    /// Serve IPv6 only on an IPv6 address, not IPv4 as well
    #[arg(long, help_heading = "Listening")]
    #[serde(skip_serializing_if = "Not::not")]
    pub v6only: bool,

    /// Permissions of a Unix socket's file [default: as the umask leaves them]
    #[arg(long, value_name = "OCTAL", help_heading = "Listening")]
    pub socket_mode: Option<Mode>,

    /// Who runs the handler: a child forked for each connection (fork), a pool of workers that serve one
    /// connection at a time (prefork; iterative: one worker), or workers that serve many at once, by threads
    /// (thread), callbacks (event) or coroutines (coroutine) [default: fork]
    #[arg(short, long, value_name = "MODEL", value_parser = choice::one_of::<Model>(), hide_possible_values = true, help_heading = "Pool")]
    #[serde(with = "choice")]
    pub model: Option<Model>,

    /// Size of the pool; a range MIN..MAX makes it elastic (prefork, iterative); models other than prefork have
    /// 1 where nothing is said [default: 8]
    #[arg(short, long, value_name = "N|MIN..MAX", help_heading = "Pool")]
    #[serde(with = "super::values::serial::workers")]
    pub workers: Option<WorkerRange>,

    /// Idle workers kept ready in an elastic pool, at least [default: 2]
    #[arg(long, value_name = "N", help_heading = "Pool")]
    pub min_spare: Option<u32>,

    /// Idle workers kept ready in an elastic pool, at most [default: 8]
    #[arg(long, value_name = "N", help_heading = "Pool")]
    pub max_spare: Option<u32>,

    /// Replace a worker after N connections; 0: never (any model but fork) [default: 0]
    #[arg(long, value_name = "N", help_heading = "Pool")]
    pub max_connections_per_child: Option<u64>,

    /// Have a fixed pool of N threads in each worker, instead of a thread for each connection (thread)
    /// [default: none]
    #[arg(long, value_name = "N", help_heading = "Pool")]
    pub threads: Option<u32>,

    /// Threads of a worker at once, where each connection has its own; at the limit connections wait in the
    /// backlog (thread) [default: 1024]
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub max_threads: Option<u32>,

    /// Children alive at once (fork) [default: 1024]
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub max_children: Option<u32>,

    /// Connections that a worker serves at once (event, coroutine) [default: as many as there are descriptors]
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub max_connections: Option<u32>,

    /// At the limit, leave a connection to the backlog or close it at once (fork) [default: wait]
    #[arg(long, value_name = "wait|reject", value_parser = choice::one_of::<Overflow>(), hide_possible_values = true, help_heading = "Limits")]
    #[serde(with = "choice")]
    pub overflow: Option<Overflow>,

    /// Close a connection that is silent for so long, such as 30s or 5m; where nothing is said, http closes one
    /// after 1m in which nothing of an answer was read [default: never]
    #[arg(long, value_name = "DURATION", help_heading = "Limits")]
    pub idle_timeout: Option<Span>,

    /// End a TCP connection whose client no longer answers for so long: one that has vanished, or that takes
    /// nothing of what it is sent; off: never [default: 2m]
    #[arg(long, value_name = "DURATION|off", help_heading = "Limits")]
    pub keepalive: Option<KeepAlive>,
}

/// What holds for the whole process: the options of the `[daemon]` table.
#[derive(Debug, Clone, Default, PartialEq, clap::Args, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct DaemonOptions {
    /// How long connections may go on at a stop [default: 10s]
    #[arg(long, value_name = "DURATION", help_heading = "Limits")]
    pub grace: Option<Span>,

    /// Where log lines go [default: stderr]
    #[arg(long, value_name = "stderr|syslog", hide_possible_values = true, help_heading = "Logging")]
    pub log: Option<LogSink>,

    /// The least important lines to log [default: info]
    #[arg(long, value_name = "error|warn|info|debug", hide_possible_values = true, help_heading = "Logging")]
    pub log_level: Option<LogLevel>,

    /// How a line is written [default: text]
    #[arg(long, value_name = "text|json", hide_possible_values = true, help_heading = "Logging")]
    pub log_format: Option<LogFormat>,

    /// Run in the background
    #[arg(long, help_heading = "Daemon")]
    #[serde(skip_serializing_if = "Not::not")]
    pub daemon: bool,

    /// Write the process id to this file and lock it
    #[arg(long, value_name = "PATH", help_heading = "Daemon")]
    pub pidfile: Option<PathBuf>,

    /// Become this user once the endpoints are bound
    #[arg(long, value_name = "NAME", help_heading = "Daemon")]
    pub user: Option<String>,

    /// Become this group once the endpoints are bound
    #[arg(long, value_name = "NAME", help_heading = "Daemon")]
    pub group: Option<String>,

    /// Make this directory the root once the endpoints are bound
    #[arg(long, value_name = "DIR", help_heading = "Daemon")]
    pub chroot: Option<PathBuf>,

    /// Permission bits that new files don't get [default: inherited; with --daemon 022]
    #[arg(long, value_name = "OCTAL", help_heading = "Daemon")]
    pub umask: Option<Mode>,

    /// Socket that answers `forkd status` and `forkd reload` [default: $RUNTIME_DIRECTORY/control.sock or
    /// $XDG_RUNTIME_DIR/forkd.sock, if set]
    #[arg(long, value_name = "PATH", help_heading = "Daemon")]
    pub control: Option<PathBuf>,

    /// Serve metrics for Prometheus here, such as tcp://127.0.0.1:9707, at /metrics; also unix:///PATH or
    /// systemd:NAME. Whoever can connect can read them [default: none]
    #[arg(long, value_name = "ENDPOINT", help_heading = "Daemon")]
    pub metrics: Option<MetricsEndpoint>,
}

impl ListenOptions {
    /// Fills what is absent here from `lower`.
    #[must_use]
    pub fn over(self, lower: Self) -> Self {
        Self {
            endpoints: if self.endpoints.is_empty() { lower.endpoints } else { self.endpoints },
            service: self.service.or(lower.service),
            reply: self.reply.or(lower.reply),
            framing: self.framing.or(lower.framing),
            root: self.root.or(lower.root),
            route: if self.route.is_empty() { lower.route } else { self.route },
            exec: if self.exec.is_empty() { lower.exec } else { self.exec },
            allow_amplification: self.allow_amplification || lower.allow_amplification,
            backlog: self.backlog.or(lower.backlog),
            v6only: self.v6only || lower.v6only,
            socket_mode: self.socket_mode.or(lower.socket_mode),
            model: self.model.or(lower.model),
            workers: self.workers.or(lower.workers),
            min_spare: self.min_spare.or(lower.min_spare),
            max_spare: self.max_spare.or(lower.max_spare),
            max_connections_per_child: self.max_connections_per_child.or(lower.max_connections_per_child),
            threads: self.threads.or(lower.threads),
            max_threads: self.max_threads.or(lower.max_threads),
            max_children: self.max_children.or(lower.max_children),
            max_connections: self.max_connections.or(lower.max_connections),
            overflow: self.overflow.or(lower.overflow),
            idle_timeout: self.idle_timeout.or(lower.idle_timeout),
            keepalive: self.keepalive.or(lower.keepalive),
        }
    }

    /// Takes back the option with this name in the file.
    pub(super) fn forget(&mut self, key: &str) {
        if let Ok(serde_json::Value::Object(mut options)) = serde_json::to_value(&*self)
            && options.remove(key).is_some()
            && let Ok(rest) = serde_json::from_value(options.into())
        {
            *self = rest;
        }
    }

    /// Tells whether the option with this name in the file was given.
    pub(super) fn has(&self, key: &str) -> bool {
        serde_json::to_value(self).is_ok_and(|options| options.get(key).is_some_and(|value| !value.is_null()))
    }
}

impl DaemonOptions {
    /// Fills what is absent here from `lower`.
    #[must_use]
    pub fn over(self, lower: Self) -> Self {
        Self {
            grace: self.grace.or(lower.grace),
            log: self.log.or(lower.log),
            log_level: self.log_level.or(lower.log_level),
            log_format: self.log_format.or(lower.log_format),
            daemon: self.daemon || lower.daemon,
            pidfile: self.pidfile.or(lower.pidfile),
            user: self.user.or(lower.user),
            group: self.group.or(lower.group),
            chroot: self.chroot.or(lower.chroot),
            umask: self.umask.or(lower.umask),
            control: self.control.or(lower.control),
            metrics: self.metrics.or(lower.metrics),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_upper_options_win_one_by_one() {
        let upper = ListenOptions { backlog: Some(1), v6only: true, ..Default::default() };
        let lower = ListenOptions { backlog: Some(2), max_children: Some(3), ..Default::default() };
        let both = upper.over(lower);
        assert_eq!((both.backlog, both.max_children, both.v6only), (Some(1), Some(3), true));

        let upper = DaemonOptions { user: Some("a".into()), ..Default::default() };
        let lower = DaemonOptions { user: Some("b".into()), daemon: true, ..Default::default() };
        let both = upper.over(lower);
        assert_eq!((both.user.as_deref(), both.daemon), (Some("a"), true));
    }

    #[test]
    fn knows_which_options_were_given() {
        let options = ListenOptions { min_spare: Some(1), ..Default::default() };
        assert!(options.has("min-spare"));
        assert!(!options.has("max-spare") && !options.has("v6only") && !options.has("endpoints"));
        let mut rest = options.clone();
        rest.forget("max-spare");
        assert_eq!(rest, options);
        rest.forget("min-spare");
        assert_eq!(rest, ListenOptions::default());
    }
}
