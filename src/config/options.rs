//! Every option, defined once; `definition` says what follows from that.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use super::definition::{Definition, Field, Need, Table, options};
use super::service::Builtin;
use super::values::{
    ExecPrivileges, KeepAlive, LogFormat, LogLevel, LogSink, MetricsEndpoint, Mode, ReadyAfter, SignalName,
    Size, Span, Value, WorkerLog, Written,
};
use super::{Listed, RouteText};
use forkd_server::Endpoint;
use forkd_server::model::{MAX_CHILDREN, MAX_SPARE, Model, Overflow, Threads, Workers};
use forkd_server::sandbox::{Level, Sandbox};
use forkd_server::service::{Framing, Service};
use forkd_server::supervise::{
    AccessSpec, BindOptions, EarlyDrop, KEEP_ALIVE, ListenerSpec, ModelSpec, Penalty, Prefixes, Rate, Suits,
    Upkeep,
};
use forkd_server::transport::ProxyVersion;

/// A reload makes listening sockets with all that belongs to them anew.
const LISTEN: Definition = Definition { reload: true, ..Definition::NONE };

const POOL: Need =
    Need::new("a pool (any model but fork)", "`model` prefork", |group| group.model().has_pool());
const ELASTIC: Need = Need::new(
    "an elastic pool (model prefork or iterative with workers MIN..MAX)",
    "`model` prefork and `workers` MIN..MAX",
    ListenOptions::is_elastic,
);
const THREADS: Need = Need::new("workers with threads (model thread)", "`model` thread", |group| {
    group.model() == Model::Thread
});
const THREAD_EACH: Need = Need::new(
    "a thread for each connection (model thread, without a fixed number of threads)",
    "`model` thread without `threads`",
    |group| group.model() == Model::Thread && group.threads.is_none(),
);
const OVERFLOW: Need =
    Need::new("a child for each connection (model fork), or a rate", "`model` fork or `rate`", |group| {
        group.model() == Model::Fork || group.rate.is_some()
    });
const CHILDREN: Need = Need::new("a child for each connection (model fork)", "`model` fork", |group| {
    group.model() == Model::Fork
});
const SPARE: Need = Need::new(
    "a child for each connection (model fork, a tcp or unix endpoint)",
    "`model` fork and such an endpoint",
    |group| group.model() == Model::Fork && !group.endpoints.iter().all(Endpoint::is_datagram),
);
const MANY: Need = Need::new(
    "workers that serve many at once without threads (model event or coroutine)",
    "`model` event or `model` coroutine",
    |group| group.model().polls(),
);
const ACK: Need = Need::new("the service ack", "`service` ack", |group| group.service() == Builtin::Ack);
const HTTP: Need = Need::new("the service http", "`service` http", |group| group.service() == Builtin::Http);
const EXEC: Need = Need::new("the service exec", "`service` exec", |group| group.service() == Builtin::Exec);
const PROGRAM: Need =
    Need::new("workers that are programs (the service program)", "`worker-exec`", |group| {
        group.service() == Builtin::Program
    });
