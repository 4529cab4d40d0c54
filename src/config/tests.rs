//! What the sources of a configuration give together.

use std::time::Duration;

use super::*;
use crate::cli::args::{Cli, Command};
use crate::config::service::Builtin;
use crate::config::values::{KeepAlive, LogLevel, LogSink, Span};
use clap::Parser;
use forkd_server::Endpoint;
use forkd_server::model::Model;
use proptest::prelude::*;

/// Resolves `forkd serve ARGS`, with a file if `toml` is not empty.
fn resolve_in(
    args: &str,
    toml: &str,
    env: &[(&str, &str)],
    handed_over: &[Endpoint],
) -> Result<Config, Error> {
    let cli = Cli::try_parse_from(["forkd", "serve"].into_iter().chain(args.split_whitespace())).unwrap();
    let Command::Serve { args: options, .. } = cli.command else { panic!("not serve") };
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, toml).unwrap();
    let mut options = options;
    options.config = (!toml.is_empty()).then(|| file.path().to_owned());
    let (sources, unknown) =
        Sources::new(options, env.iter().map(|(key, value)| (key.into(), value.into())))?;
    assert_eq!(unknown, [""; 0]);
    let env = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
    Config::resolve(&sources, Path::new("/here"), env, handed_over)
}

fn resolve(args: &str, toml: &str) -> Result<Config, Error> {
    resolve_in(args, toml, &[], &[])
}

/// Returns the exit code and the message from the line number on, if it has one.
fn refusal(args: &str, toml: &str) -> (u8, String) {
    refusal_in(args, toml, &[])
}

fn refusal_in(args: &str, toml: &str, env: &[(&str, &str)]) -> (u8, String) {
    let error = resolve_in(args, toml, env, &[]).unwrap_err();
    let text = error.to_string();
    let tail = if text.starts_with('/') { text.split_once(':').unwrap().1 } else { &text };
    (error.exit_code(), tail.to_owned())
}

const TWO_GROUPS: &str = "[[listen]]\nendpoints = ['tcp://a:1']\nbacklog = 5\n[[listen]]\n\
    endpoints = ['udp://a:1']\nmodel = 'prefork'\nworkers = 3\n";

#[test]
fn nothing_given_is_the_default() {
    let config = resolve("", "").unwrap();
    let ListenOptions { service, model, max_children, overflow, backlog, keepalive, .. } = &config.listen[0];
    assert_eq!((*service, *model, *max_children), (Some(Builtin::Echo), Some(Model::Fork), Some(1024)));
    assert_eq!((overflow.is_some(), *backlog), (true, Some(4096)));
    assert_eq!(*keepalive, Some(KeepAlive(Some(Duration::from_secs(120)))));
    assert_eq!(config.daemon.grace, Some(Span(Duration::from_secs(10))));
    let names: Vec<_> = config.listen[0].endpoints.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["tcp://127.0.0.1:7007", "udp://127.0.0.1:7007"]);
    assert_eq!(resolve("", "[[listen]]\n").unwrap(), config);
}

#[test]
fn the_command_line_beats_the_file_and_the_file_the_default() {
    let toml = "[daemon]\ngrace = '1s'\nlog = 'syslog'\n[[listen]]\nbacklog = 5\nmax-children = 6\n";
    let config = resolve("--grace 2s --backlog 7 -m fork", toml).unwrap();
    assert_eq!(config.daemon.grace().0, Duration::from_secs(2));
    assert_eq!(config.daemon.log(), LogSink::Syslog);
    assert_eq!(config.daemon.log_level(), LogLevel::Info);
    assert_eq!((config.listen[0].backlog(), config.listen[0].max_children()), (7, 6));
}

#[test]
fn options_apply_to_each_group_and_endpoints_replace_them() {
    let config = resolve("--idle-timeout 5s", TWO_GROUPS).unwrap();
    assert_eq!(config.listen.len(), 2);
    assert!(config.listen.iter().all(|group| group.idle_timeout == Some(Span(Duration::from_secs(5)))));
    assert_eq!(config.listen[0].backlog(), 5);

    let config = resolve("unix:///x", TWO_GROUPS).unwrap();
    assert_eq!(config.listen.len(), 1);
    assert_eq!(config.listen[0].endpoints, [Endpoint::Unix("/x".into())]);
    assert_eq!((config.listen[0].model(), config.listen[0].backlog()), (Model::Fork, 4096));
}

