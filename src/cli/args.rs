//! The grammar of the command line.
//!
//! Invariant: parsing is a pure function of the arguments. It reads no file and no variable, so `--help`
//! works in a broken environment; [`Config::resolve`](crate::config::Config::resolve) is the step that looks around.

mod ask;
mod compare;
mod doctor;
mod install;
mod lab;
mod load;
mod probe;

use std::ffi::OsString;

use clap::builder::ValueParser;
use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgAction, CommandFactory, FromArgMatches, Parser, Subcommand, value_parser};

use crate::config::Asked;
use crate::config::options::ServeOptions;
use crate::config::values::number;
#[cfg(feature = "top")]
pub use ask::TopArgs;
pub use ask::{PardonArgs, ReloadArgs, StatusArgs, UpgradeArgs};
pub use compare::{CompareArgs, OutputArgs, RunArgs};
pub use doctor::DoctorArgs;
use forkd_compare::NULL_SERVER;
pub use install::{CompletionsArgs, ManArgs, Page};
pub use lab::LabArgs;
pub use load::LoadArgs;
pub use probe::{ProbeArgs, Probed};

const EXAMPLES: &str = "\
Examples:
  forkd serve                      echo over TCP and UDP on 127.0.0.1:7007
  forkd check --config forkd.toml  is the file right, and what does it mean?
  forkd doctor                     what on this machine limits it?
  forkd reload                     have the running one read its file again
  forkd upgrade                    have a new program take its place
  forkd status                     how is the running one?
  forkd pardon 192.0.2.1           have it serve a source that it refuses
  forkd probe tcp://127.0.0.1:7    does it echo?
  forkd load tcp://127.0.0.1:7007  how much can it do?
  forkd compare                    which model costs what?
  forkd lab                        experiments, for the classroom
  forkd man forkd.toml.5           print a page of the manual
  forkd completions bash           print what completes such lines in a shell";

/// Those of all commands that this program has.
fn examples() -> String {
    let more =
        if cfg!(feature = "top") { "\n  forkd top                        watch the running one" } else { "" };
    format!("{EXAMPLES}{more}")
}

const SERVE_EXAMPLES: &str = "\
Examples:
  forkd serve tcp://0.0.0.0:7 udp://0.0.0.0:7
  forkd serve --model prefork --workers 4..32 tcp://[::]:7007
  forkd serve --service daytime tcp://0.0.0.0:13
  forkd serve tcp://0.0.0.0:7007 --exec sh -c 'echo You come from $REMOTE_ADDR'
  forkd serve --max-children 100 --overflow reject --idle-timeout 5m unix:///run/echo.sock
  forkd serve --config /etc/forkd/forkd.toml --log-level debug";

const CHECK_EXAMPLES: &str = "\
Examples:
  forkd check --config /etc/forkd/forkd.toml
  forkd check --unit forkd.service                   as root: what would the service do with its files now?
  forkd check --config forkd.toml --source 192.0.2.1 is a client from there served?
  forkd check -m prefork tcp://[::]:7 > forkd.toml   turn options into a file";

