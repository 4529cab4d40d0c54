//! The two manual pages: forkd(1) from the command line's grammar, forkd.toml(5) from the structs that
//! the file is read into.

use clap::{Arg, ArgAction, Args, Command, CommandFactory};

use super::prose;
use super::roff_page::Page;
use crate::cli::args::Cli;
use crate::config::definition::{Definition, Table};
use crate::config::options::{DaemonOptions, ListenOptions};

/// Makes forkd(1).
pub(super) fn program() -> String {
    let mut forkd = Cli::command();
    forkd.build();
    let mut commands: Vec<Command> =
        forkd.get_subcommands().filter(|c| c.get_name() != "help").cloned().collect();
    let usages: Vec<String> = commands.iter_mut().map(usage).collect();

    let about = forkd.get_about().map(ToString::to_string).unwrap_or_default();
    let mut page = Page::new("forkd", "1", &lower_first(&about));
    page.section("SYNOPSIS");
    page.synopsis(usages.iter().map(String::as_str));
    page.section("DESCRIPTION");
    prose::DESCRIPTION.iter().for_each(|paragraph| page.paragraph(paragraph));

    page.section("COMMANDS");
    for (index, command) in commands.iter().enumerate() {
        page.subsection(&format!("forkd {}", command.get_name()));
        page.paragraph(&format!("{}.", command.get_about().map(ToString::to_string).unwrap_or_default()));
        let shared = |other: &Command| own(command).filter(|arg| has(other, arg)).count();
        match commands[..index].iter().find(|other| shared(other) * 2 > own(command).count()) {
            Some(other) => {
                let more = own(other).filter(|arg| !has(command, arg)).filter_map(Arg::get_long);
                let more: String = more.map(|long| format!(", but not --{long}")).collect();
                page.paragraph(&format!("Takes what forkd {} takes{more}.", other.get_name()));
                own(command).filter(|arg| !has(other, arg)).for_each(|arg| option(&mut page, arg));
            }
            None => own(command).for_each(|arg| option(&mut page, arg)),
        }
    }
    page.section("OPTIONS");
    forkd.get_arguments().for_each(|arg| option(&mut page, arg));

    page.section("EXIT STATUS");
    page.entries(prose::EXIT_STATUS);
    page.section("SIGNALS");
    page.paragraph("To the parent process:");
    page.entries(prose::SIGNALS);
    page.section("ENVIRONMENT");
    page.paragraph(prose::VARIABLES);
    page.paragraph(&variables().collect::<Vec<_>>().join(", "));
    page.entries(prose::ENVIRONMENT);
    page.section("FILES");
    page.entries(prose::FILES);
    page.section("EXAMPLES");
    for command in std::iter::once(&forkd).chain(&commands) {
        let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let lines: Vec<_> = examples.lines().skip(1).map(str::trim_start).collect();
        page.lines(&lines.join("\n"));
    }
    page.section("SEE ALSO");
    page.paragraph("forkd.toml(5), nc(1), systemctl(1), systemd.socket(5), signal(7), RFC 862");
    page.render()
}

/// Makes forkd.toml(5).
pub(super) fn configuration() -> String {
    let mut page = Page::new("forkd.toml", "5", "configuration of the echo daemon forkd");
    page.section("SYNOPSIS");
    page.synopsis(["/etc/forkd/forkd.toml", "/etc/forkd/NAME.toml"]);
    page.section("DESCRIPTION");
    prose::CONFIGURATION.iter().for_each(|paragraph| page.paragraph(paragraph));
    for (title, options) in [
        ("[daemon]", DaemonOptions::augment_args(Command::new("daemon"))),
        ("[[listen]]", ListenOptions::augment_args(Command::new("listen"))),
    ] {
        page.section(title);
        options.get_arguments().for_each(|arg| key(&mut page, arg));
    }
    page.section("ENVIRONMENT");
    page.paragraph(prose::VARIABLE_OF_A_KEY);
    page.section("EXAMPLE");
    page.lines(prose::CONFIGURATION_EXAMPLE);
    page.section("SEE ALSO");
    page.paragraph(&format!("forkd(1), systemd.socket(5), {}", prose::SYSTEMD));
    page.render()
}

/// The variables of the options.
fn variables() -> impl Iterator<Item = String> {
    let options = ListenOptions::DEFINITIONS.iter().chain(DaemonOptions::DEFINITIONS);
    options.map(Definition::variable).chain(["FORKD_CONFIG".to_owned()])
}

fn usage(command: &mut Command) -> String {
    command.render_usage().to_string().trim_start_matches("Usage: ").trim_end().to_owned()
}

/// The arguments of a command but `--help`, which every command has.
fn own(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|arg| arg.get_id() != "help")
}

/// Tells whether the command has this argument, with the same meaning.
fn has(command: &Command, arg: &Arg) -> bool {
    command.get_arguments().any(|other| other.get_id() == arg.get_id() && help(other) == help(arg))
}

/// Writes an option of the command line.
fn option(page: &mut Page, arg: &Arg) {
    let value = value(arg);
    let short = arg.get_short().map(|short| format!("-{short}"));
    let long = arg.get_long().map(|long| format!("--{long}"));
    let value = if value.is_empty() { value } else { format!(" {value}") };
    let term: &[&str] = match (&short, &long) {
        (Some(short), Some(long)) => &[short, ", ", long, &value],
        (Some(name), None) | (None, Some(name)) => &[name, &value],
        (None, None) => &["", value.trim_start()],
    };
    page.entry(term, &help(arg));
}

/// Writes a key of the configuration file.
fn key(page: &mut Page, arg: &Arg) {
    let name = arg.get_long().map_or_else(|| arg.get_id().to_string(), ToOwned::to_owned);
    page.entry(&[&name, &format!(" = {}", in_file(arg))], &help(arg));
}

/// Returns how a value is written in the file.
#[must_use]
pub fn in_file(arg: &Arg) -> String {
    let is_list = matches!(arg.get_action(), ArgAction::Append);
    match value(arg).as_str() {
        "" => "true|false".to_owned(),
        number @ "N" => number.to_owned(),
        "N|MIN..MAX|auto" => "N|\"MIN..MAX\"|\"auto\"".to_owned(),
        "PROGRAM ARGS" => "[\"PROGRAM\", \"ARG\", ...]".to_owned(),
        text if is_list => format!("[\"{text}\", ...]"),
        choice if choice.contains('|') => format!("\"{}\"", choice.replace('|', "\"|\"")),
        text => format!("\"{text}\""),
    }
}

/// Returns the name of an option's value; nothing for one that is only there or not.
#[must_use]
pub fn value(arg: &Arg) -> String {
    if !arg.get_action().takes_values() {
        return String::new();
    }
    arg.get_value_names().unwrap_or_default().join(" ")
}

/// Returns the help text as a sentence.
fn help(arg: &Arg) -> String {
    let text = arg.get_help().map(ToString::to_string).unwrap_or_default();
    match text.split_once(" [default: ") {
        Some((text, default)) => format!("{text}. Default: {}.", default.trim_end_matches(']')),
        None => format!("{text}."),
    }
}

fn lower_first(text: &str) -> String {
    let mut letters = text.trim_end_matches('.').chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}