const PROGRAMS: Need = Need::new("the service exec or program", "`service` exec", |group| {
    matches!(group.service(), Builtin::Exec | Builtin::Program)
});
const NOT_EXEC: Need = Need {
    refusal: Some("has no effect on exec, whose program has the connection to itself; leave it out"),
    ..Need::new("any service but exec", "another `service`", |group| group.service() != Builtin::Exec)
};
const PROXY: Need = Need {
    refusal: Some("has no effect without `proxy`; give that, or leave this out"),
    ..Need::new("a proxy", "`proxy`", |group| group.proxy.is_some())
};
const STREAM: Need = Need::new("connections (a tcp or unix endpoint)", "such an endpoint", |group| {
    group.has_any(|endpoint| !endpoint.is_datagram())
});
const QUEUE: Need = Need::new(
    "a queue of connections (a tcp or unix endpoint that forkd binds)",
    "a tcp or unix endpoint",
    |group| group.has_any(|endpoint| !endpoint.is_inherited() && !endpoint.is_datagram()),
);
/// On a Unix socket SO_RCVBUF has no effect: its senders wait.
const UDP: Need = Need::new("a udp endpoint that forkd binds", "one", |group| {
    group.has_any(|endpoint| matches!(endpoint, Endpoint::Udp { .. }))
});
/// What is handed over is known only then.
const TCP: Need = Need::new("a tcp endpoint", "one", |group| {
    group.has_any(|endpoint| matches!(endpoint, Endpoint::Tcp { .. }) || endpoint.is_inherited())
});
/// A name can stand for any address.
const IPV6: Need = Need::new("a tcp or udp endpoint that may be of IPv6", "one", |group| {
    group.has_any(|endpoint| endpoint.host().is_some_and(|host| host.parse::<Ipv4Addr>().is_err()))
});
const SOURCE: Need = Need::new("clients whose source is known (any endpoint but unixgram)", "one", |group| {
    group.has_any(|endpoint| endpoint.path().is_none() || !endpoint.is_datagram())
});
const PER_SOURCE: Need = Need::new(
    "a limit for each source, and an endpoint whose clients have addresses",
    "`max-per-source`, `rate-per-source` or `penalty`, and such an endpoint",
    |group| {
        (group.limits_sources() || !group.penalty.is_empty())
            // those that a proxy names have addresses, whatever socket they come by
            && (group.proxy.is_some() || group.has_any(|endpoint| endpoint.path().is_none()))
    },
);
const EXCHANGE: Need = Need::new(
    "connections (a tcp or unix endpoint; datagrams have no first exchange) of another service than exec, whose program has \
     them to itself",
    "such an endpoint and `service`",
    |group| {
        group.service() != Builtin::Exec
            && group.has_any(|endpoint| endpoint.is_inherited() || !endpoint.is_datagram())
    },
);
/// What is handed over is known only then.
const CONNECTIONS: Need = Need {
    refusal: Some(
        "has no effect on datagrams, whose source can be forged: a stranger could have others refused; give a tcp or unix \
         endpoint, or leave this out",
    ),
    ..Need::new("connections (a tcp or unix endpoint)", "such an endpoint", |group| {
        group.has_any(|endpoint| endpoint.is_inherited() || !endpoint.is_datagram())
    })
};
const PENALTY: Need = Need {
    refusal: Some("has no effect without `penalty`; give that, or leave this out"),
    ..Need::new("a penalty", "`penalty`", |group| !group.penalty.is_empty())
};
const FILE: Need = Need::new("a socket file (a unix or unixgram endpoint)", "such an endpoint", |group| {
    group.has_any(|endpoint| endpoint.path().is_some())
});

