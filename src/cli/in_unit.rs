//! `forkd check --unit`: the check, under the conditions of a systemd unit.
//!
//! What a unit allows shows only from inside. So the command of the service runs, as a check, in a unit of its own that
//! has the settings of the service with all its drop-ins (systemd-run(1)).
//!
//! Invariant: nothing of the service is touched, whether it runs or not. What belongs to it alone, such as its
//! directories and its sockets, the check does not get; which sockets it would get is asked of systemd.

mod sockets;

use std::path::Path;
use std::process::{Command, Stdio};

use super::check::{DIRECTORIES, HANDED_OVER, show};
use crate::failed::Failed;
use crate::{Error, Failure, sys};
use sockets::Socket;

/// What settings of a service begin with that don't confine it, or that belong to it alone.
const NOT_FOR_A_CHECK: [&str; 30] = [
    "BusName",
    "CacheDirectory",
    "ConfigurationDirectory",
    "ExecCondition",
    "ExecReload",
    "ExecStart",
    "ExecStop",
    "ExitType",
    "FileDescriptorStore",
    "FinalKillSignal",
    "GuessMainPID",
    "Kill",
    "LogsDirectory",
    "NonBlocking",
    "NotifyAccess",
    "OOMPolicy",
    "PIDFile",
    "Reload",
    "RemainAfterExit",
    "Restart",
    "Runtime",
    "Sockets",
    "Standard",
    "StartLimit",
    "StateDirectory",
    "SuccessExitStatus",
    "Timeout",
    "Type",
    "Watchdog",
    "X-",
];

/// Settings that give a service directories of its own, and where; in the order of [`DIRECTORIES`].
const PLACES: [(&str, &str); 4] = [
    ("RuntimeDirectory", "/run"),
    ("StateDirectory", "/var/lib"),
    ("CacheDirectory", "/var/cache"),
    ("LogsDirectory", "/var/log"),
];

/// Checks what this unit would serve, and prints it as TOML.
///
/// # Errors
///
/// What the service would end with, or why systemd can't be asked.
pub(super) fn run(name: &str) -> Result<(), Failed> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::Permission("only root can check under the conditions of a unit".into()).into());
    }
    sys::signal::restore_sigchld();
    let unit = if name.ends_with(".service") { name.to_owned() } else { format!("{name}.service") };
    let settings = settings(&ask(&["cat"], &unit)?);
    let exec_start = property(&unit, "ExecStart")?;
    let command = command(&exec_start)
        .ok_or_else(|| Error::Config(format!("{unit} has no ExecStart= that runs `forkd serve`")))?;

    let sockets = Socket::all_of(&unit)?;
    let mut check = Command::new("systemd-run");
    check.args(["--quiet", "--pipe", "--wait", "--collect", "--service-type=exec"]);
    for setting in for_a_check(&settings, &unit) {
        check.arg(format!("--property={setting}"));
    }
    // whether a service manager waits for its word
    check.arg(format!("--property=NotifyAccess={}", property(&unit, "NotifyAccess")?));
    if !sockets.is_empty() {
        check.arg(format!("--property=Environment={HANDED_OVER}={}", sockets::names(&sockets).join(":")));
    }
    match run_to_end(check.arg("--").args(command))? {
        (0, configuration, _) => {
            sockets::check(&unit, &sockets, &configuration)?;
            Ok(show(&format!("{configuration}\n"))?)
        }
        (status, _, said) => Err(failure(&unit, status, &said)),
    }
}

/// Runs a program to its end, and returns its status and what it has printed on both outputs.
fn run_to_end(program: &mut Command) -> Result<(u8, String, String), Error> {
    let output = program.stdin(Stdio::null()).output().map_err(|cause| {
        let name = program.get_program().display();
        Error::Unavailable(Failure::new(format!("cannot run {name}, which asks systemd"), cause))
    })?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim_end().to_owned();
    let status = output.status.code().and_then(|code| code.try_into().ok()).unwrap_or(OF_SYSTEMD_RUN);
    Ok((status, text(output.stdout), text(output.stderr)))
}