#[test]
fn what_was_handed_over_is_served_where_nothing_is_named() {
    let endpoints = |args, toml| {
        let config = resolve_in(args, toml, &[], &[Endpoint::Systemd(None)]).unwrap();
        config.listen[0].endpoints.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(endpoints("", ""), ["systemd:*"]);
    assert_eq!(endpoints("-m prefork", "[[listen]]\nworkers = 3"), ["systemd:*"]);
    assert_eq!(endpoints("tcp://a:1", ""), ["tcp://a:1"]);
    assert_eq!(endpoints("", TWO_GROUPS), ["tcp://a:1"]);

    let text = resolve("-m prefork systemd:a systemd:b", "").unwrap().to_toml().unwrap();
    assert!(!text.contains("backlog"), "{text}");
    assert_eq!(resolve("", &text).unwrap().to_toml().unwrap(), text);
    assert_eq!(refusal("--backlog 5 systemd:a", "").0, 64);
}

#[test]
fn the_one_at_fault_is_named() {
    let (code, text) = refusal("--workers 4", "");
    assert_eq!(code, 64);
    assert!(
        text.starts_with("--workers needs a pool (any model but fork), and tcp://127.0.0.1:7007 has none"),
        "{text}"
    );

    let (code, text) = refusal("", "[[listen]]\nworkers = 4\n");
    assert_eq!(code, 78);
    assert!(text.starts_with("2:11: workers needs a pool"), "{text}");
    assert!(text.ends_with("\n  |\n2 | workers = 4\n  |           ^"), "{text}");

    // one of the command line that no group can use
    let (code, text) = refusal("--max-threads 2", TWO_GROUPS);
    assert!(code == 64 && text.starts_with("--max-threads needs a thread for each connection"), "{text}");
    let (code, text) = refusal("tcp://b:1 --backlog 0", TWO_GROUPS);
    assert!(code == 64 && text.starts_with("--backlog is 0"), "{text}");
}

#[test]
fn what_the_command_line_leaves_without_effect_in_the_file_is_passed_over() {
    let config = resolve("-m fork", TWO_GROUPS).unwrap();
    assert!(config.listen.iter().all(|group| group.model() == Model::Fork));
    assert!(!config.to_toml().unwrap().contains("workers"));

    let elastic = "[[listen]]\nmodel = 'prefork'\nworkers = '4..32'\nmin-spare = 8\nmax-spare = 9\n";
    let config = resolve("-m event", elastic).unwrap();
    assert_eq!((config.listen[0].model(), config.listen[0].workers), (Model::Event, None));
    let config = resolve("-w 3", elastic).unwrap();
    assert_eq!(
        (config.listen[0].model(), config.listen[0].workers.unwrap().range().unwrap().max),
        (Model::Prefork, 3)
    );

    let ack = "[[listen]]\nendpoints = ['tcp://a:1']\nservice = 'ack'\nreply = 'Hello'\n";
    assert_eq!(resolve("--service echo", ack).unwrap().listen[0].service(), Builtin::Echo);

    // what is a mistake without the command line stays one
    let (code, text) = refusal("-m event", "[[listen]]\nmin-spare = 3\n");
    assert!(code == 78 && text.starts_with("2:13: min-spare needs an elastic pool"), "{text}");
    let (code, text) = refusal("-w 4", "[[listen]]\nworkers = 3\n");
    assert!(code == 64 && text.starts_with("--workers needs a pool"), "{text}");
}

#[test]
fn an_option_of_the_command_line_goes_to_the_groups_that_it_has_an_effect_on() {
    let config = resolve("-w 2 --max-children 7", TWO_GROUPS).unwrap();
    let [fork, pool] = &config.listen[..] else { panic!("{config:?}") };
    assert_eq!((fork.model(), fork.max_children()), (Model::Fork, 7));
    assert_eq!((pool.model(), pool.workers.unwrap().range().unwrap().max), (Model::Prefork, 2));

    let exec = format!("{TWO_GROUPS}[[listen]]\nendpoints = ['tcp://c:1']\nexec = ['cat']\n");
    let timeouts: Vec<_> = resolve("--idle-timeout 5s", &exec).unwrap().listen;
    let timeouts: Vec<_> = timeouts.iter().map(|group| group.idle_timeout.is_some()).collect();
    assert_eq!(timeouts, [true, true, false]);
}

#[test]
fn a_service_that_does_not_fit_is_shown_where_it_was_named() {
    let (code, text) = refusal("", "[[listen]]\nmodel = 'event'\nexec = ['cat']\n");
    assert!(code == 78 && text.starts_with("3:8: exec doesn't fit: the service is exec, "), "{text}");
    let (code, text) = refusal("-m event", "[[listen]]\nexec = ['cat']\n");
    assert!(code == 64 && text.starts_with("--model doesn't fit: the service is exec"), "{text}");
    let (code, text) = refusal("", "[[listen]]\nendpoints = ['unixgram:///x']\nexec = ['cat']\n");
    assert!(
        code == 78 && text.starts_with("3:8: exec doesn't fit: the service is exec, which needs"),
        "{text}"
    );
    // options are named as they are given there
    let (code, text) = refusal("--service exec", "");
    assert!(code == 64 && text.contains("; give --exec with one"), "{text}");
    let (code, text) = refusal("--service daytime udp://a:1", "");
    assert!(code == 64 && text.ends_with("or give --allow-amplification"), "{text}");
    let (_, text) = refusal("", "[[listen]]\nservice = 'exec'\n");
    assert!(
        text.starts_with("2:11: service is exec, and no program is named; give `exec` with one"),
        "{text}"
    );
}

#[test]
fn spares_out_of_order_are_found_in_the_file() {
    let table = "[[listen]]\nmodel = 'prefork'\nworkers = '4..32'\nmin-spare = 9\nmax-spare = 3\n";
    let (code, text) = refusal("", table);
    assert!(code == 78 && text.starts_with("5:13: max-spare is 3; choose more than `min-spare`"), "{text}");
}

#[test]
fn the_environment_lies_between_the_command_line_and_the_file() {
    let toml = "[daemon]\ngrace = '1s'\nlog-level = 'warn'\n[[listen]]\nendpoints = ['tcp://a:1']\nbacklog = 5\n\
        v6only = true\nmax-children = 6\n";
    let env =
        [("FORKD_GRACE", "2s"), ("FORKD_BACKLOG", "7"), ("FORKD_V6ONLY", "false"), ("FORKD_LOG", "syslog")];
    let config = resolve_in("--grace 3s --max-children 8", toml, &env, &[]).unwrap();
    assert_eq!(config.daemon.grace().0, Duration::from_secs(3));
    assert_eq!((config.daemon.log(), config.daemon.log_level()), (LogSink::Syslog, LogLevel::Warn));
    let [group] = &config.listen[..] else { panic!("{config:?}") };
    assert_eq!((group.backlog(), group.max_children(), group.v6only()), (7, 8, false));
    assert_eq!(group.endpoints, [Endpoint::Tcp { host: "a".into(), port: 1 }]);

    let endpoints = [("FORKD_ENDPOINTS", "unix:///x")];
    let served = |args, env| resolve_in(args, TWO_GROUPS, env, &[]).unwrap().listen;
    assert_eq!(served("", &endpoints)[0].endpoints, [Endpoint::Unix("/x".into())]);
    assert_eq!(served("unix:///y", &endpoints)[0].endpoints, [Endpoint::Unix("/y".into())]);
    assert_eq!(served("", &[]).len(), 2);
}

#[test]
fn an_option_of_the_environment_goes_to_the_groups_that_it_has_an_effect_on() {
    let env = [("FORKD_WORKERS", "2"), ("FORKD_MAX_CHILDREN", "7")];
    let config = resolve_in("", TWO_GROUPS, &env, &[]).unwrap();
    let [fork, pool] = &config.listen[..] else { panic!("{config:?}") };
    assert_eq!((fork.max_children(), pool.workers.unwrap().range().unwrap().max), (7, 2));

    // with the command line it can have one
    let config = resolve_in("-m prefork", "", &env[..1], &[]).unwrap();
    assert_eq!(config.listen[0].workers.unwrap().range().unwrap().max, 2);
    // by itself it has none
    let (code, text) = refusal_in("", "", &env[..1]);
    assert!(code == 64 && text.starts_with("FORKD_WORKERS needs a pool (any model but fork)"), "{text}");
    assert!(text.ends_with("; give FORKD_MODEL prefork, or leave this out"), "{text}");
    let (code, text) = refusal_in("--max-threads 2", TWO_GROUPS, &env);
    assert!(code == 64 && text.starts_with("--max-threads needs a thread"), "{text}");
}

#[test]
fn what_the_command_line_leaves_without_effect_in_the_environment_is_passed_over() {
    let env = [("FORKD_MODEL", "prefork"), ("FORKD_WORKERS", "3")];
    let config = resolve_in("-m fork", "[[listen]]\nmodel = 'prefork'\nworkers = 2\n", &env, &[]).unwrap();
    assert_eq!((config.listen[0].model(), config.listen[0].workers), (Model::Fork, None));
    let config = resolve_in("", "[[listen]]\nmax-children = 2\n", &env, &[]).unwrap();
    assert_eq!((config.listen[0].model(), config.listen[0].max_children), (Model::Prefork, None));
}

#[test]
fn a_mistake_of_the_environment_names_the_variable() {
    for (env, expected) in [
        (("FORKD_BACKLOG", "0"), "FORKD_BACKLOG is 0; choose 1 to"),
        (
            ("FORKD_SERVICE", "exec"),
            "FORKD_SERVICE is exec, and no program is named; give FORKD_EXEC with one",
        ),
        (("FORKD_ENDPOINTS", "tcp://a:1 tcp://a:1"), "FORKD_ENDPOINTS names tcp://a:1 twice"),
        (("FORKD_METRICS", "tcp://127.0.0.1:7007"), "FORKD_METRICS names tcp://127.0.0.1:7007, which"),
        (("FORKD_GRACE", "5"), "FORKD_GRACE: 5 has no unit"),
    ] {
        let (code, text) = refusal_in("", "", &[env]);
        assert!(code == 64 && text.starts_with(expected), "{text}");
    }
    let (_, text) = refusal_in("-m event", "", &[("FORKD_EXEC", "cat")]);
    assert!(text.starts_with("--model doesn't fit: the service is exec"), "{text}");
}

#[test]
fn an_endpoint_twice_is_refused() {
    let (code, text) = refusal("tcp://a:1 tcp://a:1", "");
    assert_eq!(code, 64);
    assert!(text.starts_with("the command line names tcp://a:1 twice"), "{text}");

    let again = format!("{TWO_GROUPS}[[listen]]\nendpoints = ['tcp://b:1', 'tcp://a:1']\n");
    let (code, text) = refusal("", &again);
    assert!(code == 78 && text.starts_with("9:13: endpoints names tcp://a:1 twice"), "{text}");
    assert!(resolve("tcp://a:0 tcp://a:0", "").is_ok());
}

#[test]
fn each_of_several_groups_needs_endpoints() {
    let (code, text) = refusal("", &format!("{TWO_GROUPS}[[listen]]\nbacklog = 1\n"));
    assert!(code == 78 && text.starts_with("8:1: endpoints is missing"), "{text}");
}

#[test]
fn the_control_socket_follows_the_environment() {
    let control = |args, env: &[_]| resolve_in(args, "", env, &[]).unwrap().daemon.control;
    let (service, user) = (("RUNTIME_DIRECTORY", "/run/a:/run/b"), ("XDG_RUNTIME_DIR", "/run/user/1"));
    assert_eq!(control("", &[service, user]), Some("/run/a/control.sock".into()));
    assert_eq!(control("", &[user]), Some("/run/user/1/forkd.sock".into()));
    assert_eq!(control("", &[("RUNTIME_DIRECTORY", ""), user]), Some("/run/user/1/forkd.sock".into()));
    assert_eq!(control("", &[("XDG_RUNTIME_DIR", "relative")]), None);
    assert_eq!(control("--control /c", &[service, user]), Some("/c".into()));
}

#[test]
fn a_program_takes_the_rest_of_the_line() {
    let config = resolve("--backlog 9 tcp://a:1 --exec cat -u --backlog 5 -- tcp://b:1", "").unwrap();
    let [listen] = &config.listen[..] else { panic!("{config:?}") };
    assert_eq!((listen.service(), listen.backlog()), (Builtin::Exec, 9));
    assert_eq!(listen.exec, ["cat", "-u", "--backlog", "5", "--", "tcp://b:1"]);
    assert_eq!(listen.endpoints, [Endpoint::Tcp { host: "a".into(), port: 1 }]);
    let text = config.to_toml().unwrap();
    assert!(text.contains("exec = [\"cat\", \"-u\","), "{text}");
    assert_eq!(resolve("", &text).unwrap(), config);

    // where no endpoint is named, one that has connections
    let config = resolve("--exec=cat", "").unwrap();
    assert_eq!(config.listen[0].endpoints, [Endpoint::Tcp { host: "127.0.0.1".into(), port: 7007 }]);
    let (code, text) = refusal("", "[[listen]]\nservice = 'echo'\nexec = ['cat']");
    assert!(code == 78 && text.starts_with("3:8: exec needs the service exec"), "{text}");
    assert_eq!(
        resolve("--service echo", "[[listen]]\nexec = ['cat']").unwrap().listen[0].service(),
        Builtin::Echo
    );
    assert_eq!(resolve("--exec cat", "[[listen]]\nexec = ['tac', '-s']").unwrap().listen[0].exec, ["cat"]);
}

#[test]
fn in_the_background_a_program_is_found_from_anywhere() {
    let program = |args| resolve(args, "").unwrap().listen[0].exec[0].clone();
    assert_eq!(program("--daemon --exec ./a b"), "/here/./a");
    assert_eq!(program("--daemon --exec /bin/a"), "/bin/a");
    assert_eq!(program("--daemon --exec a"), "a");
    assert_eq!(program("--exec ./a"), "./a");
}

#[test]
fn in_the_background_paths_are_absolute() {
    let paths = "--pidfile p --control ./c --chroot /d/../e";
    let DaemonOptions { pidfile, control, chroot, .. } = resolve(paths, "").unwrap().daemon;
    assert_eq!((pidfile, control), (Some("p".into()), Some("./c".into())));
    assert_eq!(chroot, Some("/d/../e".into()));

    let here = Path::new("/here");
    let daemon = resolve(&format!("--daemon {paths}"), "").unwrap().daemon;
    assert!(daemon.daemon());
    assert_eq!((daemon.pidfile, daemon.control), (Some(here.join("p")), Some(here.join("c"))));
    assert_eq!(daemon.chroot, Some("/d/../e".into()));
}

#[test]
fn toml_names_what_matters_to_the_model() {
    let fork = resolve("", "").unwrap().to_toml().unwrap();
    assert!(fork.contains("max-children = 1024\noverflow = \"wait\""), "{fork}");
    assert!(!fork.contains("workers") && !fork.contains("-spare") && !fork.contains("per-child"), "{fork}");
    let pool = resolve("-m prefork -w 4..32", "").unwrap().to_toml().unwrap();
    assert!(pool.contains("workers = \"4..32\"\nmin-spare = 2\nmax-spare = 8\n"), "{pool}");
    assert!(!pool.contains("max-children") && !pool.contains("overflow"), "{pool}");
}

#[test]
fn a_site_is_the_same_in_the_file() {
    let config = resolve("--service http --root www --route /a=b --route /c=d=e tcp://a:1", "").unwrap();
    let listen = &config.listen[0];
    assert_eq!(listen.root.as_deref(), Some(Path::new("/here/www")));
    assert_eq!(listen.route[1].to_string(), "/c=d=e");
    let text = config.to_toml().unwrap();
    assert!(text.contains("root = \"/here/www\"\nroute = [\"/a=b\", \"/c=d=e\"]"), "{text}");
    assert_eq!(resolve("", &text).unwrap(), config);
    let (code, text) = refusal("", "[[listen]]\nroute = ['a=b']\n");
    assert!(code == 78 && text.starts_with("2:10: \"a=b\" is no path"), "{text}");
}

#[test]
fn toml_cannot_hold_every_path() {
    use std::os::unix::ffi::OsStringExt;
    let mut config = resolve("", "").unwrap();
    config.daemon.pidfile = Some(OsString::from_vec(b"/\xff".to_vec()).into());
    let error = config.to_toml().unwrap_err();
    assert_eq!(error.exit_code(), 78);
    assert!(error.to_string().contains("UTF-8"), "{error}");
}

fn any_arguments() -> impl Strategy<Value = String> {
    let model = prop_oneof![
        (1..=forkd_server::model::MAX_CHILDREN, any::<bool>()).prop_map(|(n, wait)| format!(
            "--max-children {n} --overflow {}",
            if wait { "wait" } else { "reject" }
        )),
        (1..9u32, any::<u64>())
            .prop_map(|(w, n)| format!("-m prefork -w {w} --max-connections-per-child {n}")),
        (1..9u32, 1..9u32, 1..9u32, 1..9u32).prop_map(|(min, more, spare, most)| format!(
            "-m prefork -w {min}..{} --min-spare {} --max-spare {}",
            min + more,
            spare.min(min + more),
            spare + most
        )),
    ];
    let listen = (1..9999u32, 1..99_999_999u32, any::<bool>(), 0..=0o777u32);
    let daemon = (0..99_999_999u32, any::<bool>(), "[/a-z\"\\\\é]{1,9}", "[a-z]{1,8}", 0..=0o777u32);
    (model, listen, daemon).prop_map(|(model, (backlog, idle, v6only, mode), (grace, daemon, path, user, umask))| {
        format!(
            "{model} --backlog {backlog} --idle-timeout {idle}ms {} --socket-mode {mode:o} tcp://[::]:0 unix:///{user} \
             --grace {grace}us {} --pidfile {path} --control {path} --user {user} --umask {umask:o} --log-format json",
            if v6only { "--v6only" } else { "" },
            if daemon { "--daemon" } else { "" },
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn toml_gives_the_same_config(args in any_arguments()) {
        let config = resolve(&args, "").unwrap();
        prop_assert_eq!(&resolve("", &config.to_toml().unwrap()).unwrap(), &config);
    }
}