options! {
    /// What is served and how: the options of one `[[listen]]` table.
    pub struct ListenOptions, given, ..LISTEN;

    /// tcp://HOST:PORT, udp://HOST:PORT, unix:///PATH, unixgram:///PATH, or systemd:NAME for sockets that
    /// systemd hands over
    endpoints: Vec<Endpoint>, {
        value: "ENDPOINT", otherwise: "all that it hands over, or else tcp and udp on 127.0.0.1:7007"
    }

    /// What is done with the bytes; `--service list` describes them
    service: Option<Builtin> = given.usual_service(), {
        heading: "Service", value: "NAME", inetd: true
    }

    /// What ack answers
    reply: Option<String> = "OK".to_owned(), {
        heading: "Service", value: "TEXT", needs: Some(&ACK), inetd: true
    }

    /// How ack tells one message from the next: each line of what one read brings, whether or not
    /// it has an end, or whole lines
    framing: Option<Framing> = Framing::Read, {
        heading: "Service", value: "read|line", needs: Some(&ACK), inetd: true
    }

    /// Directory whose files http serves, looked up at each request; no path leads out of it
    root: Option<PathBuf>, {
        heading: "Service", value: "DIR", otherwise: "none", needs: Some(&HTTP), inetd: true
    }

    /// What http answers at a path, such as /hello=Hello; may be given several times
    route: Vec<RouteText>, {
        heading: "Service", value: "PATH=TEXT", otherwise: "/time alone", needs: Some(&HTTP), inetd: true
    }

    /// Run this program for each connection, which is its standard input and output (the service exec). Takes
    /// the rest of the line, so it comes last
    exec: Vec<String>, { heading: "Service", value: "PROGRAM ARGS", needs: Some(&EXEC) }

    /// Whether the program of exec or of a worker may gain privileges, as by the set-user-ID bit of sudo (keep), or not
    /// (drop)
    exec_privileges: Option<ExecPrivileges> = ExecPrivileges::Drop, {
        heading: "Service", value: "drop|keep", needs: Some(&PROGRAMS)
    }

    /// Have each worker of a pool become this program, which accepts by itself from the sockets that it inherits, as
    /// LISTEN_FDS says (the service program). Takes the rest of the line, so it comes last
    worker_exec: Vec<String>, { heading: "Service", value: "PROGRAM ARGS", needs: Some(&PROGRAM) }

    /// Let chargen, daytime, time and ack answer datagrams with more bytes than those have: an attacker who forges
    /// a sender's address can have them flood others
    allow_amplification: Option<bool> = false, { heading: "Service", inetd: true }

    /// Length of the queue of connections not yet accepted; the kernel caps it at somaxconn
    backlog: Option<u32> = 4096, {
        // listen(2) takes an int
        heading: "Listening", value: "N", range: Some(1..=i32::MAX as u64), needs: Some(&QUEUE), directive: "Backlog="
    }

    /// Bytes of room for UDP datagrams not yet received: the kernel drops what finds none. It caps this at
    /// net.core.rmem_max, and doubles it for what it keeps with each datagram
    receive_buffer: Option<u32>, {
        // setsockopt(2) takes an int
        heading: "Listening", value: "N", otherwise: "net.core.rmem_default, not doubled",
        range: Some(1..=i32::MAX as u64), needs: Some(&UDP), directive: "ReceiveBuffer="
    }

    /// Serve IPv6 only on an IPv6 address, not IPv4 as well
    v6only: Option<bool> = false, { heading: "Listening", needs: Some(&IPV6), directive: "BindIPv6Only=" }

    /// Permissions of a Unix socket's file
    socket_mode: Option<Mode>, {
        heading: "Listening", value: "OCTAL", otherwise: "as the umask leaves them", needs: Some(&FILE),
        directive: "SocketMode="
    }

    /// What runs the handler: a child forked for each connection (fork), a pool of workers that serve one
    /// connection at a time (prefork; iterative: one worker), or workers that serve many at once, by threads
    /// (thread), callbacks (event) or coroutines (coroutine)
    model: Option<Model> = if given.service().accepts_by_itself() { Model::Prefork } else { Model::Fork }, {
        heading: "Pool", short: Some('m'), value: "MODEL"
    }

    /// Size of the pool; a range MIN..MAX makes it elastic (prefork, iterative, programs); auto: as many as the processors that affinity
    /// and the quota of the control group leave, for datagrams one fewer, at least 1
    workers: Option<Workers>, {
        heading: "Pool", short: Some('w'), value: "N|MIN..MAX|auto", needs: Some(&POOL),
        otherwise: "8 for prefork, for datagrams fewer than processors; 1 for others; auto for programs"
    }

    /// Idle workers kept ready in an elastic pool, at least
    min_spare: Option<u32> = 2, { heading: "Pool", value: "N", range: Some(1..=u64::MAX), needs: Some(&ELASTIC) }

    /// Idle workers kept ready in an elastic pool, at most
    max_spare: Option<u32> = 8, { heading: "Pool", value: "N", needs: Some(&ELASTIC) }

    /// Replace a worker after about N connections (up to an eighth fewer, so that workers are not all replaced
    /// together); 0: never (any model but fork)
    max_connections_per_child: Option<u64> = 0, { heading: "Pool", value: "N", needs: Some(&POOL) }

    /// When a worker that is a program counts as ready: after so long, or when it says so by READY=1 to NOTIFY_SOCKET, before
    /// that or alone (notify)
    ready_after: Option<ReadyAfter> = ReadyAfter(Some(Duration::from_secs(1))), {
        heading: "Pool", value: "DURATION|notify", needs: Some(&PROGRAM)
    }

    /// Kill a worker that is a program and has not become ready within this time
    start_timeout: Option<Span> = Span(Duration::from_secs(60)), {
        heading: "Pool", value: "DURATION", needs: Some(&PROGRAM)
    }

    /// At a reload, how many workers that are programs start at once; when they are ready, as many of the old ones are told
    /// to leave
    rolling: Option<u32> = 1, {
        heading: "Pool", value: "N", range: Some(1..=MAX_CHILDREN as u64), needs: Some(&PROGRAM)
    }

    /// The signal that tells a worker to leave that is a program; it is killed after --grace
    stop_signal: Option<SignalName> = SignalName(Signal::SIGTERM), {
        heading: "Pool", value: "SIGNAL", needs: Some(&PROGRAM)
    }

    /// Kill a worker that is a program and has not said WATCHDOG=1 to NOTIFY_SOCKET for so long
    worker_watchdog: Option<Span>, { heading: "Pool", value: "DURATION", otherwise: "none", needs: Some(&PROGRAM) }

    /// Replace a worker that is a program after this time (up to an eighth less, so that workers are not all replaced
    /// together)
    max_worker_age: Option<Span>, { heading: "Pool", value: "DURATION", otherwise: "never", needs: Some(&PROGRAM) }

    /// Replace a worker that is a program and has more memory in use than this, such as 512M
    max_worker_memory: Option<Size>, { heading: "Pool", value: "SIZE", otherwise: "no limit", needs: Some(&PROGRAM) }

    /// What becomes of the output of workers that are programs: each line is logged, with the worker that has written it
    /// (lines), or it goes to where forkd's own goes (inherit)
    worker_log: Option<WorkerLog> = WorkerLog::Lines, {
        heading: "Pool", value: "lines|inherit", needs: Some(&PROGRAM)
    }

    /// Children that wait for their client, which then seldom waits for a fork; each still serves one connection and
    /// ends (fork)
    spare: Option<u32> = 0, { heading: "Pool", value: "N", range: Some(0..=MAX_SPARE as u64), needs: Some(&SPARE) }

    /// Have a fixed pool of N threads in each worker, instead of a thread for each connection (thread)
    threads: Option<u32>, {
        heading: "Pool", value: "N", otherwise: "none", range: Some(1..=Threads::MOST as u64), needs: Some(&THREADS)
    }

    /// Threads of a worker at once, where each connection has its own; at the limit connections wait in the
    /// backlog (thread)
    max_threads: Option<u32> = 1024, {
        heading: "Limits", value: "N", range: Some(1..=Threads::MOST as u64), needs: Some(&THREAD_EACH)
    }

    /// Children alive at once (fork)
    max_children: Option<u32> = 1024, {
        heading: "Limits", value: "N", range: Some(1..=MAX_CHILDREN as u64), needs: Some(&CHILDREN)
    }

    /// Connections that a worker serves at once (event, coroutine)
    max_connections: Option<u32>, {
        heading: "Limits", value: "N", otherwise: "as many as there are descriptors", range: Some(1..=u64::MAX),
        needs: Some(&MANY)
    }

    /// At the limit of children (fork), or of --rate, leave a connection to the backlog or close it at once
    overflow: Option<Overflow> = Overflow::Wait, { heading: "Limits", value: "wait|reject", needs: Some(&OVERFLOW) }

    /// Close a connection that is silent for so long, such as 30s or 5m; where nothing is said, http closes one
    /// after 1m in which nothing of an answer was read
    idle_timeout: Option<Span>, {
        heading: "Limits", value: "DURATION", otherwise: "never", needs: Some(&NOT_EXEC), inetd: true
    }

    /// End a connection that has lasted for so long, whatever its client does
    max_lifetime: Option<Span>, {
        heading: "Limits", value: "DURATION", otherwise: "no limit", needs: Some(&STREAM), inetd: true
    }

    /// Serve clients of this network, such as 192.0.2.0/24, and no others; of a Unix socket those of a user or group,
    /// uid:N or gid:N. A path names a list with one in each line. May be given several times: the most specific rule of
    /// --allow and --deny decides
    allow: Vec<Listed>, { heading: "Access", value: "CIDR|PATH", otherwise: "all" }

    /// Serve no clients of this network, user or group: a TCP connection is reset, a datagram gets no answer
    deny: Vec<Listed>, { heading: "Access", value: "CIDR|PATH", otherwise: "none" }

    /// Clients of one source at once: connections that are alive, or datagrams in work; more are refused
    max_per_source: Option<u16>, {
        heading: "Access", value: "N", otherwise: "no limit", range: Some(1..=u16::MAX as u64), needs: Some(&SOURCE)
    }

    /// How often clients of one source may come, such as 10/s or 600/m:20 with 20 at once; more are refused
    rate_per_source: Option<Rate>, {
        heading: "Access", value: "N/s[:BURST]", otherwise: "no limit", needs: Some(&SOURCE)
    }

    /// How often clients may come at all; more wait in the backlog, or are refused by --overflow reject
    rate: Option<Rate>, { heading: "Access", value: "N/s[:BURST]", otherwise: "no limit" }

    /// Refuse PERCENT of new connections while FROM others have not completed their first exchange, more and more of them, and
    /// all at FULL, such as 10:30:100
    early_drop: Option<EarlyDrop>, {
        heading: "Access", value: "FROM:PERCENT:FULL", otherwise: "never", needs: Some(&EXCHANGE)
    }

    /// Refuse a source for a while when a connection of it is cut for its silence or age (timeout), does not read
    /// (unread), breaks the protocol (protocol), crashes its child (crash), or is refused as one too many of its source or
    /// too soon (rate), such as crash=1m; each time that follows costs twice as much, up to 16 times. May be given for
    /// several causes
    penalty: Vec<Penalty>, {
        heading: "Access", value: "CAUSE=DURATION", otherwise: "none", needs: Some(&CONNECTIONS)
    }

    /// Networks that are never penalised, uid:N, gid:N or lists, as --allow has them
    penalty_exempt: Vec<Listed>, {
        heading: "Access", value: "CIDR|PATH", otherwise: "none", needs: Some(&PENALTY)
    }

    /// How many bits of an IPv4 and of an IPv6 address stand for one source
    source_prefix: Option<Prefixes> = Prefixes::default(), {
        heading: "Access", value: "V4/V6", needs: Some(&PER_SOURCE)
    }

    /// Take clients from proxies that say whose a connection is, by this version of HAProxy's PROXY protocol; what comes
    /// without such a header is reset. Access, log, status and services go by the client that it names
    proxy: Option<ProxyVersion>, { heading: "Access", value: "v1|v2|any", otherwise: "no" }

    /// The proxies, which are believed: networks, uid:N, gid:N or lists, as --allow has them. All else is refused
    proxy_from: Vec<Listed>, {
        heading: "Access", value: "CIDR|PATH", otherwise: "none", needs: Some(&PROXY)
    }

    /// End a TCP connection whose client no longer answers for so long: one that has vanished, or that takes
    /// nothing of what it is sent; off: never
    keepalive: Option<KeepAlive> = KeepAlive(Some(KEEP_ALIVE)), {
        heading: "Limits", value: "DURATION|off", needs: Some(&TCP), inetd: true
    }
}