/// What systemctl(1) says about a unit.
fn ask(arguments: &[&str], unit: &str) -> Result<String, Error> {
    match run_to_end(Command::new("systemctl").args(arguments).args(["--", unit]))? {
        (0, answer, _) => Ok(answer),
        (_, _, why) => Err(Error::Unavailable(format!("cannot ask systemd about {unit}: {why}").into())),
    }
}

fn property(unit: &str, name: &str) -> Result<String, Error> {
    ask(&["show", "--property", name, "--value"], unit)
}

/// What systemd-run(1) itself fails with; a check never does.
const OF_SYSTEMD_RUN: u8 = 1;

/// Why the check has ended with this status.
fn failure(unit: &str, status: u8, said: &str) -> Failed {
    let why = match said.strip_prefix("forkd: error: ").unwrap_or(said) {
        "" => "systemd can't start a program with these settings; `journalctl -n 20` says why",
        why => why,
    };
    match status {
        OF_SYSTEMD_RUN => Error::Unavailable(format!("cannot check {unit}: {why}").into()).into(),
        exit_code => Failed::new(exit_code, format!("{unit} can't serve: {why}")),
    }
}

/// The command of ExecStart=, as a check. systemd shows it as `{ path=… ; argv[]=/usr/bin/forkd serve … ; … }`.
fn command(exec_start: &str) -> Option<Vec<&str>> {
    let (_, argv) = exec_start.split_once("argv[]=")?;
    let mut words: Vec<&str> = argv.split(" ;").next()?.split_whitespace().collect();
    let verb = words.get_mut(1).filter(|verb| **verb == "serve")?;
    *verb = "check";
    Some(words)
}

/// The assignments below `[Service]` in files of a unit: systemd.syntax(7).
fn settings(text: &str) -> Vec<String> {
    let (mut settings, mut line, mut is_service) = (Vec::new(), String::new(), false);
    for part in text.lines().map(str::trim).filter(|part| !part.starts_with(['#', ';'])) {
        if let Some(part) = part.strip_suffix('\\') {
            line = line + part + " ";
            continue;
        }
        let whole = std::mem::take(&mut line) + part;
        if whole.starts_with('[') {
            is_service = whole == "[Service]";
        } else if let Some((key, value)) = whole.split_once('=').filter(|_| is_service) {
            settings.push(format!("{}={}", key.trim(), value.trim()));
        }
    }
    settings
}

/// Those of them that hold for a check, too, with a runtime directory of its own.
fn for_a_check(settings: &[String], unit: &str) -> Vec<String> {
    let value = |key: &str| {
        let last = settings.iter().rev().find_map(|setting| setting.strip_prefix(key)?.strip_prefix('='));
        expand(last.unwrap_or_default(), unit)
    };
    let directory = value("RuntimeDirectory");
    let directories: Vec<&str> = directory.split_whitespace().collect();
    let own = |name: &str| format!("{name}-check-{}", std::process::id());
    let moved = |word: &str| {
        let path = word.trim_start_matches(['-', '+']);
        let name = path.strip_prefix("/run/").filter(|name| directories.contains(name));
        name.map_or(word.to_owned(), |name| word.replace(name, &own(name)))
    };
    let holds = |setting: &&String| !NOT_FOR_A_CHECK.iter().any(|start| setting.starts_with(start));
    let mut result: Vec<String> = settings
        .iter()
        .filter(holds)
        .map(|setting| match setting.split_once('=') {
            Some((key, value)) => {
                let words: Vec<_> = expand(value, unit).split(' ').map(moved).collect();
                format!("{key}={}", words.join(" "))
            }
            None => setting.clone(),
        })
        .collect();
    if !directories.is_empty() {
        let names: Vec<_> = directories.iter().map(|name| own(name)).collect();
        result.push(format!("RuntimeDirectory={}", names.join(" ")));
    }
    // what the configuration comes to is that of the service, which may write there
    for ((key, place), variable) in PLACES.into_iter().zip(DIRECTORIES) {
        let value = value(key);
        let paths: Vec<_> = value.split_whitespace().map(|name| format!("{place}/{name}")).collect();
        // those of a dynamic user, which others can't reach: shown as systemd shows them to the service
        let hidden = value.split_whitespace().map(|name| format!("{place}/private/{name}"));
        let hidden: Vec<_> = hidden.filter(|path| Path::new(path).is_dir()).collect();
        if !hidden.is_empty() {
            result.push(format!("TemporaryFileSystem={place}/private:ro"));
            result.extend(hidden.iter().map(|path| format!("BindReadOnlyPaths={path}")));
        }
        if !paths.is_empty() {
            result.push(format!("Environment={variable}={}", paths.join(":")));
        }
    }
    result
}