/// Network daemon for echo and other services: a child for each connection, a pool of workers, or workers that
/// serve many at once by threads, callbacks or coroutines.
#[derive(Debug, Parser)]
#[command(name = "forkd", version, after_help = examples())]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What forkd is asked to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the endpoints until a signal ends it
    ///
    /// Each option can also be given by the environment, such as --max-children by FORKD_MAX_CHILDREN. The command line
    /// beats the environment, which beats the file, which beats the default.
    #[command(after_help = SERVE_EXAMPLES)]
    Serve {
        /// What is served and how.
        #[command(flatten)]
        args: ServeOptions,

        /// Serve standard input, a connection (or a socket with datagrams) that inetd or systemd hands over
        #[arg(long, help_heading = "Daemon", conflicts_with_all = ServeOptions::not_with_inetd())]
        inetd: bool,

        /// Say whether this program could replace the one that starts it: no option of the user's
        #[arg(long, hide = true)]
        trial: bool,
    },
    /// Check the configuration, and print as TOML what it comes to
    ///
    /// It looks at the command line, the environment and the file as forkd serve does.
    #[command(after_help = CHECK_EXAMPLES)]
    Check {
        /// What is served and how.
        #[command(flatten)]
        args: ServeOptions,

        /// Say what would happen to a client from this address (or uid:N, uid:N,gid:N), and by which rule
        #[arg(long, value_name = "ADDRESS")]
        source: Option<Asked>,

        /// Check what this unit of systemd would serve, under all its conditions: sandbox, drop-ins, sockets
        #[arg(long, value_name = "UNIT", exclusive = true)]
        unit: Option<String>,
    },
    /// Say what on this machine limits forkd, and the commands that mend it
    ///
    /// It looks at the command line, the environment and the file as forkd serve does, and judges the system by what they
    /// ask for. The exit code is 1 if something allows less than is asked.
    #[command(after_help = doctor::EXAMPLES)]
    Doctor(DoctorArgs),
    /// Have a running forkd read its configuration again, and wait until that is in force
    #[command(after_help = ask::RELOAD_EXAMPLES)]
    Reload(ReloadArgs),
    /// Describe the services: `forkd serve --service list`
    #[command(skip)]
    Services,
    /// Be the server that `forkd compare` calibrates its clients with: no subcommand of the user's
    #[command(skip)]
    NullServer,
    /// Compare models, and other servers, under load: processes, threads, cost, and what clients feel
    #[command(after_help = compare::EXAMPLES)]
    Compare(CompareArgs),
    /// Print what completes forkd's command lines in a shell
    #[command(after_help = install::COMPLETIONS_EXAMPLES)]
    Completions(CompletionsArgs),
    /// Carry out an experiment of a few seconds on processes, sockets and servers, for the classroom
    ///
    /// The exit code is 0 if the machine does what is expected and 1 if it does not; it is 69 if that can't be found out, as a
    /// limit is in the way, which is named, or the machine is too busy.
    #[command(after_help = lab::examples())]
    Lab(LabArgs),
    /// Load an echo server, forkd or any other, and tell how it did
    #[command(after_help = load::EXAMPLES)]
    Load(LoadArgs),
    /// Print a page of the manual, or install all
    #[command(after_help = install::MAN_EXAMPLES)]
    Man(ManArgs),
    /// Have a running forkd forget what a source has done, and serve its next client
    #[command(after_help = ask::PARDON_EXAMPLES)]
    Pardon(PardonArgs),
    /// Tell by the exit code whether a server does its work, for a health check
    #[command(after_help = probe::EXAMPLES)]
    Probe(ProbeArgs),
    /// Ask a running forkd how it is
    #[command(after_help = ask::STATUS_EXAMPLES)]
    Status(StatusArgs),
    /// Watch a running forkd, live, on the whole terminal
    #[cfg(feature = "top")]
    #[command(after_help = ask::TOP_EXAMPLES)]
    Top(TopArgs),
    /// Have a running forkd replace its program by this one, and lose no client
    #[command(after_help = ask::UPGRADE_EXAMPLES)]
    Upgrade(UpgradeArgs),
}

impl Cli {
    /// Parses the arguments of a program, whose name comes first.
    ///
    /// # Errors
    ///
    /// The error that clap prints: for `--help` and `--version` too, which `use_stderr()` tells from a
    /// usage error.
    pub fn from_args(args: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let parsed = grammar().try_get_matches_from(args).and_then(|matches| {
            Self::from_arg_matches(&matches).map_err(|error| error.format(&mut grammar()))
        });
        match parsed {
            Err(error) if asks_for_services(&error) => Ok(Self { command: Command::Services }),
            Err(error) if asks_for_null_server(&error) => Ok(Self { command: Command::NullServer }),
            Err(error) => Err(match tip_for_model(&error) {
                Some(tip) => with_tip(error, tip),
                None => error,
            }),
            parsed => parsed,
        }
    }
}

/// What clap derives, with our own words about a value that is none.
fn grammar() -> clap::Command {
    Cli::command().mut_subcommands(|command| command.mut_args(explained))
}