options! {
    /// What holds for the whole process: the options of the `[daemon]` table.
    pub struct DaemonOptions, given, ..Definition::NONE;

    /// How long connections may go on at a stop
    grace: Option<Span> = Span(Duration::from_secs(10)), { heading: "Limits", value: "DURATION", reload: true }

    /// How long clients are still taken after SIGTERM, while /readyz and the agent-check say that the daemon drains: as long
    /// as load balancers need to learn it
    drain_delay: Option<Span> = Span(Duration::ZERO), { heading: "Limits", value: "DURATION", reload: true }

    /// End with exit code 0 when no client has been here for so long, such as 10m, until systemd starts forkd again for the
    /// next one. For sockets that systemd hands over
    exit_idle: Option<Span>, { heading: "Limits", value: "DURATION", otherwise: "never" }

    /// How many programs before this one may still have connections when `forkd upgrade` replaces it by another
    max_generations: Option<u32> = 4, { heading: "Limits", value: "N", range: Some(1..=64), reload: true }

    /// Where log lines go
    log: Option<LogSink> = LogSink::Stderr, { heading: "Logging", value: "stderr|syslog", inetd: true }

    /// The least important lines to log
    log_level: Option<LogLevel> = LogLevel::Info, {
        heading: "Logging", value: "error|warn|info|debug", reload: true, inetd: true
    }

    /// How a line is written
    log_format: Option<LogFormat> = LogFormat::Text, { heading: "Logging", value: "text|json", inetd: true }

    /// Run in the background
    daemon: Option<bool> = false, { heading: "Daemon" }

    /// Write the process id to this file and lock it
    pidfile: Option<PathBuf>, { heading: "Daemon", value: "PATH" }

    /// Become this user once the endpoints are bound
    user: Option<String>, { heading: "Daemon", value: "NAME" }

    /// Become this group once the endpoints are bound
    group: Option<String>, { heading: "Daemon", value: "NAME" }

    /// Make this directory the root once the endpoints are bound
    chroot: Option<PathBuf>, { heading: "Daemon", value: "DIR" }

    /// Confine the processes that serve clients: as far as the kernel can (on), or each by a filter of its own too, and
    /// serve nothing where the kernel can't do all of it (strict). They open no files but what http serves, make no
    /// connections, execute nothing, and reach no other process; exec's programs are not confined
    sandbox: Option<Level> = Level::On, { heading: "Daemon", value: "off|on|strict" }

    /// Permission bits that new files don't get
    umask: Option<Mode>, { heading: "Daemon", value: "OCTAL", otherwise: "inherited; with --daemon 022" }

    /// Socket that answers `forkd status`, `forkd reload`, `forkd upgrade` and `forkd pardon`
    control: Option<PathBuf>, {
        heading: "Daemon", value: "PATH",
        otherwise: "$RUNTIME_DIRECTORY/control.sock or $XDG_RUNTIME_DIR/forkd.sock, if set"
    }

    /// Serve metrics for Prometheus here, such as tcp://127.0.0.1:9707, at /metrics; also unix:///PATH or
    /// systemd:NAME. Every client that can connect can read them
    metrics: Option<MetricsEndpoint>, { heading: "Daemon", value: "ENDPOINT", otherwise: "none" }
}