/// Puts in what specifiers stand for in a unit of this name: systemd.unit(5).
fn expand(value: &str, unit: &str) -> String {
    let name = unit.rsplit_once('.').map_or(unit, |(name, _)| name);
    let (prefix, instance) = name.split_once('@').unwrap_or((name, ""));
    let mut parts = value.split('%');
    let mut text = parts.next().unwrap_or_default().to_owned();
    while let Some(part) = parts.next() {
        let (specifier, rest) = part.split_at(part.chars().next().map_or(0, char::len_utf8));
        match specifier {
            "i" | "I" => text += instance,
            "p" | "P" => text += prefix,
            "n" => text += unit,
            "N" => text += name,
            "t" => text += "/run",
            "S" => text += "/var/lib",
            "C" => text += "/var/cache",
            "L" => text += "/var/log",
            // "%%"
            "" => text = text + "%" + parts.next().unwrap_or_default(),
            other => text = text + "%" + other,
        }
        text += rest;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_are_those_of_the_service_and_its_drop_ins() {
        let text = "# /lib/x.service\n[Unit]\nA=1\n[Service]\nB = 2 \\\n# not this\n  3\n;C=4\n\n[Install]\nD=5\n\
                    # /etc/x.service.d/y.conf\n[Service]\nB=\nE=a=b\n";
        assert_eq!(settings(text), ["B=2  3", "B=", "E=a=b"]);
    }

    #[test]
    fn a_check_gets_what_confines_the_service_and_a_directory_of_its_own() {
        let settings = [
            "Type=notify",
            "ExecStart=x",
            "RuntimeDirectory=forkd-%i",
            "NoExecPaths=/ -%t/forkd-%i /run/forkd",
            "StateDirectory=%p",
        ];
        let settings = settings.map(str::to_owned);
        let own = format!("forkd-lab-check-{}", std::process::id());
        let expected = [
            format!("NoExecPaths=/ -/run/{own} /run/forkd"),
            format!("RuntimeDirectory={own}"),
            "Environment=RUNTIME_DIRECTORY=/run/forkd-lab".into(),
            "Environment=STATE_DIRECTORY=/var/lib/forkd".into(),
        ];
        assert_eq!(for_a_check(&settings, "forkd@lab.service"), expected);
        assert_eq!(for_a_check(&["ExecPaths=/a".into()], "x.service"), ["ExecPaths=/a"]);
    }

    #[test]
    fn specifiers_are_those_of_the_unit() {
        assert_eq!(
            expand("%p %i %n %N %t%S %%i %h 5%", "a@b.service"),
            "a b a@b.service a@b /run/var/lib %i %h 5%"
        );
    }

    #[test]
    fn the_command_is_that_of_the_service() {
        let shown =
            "{ path=/usr/bin/forkd ; argv[]=/usr/bin/forkd serve --config /x ; ignore_errors=no ; pid=0 }";
        assert_eq!(command(shown).unwrap(), ["/usr/bin/forkd", "check", "--config", "/x"]);
        assert!(command("{ path=/bin/sh ; argv[]=/bin/sh -c x ; }").is_none() && command("").is_none());
    }
}