/// An option that takes one value which is no mere text takes what follows, also `-3`: the value's own parser says
/// what is wrong with it, and not clap, which would advise to make an argument of it.
fn explained(option: Arg) -> Arg {
    let takes_one = option.get_num_args().is_none_or(|number| number == 1.into());
    let is_set = matches!(option.get_action(), ArgAction::Set | ArgAction::Append);
    if option.is_positional() || !is_set || !takes_one {
        return option;
    }
    let parser = option.get_value_parser().type_id();
    let is = |other: ValueParser| other.type_id() == parser;
    if is(ValueParser::string()) || is(ValueParser::path_buf()) {
        return option;
    }
    let option = match () {
        () if is(value_parser!(u16).into()) => option.value_parser(number::<u16>),
        () if is(value_parser!(u32).into()) => option.value_parser(number::<u32>),
        () if is(value_parser!(u64).into()) => option.value_parser(number::<u64>),
        () if is(value_parser!(usize).into()) => option.value_parser(number::<usize>),
        () => option,
    };
    option.allow_hyphen_values(true)
}

/// Whether it is a mistake only in that `list` is no service.
fn asks_for_services(error: &clap::Error) -> bool {
    let is = |kind, test: &dyn Fn(&str) -> bool| matches!(error.get(kind), Some(ContextValue::String(text)) if test(text));
    is(ContextKind::InvalidArg, &|arg| arg.starts_with("--service"))
        && is(ContextKind::InvalidValue, &|value| value == "list")
}

/// What `forkd compare` calls by names of its own.
const NAMES_OF_COMPARE: [(&str, &str); 2] = [
    (
        "prethread",
        "what forkd compare calls prethread is --model thread --threads 8: a fixed pool of threads",
    ),
    (
        "spare",
        "what forkd compare calls spare is --model fork --spare 16: children that wait for their client",
    ),
];

/// What the model is that is asked for by its name in `forkd compare`.
fn tip_for_model(error: &clap::Error) -> Option<&'static str> {
    let Some(ContextValue::String(value)) = error.get(ContextKind::InvalidValue) else { return None };
    NAMES_OF_COMPARE.into_iter().find(|(name, _)| name == value).map(|(_, tip)| tip)
}

/// The same mistake with advice of our own, in place of a model that is called nearly the same.
fn with_tip(mut error: clap::Error, tip: &'static str) -> clap::Error {
    error.remove(ContextKind::SuggestedValue);
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    error
}