/// What `forkd serve` and `forkd check` are told, by one source.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct ServeOptions {
    /// What is served and how.
    #[command(flatten)]
    pub listen: ListenOptions,

    /// What holds for the whole process.
    #[command(flatten)]
    pub daemon: DaemonOptions,

    /// Read this TOML file too; what the command line and the environment say wins
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl ServeOptions {
    /// Fills what is absent here from `lower`.
    #[must_use]
    pub(super) fn over(self, lower: Self) -> Self {
        Self {
            listen: self.listen.over(lower.listen),
            daemon: self.daemon.over(lower.daemon),
            config: self.config.or(lower.config),
        }
    }

    /// The options that one process for one client has no use for, by their names in the source.
    pub(crate) fn not_with_inetd() -> impl Iterator<Item = &'static str> {
        let all = ListenOptions::DEFINITIONS.iter().chain(DaemonOptions::DEFINITIONS);
        all.filter(|option| !option.inetd).map(|option| option.id).chain(["config"])
    }
}

/// What the options come to for the master.
impl ListenOptions {
    /// Sockets, and how they are served by this service, without a sandbox.
    pub(crate) fn spec(&self, service: Service, access: AccessSpec) -> ListenerSpec {
        let asked = self.clone();
        ListenerSpec {
            endpoints: self.endpoints.clone(),
            bind: self.bind_options(),
            service,
            suits: Suits::new(move |endpoint| asked.check_inherited(endpoint)),
            access,
            model: self.model_spec(),
            sandbox: Sandbox::default(),
        }
    }

