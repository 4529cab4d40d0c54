//! What variables of the environment say: each option has one, `FORKD_MAX_CHILDREN` for `--max-children`.
//!
//! Invariant: a variable means what the same text means on the command line, and is refused with the same sentence; an
//! empty one means nothing. A flag is `true` or `false`; a list has its parts between blanks, or in brackets as in the
//! file.

use std::error::Error as _;
use std::ffi::{OsStr, OsString};

use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgAction, Args, Command, FromArgMatches};
use serde::Deserialize;

use super::definition::Origin;
use super::options::ServeOptions;
use super::values::Value;
use crate::Error;

const PREFIX: &str = "FORKD_";

/// Reads them; and says which of those that look like forkd's are none.
pub(super) fn read(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<(ServeOptions, Vec<String>), Error> {
    let is_ours = |(name, value): &(OsString, OsString)| {
        name.to_str().is_some_and(|name| name.starts_with(PREFIX)) && !value.is_empty()
    };
    let mut ours = variables.into_iter().filter(is_ours).peekable();
    let (mut options, mut unknown) = (ServeOptions::default(), Vec::new());
    if ours.peek().is_none() {
        return Ok((options, unknown));
    }
    let mut command = ServeOptions::augment_args(Command::new("forkd")).no_binary_name(true).mut_args(valued);
    for (name, value) in ours {
        let name = name.to_string_lossy();
        let is_its = |arg: &&Arg| Origin::Environment.name(arg.get_id().as_str()) == name;
        let arg = command.get_arguments().find(is_its).cloned();
        match arg {
            Some(arg) => {
                let said = parse(&mut command, words_for(&arg, &value));
                options = options.over(said.map_err(|why| Error::Usage(format!("{name}: {why}")))?);
            }
            None if is_of_others(&name) => {}
            None => unknown.push(no_option(&mut command, &name)),
        }
    }
    Ok((options, unknown))
}

/// A flag takes a value here.
fn valued(arg: Arg) -> Arg {
    match arg.get_action() {
        ArgAction::SetTrue => arg.action(ArgAction::Set).value_parser(bool::parser()),
        _ => arg,
    }
}

/// How a value of this option is written on a command line.
fn words_for(arg: &Arg, value: &OsStr) -> Vec<OsString> {
    let is_list = matches!(arg.get_action(), ArgAction::Append);
    let values = if is_list { list(value) } else { vec![value.to_owned()] };
    let Some(name) = arg.get_long() else {
        return std::iter::once("--".into()).chain(values).collect();
    };
    let word = |value| {
        let mut word = OsString::from(format!("--{name}="));
        word.push(value);
        word
    };
    values.iter().map(word).collect()
}

/// Takes a list apart.
fn list(value: &OsStr) -> Vec<OsString> {
    #[derive(Deserialize)]
    struct Table {
        list: Vec<String>,
    }
    let Some(text) = value.to_str() else { return vec![value.to_owned()] };
    match toml::from_str(&format!("list = {text}")) {
        Ok(Table { list }) if text.starts_with('[') => list.into_iter().map(OsString::from).collect(),
        _ => text.split_whitespace().map(OsString::from).collect(),
    }
}

/// Reads the value of one option.
fn parse(command: &mut Command, words: Vec<OsString>) -> Result<ServeOptions, String> {
    let matches = command.try_get_matches_from_mut(words).map_err(|error| why(&error))?;
    ServeOptions::from_arg_matches(&matches).map_err(|error| why(&error))
}

/// What clap says of a value, without the option that it stands for here.
fn why(error: &clap::Error) -> String {
    if let Some(cause) = error.source() {
        return cause.to_string();
    }
    match (error.get(ContextKind::InvalidValue), error.get(ContextKind::ValidValue)) {
        (Some(ContextValue::String(value)), Some(ContextValue::Strings(all))) => {
            format!("invalid value '{value}' [possible values: {}]", all.join(", "))
        }
        _ => "its value is no text in UTF-8".to_owned(),
    }
}

/// `FORKD_PORTABLE` chooses portable means. Kubernetes tells each container of the services of its namespace by
/// variables; one that is called forkd has `FORKD_SERVICE_HOST`, `FORKD_PORT_7007_TCP` and their like.
fn is_of_others(name: &str) -> bool {
    let rest = &name[PREFIX.len()..];
    rest == "PORTABLE"
        || rest == "PORT"
        || ["PORT_", "SERVICE_HOST", "SERVICE_PORT"].iter().any(|start| rest.starts_with(start))
}

/// Says that no option has this variable, and which one may be meant.
fn no_option(command: &mut Command, name: &str) -> String {
    let option = name[PREFIX.len()..].to_lowercase().replace('_', "-");
    let error = command.try_get_matches_from_mut([format!("--{option}")]).err();
    let similar = error.as_ref().and_then(|error| match error.get(ContextKind::SuggestedArg)? {
        ContextValue::String(option) => Some(Origin::Environment.name(option.trim_start_matches('-'))),
        _ => None,
    });
    let similar = similar.map(|similar| format!(" (is {similar} meant?)")).unwrap_or_default();
    format!("no option has the variable {name}{similar}, so it has no effect")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::options::{DaemonOptions, ListenOptions};
    use crate::config::values::Span;
    use std::time::Duration;

    fn read(variables: &[(&str, &str)]) -> Result<(ServeOptions, Vec<String>), String> {
        let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
        super::read(variables).map_err(|error| error.to_string())
    }

    fn options(variables: &[(&str, &str)]) -> (ListenOptions, DaemonOptions) {
        let (ServeOptions { listen, daemon, .. }, unknown) = read(variables).unwrap();
        assert_eq!(unknown, [""; 0]);
        (listen, daemon)
    }

    #[test]
    fn each_option_has_a_variable() {
        let (listen, daemon) = options(&[
            ("FORKD_GRACE", "5s"),
            ("FORKD_MAX_CHILDREN", "7"),
            ("FORKD_ENDPOINTS", " tcp://a:1  unix:///x "),
            ("FORKD_MODEL", "event"),
            ("FORKD_UMASK", ""),
            ("GRACE", "6s"),
        ]);
        assert_eq!(daemon, DaemonOptions { grace: Some(Span(Duration::from_secs(5))), ..Default::default() });
        let endpoints: Vec<_> = listen.endpoints.iter().map(ToString::to_string).collect();
        assert_eq!((listen.max_children, listen.model().name()), (Some(7), "event"));
        assert_eq!(endpoints, ["tcp://a:1", "unix:///x"]);
        let (said, _) = read(&[("FORKD_CONFIG", "f.toml")]).unwrap();
        assert_eq!(said.config, Some("f.toml".into()));
    }

    #[test]
    fn a_flag_is_true_or_false() {
        let flag = |value| options(&[("FORKD_V6ONLY", value)]).0.v6only;
        assert_eq!(
            ["true", "1", "false", "0", ""].map(flag),
            [Some(true), Some(true), Some(false), Some(false), None]
        );
        assert_eq!(
            read(&[("FORKD_DAEMON", "maybe")]).unwrap_err(),
            "FORKD_DAEMON: \"maybe\" is neither true nor false"
        );
    }

    #[test]
    fn a_list_can_be_written_as_in_the_file() {
        let exec = |value| options(&[("FORKD_EXEC", value)]).0.exec;
        assert_eq!(exec("cat -u --"), ["cat", "-u", "--"]);
        assert_eq!(exec(r#"["sh", "-c", "echo 'a b'"]"#), ["sh", "-c", "echo 'a b'"]);
        assert_eq!(exec("[ -f x ]"), ["[", "-f", "x", "]"]);
        let (listen, _) = options(&[("FORKD_ROUTE", r#"["/a=A b", "/c=d"]"#)]);
        assert_eq!(listen.route.iter().map(ToString::to_string).collect::<Vec<_>>(), ["/a=A b", "/c=d"]);
    }

    #[test]
    fn a_mistake_names_the_variable() {
        for (name, value, expected) in [
            ("FORKD_GRACE", "10", "FORKD_GRACE: 10 has no unit; add a unit: 10s, 10ms or 10m"),
            ("FORKD_BACKLOG", "-1", "FORKD_BACKLOG: \"-1\" is not a whole number; write one like 8"),
            ("FORKD_ENDPOINTS", "8080", "FORKD_ENDPOINTS: endpoint \"8080\" has no scheme"),
            (
                "FORKD_LOG_FORMAT",
                "xml",
                "FORKD_LOG_FORMAT: invalid value 'xml' [possible values: text, json]",
            ),
        ] {
            let error = read(&[(name, value)]).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
        use std::os::unix::ffi::OsStringExt;
        let odd = OsString::from_vec(b"\xff".to_vec());
        let error = super::read([("FORKD_USER".into(), odd)]).unwrap_err();
        assert_eq!(
            (error.exit_code(), error.to_string().as_str()),
            (64, "FORKD_USER: its value is no text in UTF-8")
        );
    }

    #[test]
    fn what_is_no_variable_of_an_option_is_told_but_for_those_of_others() {
        let (_, unknown) = read(&[
            ("FORKD_PORTABLE", "1"),
            ("FORKD_PORT_7007_TCP_ADDR", "10.0.0.1"),
            ("FORKD_SERVICE_HOST", "10.0.0.1"),
            ("FORKD_MAX_CHILDERN", "3"),
        ])
        .unwrap();
        assert_eq!(
            unknown,
            [
                "no option has the variable FORKD_MAX_CHILDERN (is FORKD_MAX_CHILDREN meant?), so it has no effect"
            ]
        );
    }
}