/// Whether it is a mistake only in that this is no subcommand for people.
fn asks_for_null_server(error: &clap::Error) -> bool {
    matches!(error.get(ContextKind::InvalidSubcommand), Some(ContextValue::String(name)) if name == NULL_SERVER)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::from_args(line.split_whitespace().map(Into::into))
    }

    #[test]
    fn the_grammar_is_consistent() {
        grammar().debug_assert();
    }

    #[test]
    fn reads_every_option_of_serve() {
        let line = "forkd serve -m prefork -w 4..32 --min-spare 1 --max-spare 2 --max-children 3 --spare 2 \
            --threads 7 --max-threads 8 \
            --max-connections-per-child 4 --overflow reject --backlog 5 --idle-timeout 5m --keepalive 3m --grace 1s \
            --log syslog --log-level warn --log-format json --daemon --pidfile p --user u --group g \
            --chroot c --umask 027 --v6only --socket-mode 0660 --control s --metrics tcp://m:9 --config f tcp://a:1 unix:///x";
        let Command::Serve { args, .. } = parse(line).unwrap().command else { panic!("not serve") };
        assert_eq!(args.config, Some("f".into()));
        let written = toml::to_string(&args.listen).unwrap() + &toml::to_string(&args.daemon).unwrap();
        let long_options = line.matches("--").count();
        // -m, -w and the endpoints have no long name here, and --config no place in a file
        assert_eq!(written.lines().count(), long_options + 3 - 1, "{written}");
    }

    #[test]
    fn every_help_has_examples_and_every_option_a_heading() {
        let commands = Cli::command();
        let shown = commands.get_subcommands().filter(|command| !command.is_hide_set());
        for name in shown.map(clap::Command::get_name).chain([""]) {
            let error = parse(&format!("forkd {name} --help")).unwrap_err();
            assert!(!error.use_stderr());
            assert!(error.to_string().contains("\nExamples:\n"), "{error}");
        }
        let help = parse("forkd serve --help").unwrap_err().to_string();
        for heading in ["Listening:", "Pool:", "Limits:", "Logging:", "Daemon:"] {
            assert_eq!(help.matches(heading).count(), 1, "{help}");
        }
    }

    #[test]
    fn the_null_server_is_not_for_users() {
        assert!(matches!(parse("forkd null-server").unwrap().command, Command::NullServer));
        let help = parse("forkd --help").unwrap_err().to_string() + &format!("{:?}", Cli::command());
        assert!(!help.contains(NULL_SERVER), "{help}");
    }

    #[test]
    fn examples_say_what_they_do_in_one_column() {
        let examples = examples();
        let columns = examples.lines().skip(1).map(|line| {
            let (command, said) = line.trim_start().split_once("  ").unwrap();
            assert!(parse(command).is_ok(), "{command}");
            line.len() - said.trim_start().len()
        });
        assert_eq!(columns.collect::<std::collections::BTreeSet<_>>().len(), 1, "{examples}");
        for command in Cli::command().get_subcommands() {
            assert!(examples.contains(&format!("forkd {} ", command.get_name())), "{examples}");
        }
    }

    #[test]
    fn each_option_is_known_to_go_with_inetd_or_not() {
        let with_inetd = [
            "service",
            "reply",
            "framing",
            "root",
            "route",
            "allow_amplification",
            "idle_timeout",
            "max_lifetime",
            "keepalive",
            "log",
            "log_level",
            "log_format",
            "inetd",
        ];
        let cli = Cli::command();
        let serve = cli.find_subcommand("serve").unwrap();
        let shown = serve.get_arguments().filter(|option| !option.is_hide_set());
        let options: std::collections::BTreeSet<_> = shown.map(|option| option.get_id().as_str()).collect();
        assert_eq!(options, with_inetd.into_iter().chain(ServeOptions::not_with_inetd()).collect());
    }

    #[test]
    fn refuses_nonsense_with_a_reason() {
        for (line, expected) in [
            ("forkd", "Usage: forkd <COMMAND>"),
            ("forkd serve tcp://a", "endpoint \"tcp://a\" has no port"),
            ("forkd serve --grace 10", "10 has no unit; add a unit"),
            (
                "forkd serve --model fibres",
                "[possible values: fork, prefork, iterative, thread, event, coroutine]",
            ),
            (
                "forkd serve --model prethread",
                "tip: what forkd compare calls prethread is --model thread --threads 8",
            ),
            ("forkd serve --model spare", "tip: what forkd compare calls spare is --model fork --spare 16"),
            ("forkd serve --inetd tcp://a:1", "'--inetd' cannot be used with '[ENDPOINT]...'"),
            ("forkd serve --inetd -m fork", "'--inetd' cannot be used with '--model <MODEL>'"),
            ("forkd serve --inetd --max-connections 3", "cannot be used with '--max-connections <N>'"),
            ("forkd check --inetd", "unexpected argument '--inetd'"),
            (
                "forkd serve -w -3",
                "'-3' for '--workers <N|MIN..MAX|auto>': \"-3\" is not a number of workers",
            ),
            (
                "forkd serve --backlog -1",
                "'-1' for '--backlog <N>': \"-1\" is not a whole number; write one like 8",
            ),
            ("forkd serve --max-children 4294967296", "4294967296 is too large"),
            ("forkd serve --grace -5s", "\"-5s\" is not a duration"),
            ("forkd serve --grace --daemon", "\"--daemon\" is not a duration"),
            ("forkd serve --pidfile --daemon", "a value is required for '--pidfile <PATH>'"),
            ("forkd status --watch --json tcp://a:1", "unexpected argument 'tcp://a:1'"),
            ("forkd compare --clients 1,x", "\"x\" is not a whole number"),
            ("forkd serve 8080", "endpoint \"8080\" has no scheme; write tcp://127.0.0.1:8080"),
            ("forkd status --josn", "a similar argument exists: '--json'"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.use_stderr() && error.to_string().contains(expected), "{line}: {error}");
        }
    }
}