    /// The processes and threads that serve.
    pub(super) fn model_spec(&self) -> ModelSpec {
        ModelSpec {
            model: self.model(),
            workers: self.workers,
            min_spare: self.min_spare(),
            max_spare: self.max_spare(),
            threads: self.threads.map_or(Threads::Each(self.max_threads()), Threads::Fixed),
            max_children: self.max_children(),
            spare: self.spare(),
            max_connections: self.max_connections,
            max_connections_per_child: self.max_connections_per_child(),
            overflow: self.overflow(),
            idle_timeout: self.idle_timeout.map(|span| span.0),
            max_lifetime: self.max_lifetime.map(|span| span.0),
            upkeep: self.upkeep(),
        }
    }

    /// How workers are kept that are programs.
    fn upkeep(&self) -> Upkeep {
        Upkeep {
            ready_after: self.ready_after().0,
            start_timeout: self.start_timeout().0,
            rolling: self.rolling(),
            max_age: self.max_worker_age.map(|span| span.0),
            max_memory: self.max_worker_memory.map(|size| size.0),
        }
    }

    /// What is served where nothing is said.
    fn usual_service(&self) -> Builtin {
        match (self.exec.is_empty(), self.worker_exec.is_empty()) {
            (_, false) => Builtin::Program,
            (false, true) => Builtin::Exec,
            (true, true) => Builtin::Echo,
        }
    }

