//! What the manual pages say and no definition in the source does.

pub(super) const DESCRIPTION: &[&str] = &[
    "forkd sends back what it is sent (RFC 862), or does what another --service says, over TCP, UDP and Unix \
     sockets. A parent process holds the sockets and ignores SIGCHLD, so that there is never a zombie. It either \
     forks a child for each connection (--model fork), or keeps a pool of workers that accept for themselves, and \
     serve one connection at a time (--model prefork, iterative) or many (--model thread, event, coroutine).",
    "An option is looked for on the command line, then in the environment, then in the file that --config names, and \
     then has its default. Endpoints on the command line or in the environment replace those of the file; any other option \
     applies to each [[listen]] table that it can have an effect on, and what it leaves without effect there is passed over. \
     Limits are per listening socket, not per daemon. A duration has a unit: 500ms, 30s, 5m.",
];

pub(super) const EXIT_STATUS: &[(&str, &str)] = &[
    ("0", "Ended by SIGTERM, SIGINT or SIGQUIT; with --daemon: it serves."),
    ("1", "Operations were lost while the command of forkd load --during ran, or it failed."),
    ("64", "The command line, or a variable FORKD_..., makes no sense."),
    (
        "65",
        "What answers on the control socket is no forkd, or what forkd load was sent back is not what it sent.",
    ),
    (
        "69",
        "The address is in use or unknown here, another forkd holds the pidfile, no syslog daemon listens, the \
         program to run isn't there, no daemon answers on the control socket, no echo came back to forkd load, or a server \
         that forkd compare was to measure failed, which it tells after the others' results.",
    ),
    ("70", "The workers of a pool die before they have served a client."),
    ("71", "The system refuses something that ought to work."),
    ("73", "A pidfile, a socket file or a report can't be made."),
    ("77", "A right is missing, such as for a port below 1024."),
    ("78", "The configuration file is wrong, or names a user or group that doesn't exist."),
    ("129", "SIGHUP ended forkd compare or forkd load, which have shown what was measured until then."),
    ("130", "The same by SIGINT."),
    ("143", "The same by SIGTERM."),
];

pub(super) const SIGNALS: &[(&str, &str)] = &[
    (
        "SIGTERM, SIGINT",
        "Stop: what is queued is still served, and connections may finish within --grace. A second signal ends \
         them at once, a third kills.",
    ),
    ("SIGQUIT", "End all connections at once."),
    ("SIGHUP", "Read the configuration again."),
    ("SIGUSR1", "Write the status to the log, a line for each listening socket."),
    (
        "SIGUSR2",
        "Replace the program by what is where it was started from, as forkd upgrade; the outcome is in the log alone.",
    ),
    ("SIGTTIN, SIGTTOU", "One worker more, one fewer, in each pool; a line in the log where there is none."),
];

pub(super) const VARIABLES: &str = "Each option of forkd serve and forkd check can be given by a variable, which is \
     called FORKD_ and the option's name: FORKD_MAX_CHILDREN=100 means what --max-children 100 means. An empty variable \
     counts as none. A list has its parts between blanks, FORKD_ENDPOINTS=\"tcp://[::]:7 udp://[::]:7\", or is written as \
     in the file, FORKD_EXEC='[\"sh\", \"-c\", \"echo You come from $REMOTE_ADDR\"]'. An option that is only there or not is \
     true or false. A reload doesn't change what the environment says. forkd warns of a variable that starts with FORKD_ and \
     that no option has, unless it is one that Kubernetes sets for a service called forkd. The variables are:";

pub(super) const VARIABLE_OF_A_KEY: &str = "A variable of the environment wins over the key of the same name: \
     FORKD_MAX_CHILDREN over max-children. The section of this name in forkd(1) says more.";

pub(super) const ENVIRONMENT: &[(&str, &str)] = &[
    ("RUNTIME_DIRECTORY", "Where the control socket is, as control.sock; systemd sets it."),
    ("XDG_RUNTIME_DIR", "Where the control socket is, as forkd.sock, if RUNTIME_DIRECTORY isn't set."),
    (
        "JOURNAL_STREAM",
        "If standard error is the journal, lines of the log start with their priority, as sd-daemon(3) has it.",
    ),
    ("LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES", "Sockets handed over by systemd; see sd_listen_fds(3)."),
    ("NOTIFY_SOCKET, WATCHDOG_USEC", "Where systemd is told of the state, and how often; see sd_notify(3)."),
    ("FORKD_PORTABLE", "If 1, what only Linux has is replaced by portable means."),
];

pub(super) const FILES: &[(&str, &str)] = &[
    ("/etc/forkd/forkd.toml", "The configuration of forkd.service; see forkd.toml(5)."),
    ("/etc/forkd/NAME.toml", "The configuration of forkd@NAME.service."),
    ("/run/forkd/control.sock", "The control socket of forkd.service."),
    ("/run/forkd-NAME/control.sock", "The control socket of forkd@NAME.service."),
    (SYSTEMD, "How to make the service do what you want, and what to do when it doesn't work."),
    ("/usr/share/doc/forkd/examples", "Units, and additions to units, for that."),
];

/// Where the package has docs/SYSTEMD.md.
pub(super) const SYSTEMD: &str = "/usr/share/doc/forkd/docs/SYSTEMD.md";

pub(super) const CONFIGURATION: &[&str] = &[
    "The file is TOML: a [daemon] table, and one [[listen]] table for each group of endpoints with its own \
     model and limits. Without [[listen]] tables there is one with the defaults. Keys are named as the \
     options of forkd(1), which win over the file as variables of the environment do. An unknown key is an error.",
    "A limit is per listening socket, not per daemon nor per table: a table with two endpoints and \
     max-children = 100 allows 100 children for each. A duration is a string with a unit: \"500ms\", \"30s\", \
     \"5m\". Permissions are a string of octal digits: \"0660\".",
    "\"forkd check --config FILE\" shows what a file comes to, or where it is wrong.",
];

pub(super) const CONFIGURATION_EXAMPLE: &str = r#"[daemon]
grace = "30s"

# a child for each connection, at most 200 for each of the two sockets
[[listen]]
endpoints = ["tcp://0.0.0.0:7", "tcp://[::1]:7"]
max-children = 200
overflow = "reject"
idle-timeout = "5m"

# two workers for datagrams
[[listen]]
endpoints = ["udp://0.0.0.0:7"]
model = "prefork"
workers = 2
"#;