    /// How to bind the endpoints.
    pub(crate) fn bind_options(&self) -> BindOptions {
        BindOptions {
            backlog: self.backlog(),
            v6only: self.v6only(),
            socket_mode: self.socket_mode.map(|mode| mode.0),
            keep_alive: self.keepalive().0,
            receive_buffer: self.receive_buffer,
            ..BindOptions::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_upper_options_win_one_by_one() {
        let upper = ListenOptions { backlog: Some(1), v6only: Some(true), ..Default::default() };
        let lower = ListenOptions { backlog: Some(2), max_children: Some(3), ..Default::default() };
        let both = upper.over(lower);
        assert_eq!((both.backlog, both.max_children, both.v6only), (Some(1), Some(3), Some(true)));

        let upper = DaemonOptions { user: Some("a".into()), ..Default::default() };
        let lower = DaemonOptions { user: Some("b".into()), daemon: Some(true), ..Default::default() };
        let both = upper.over(lower);
        assert_eq!((both.user.as_deref(), both.daemon), (Some("a"), Some(true)));
    }

    #[test]
    fn knows_which_options_were_given() {
        let options = ListenOptions { min_spare: Some(1), ..Default::default() };
        assert!(options.has("min_spare"));
        assert!(!options.has("max_spare") && !options.has("v6only") && !options.has("endpoints"));
        let mut rest = options.clone();
        rest.forget("max_spare");
        assert_eq!(rest, options);
        rest.forget("min_spare");
        assert_eq!(rest, ListenOptions::default());
    }
}
