//! The page of all options, docs/reference/options.md, from their definitions.

use clap::{Args, Command};
use forkd::cli::man::{in_file, value};
use forkd::config::definition::{Definition, Table};
use forkd::config::options::{DaemonOptions, ListenOptions};

const INTRODUCTION: &str = "\
# Options of forkd serve

Each option of `forkd serve` and `forkd check` can be given on the command line, by a variable of the environment, or by
a key in the file that `--config FILE` (`FORKD_CONFIG`) names; the command line beats the environment, the environment
beats the file, and the file beats the default. An option that has no effect where it is given is an error, and so is an
impossible value. The [guide](../GUIDE.md#command-line) says how to write a value in each place.

This page is made of their definitions: `FORKD_BLESS=1 cargo test --test package_files` writes it anew.
";

/// Makes the page.
pub(super) fn options() -> String {
    let mut page = INTRODUCTION.to_owned();
    page += "\n## What is served: `[[listen]]`\n\nA reload puts a new value in force.\n";
    page += &tables::<ListenOptions>(&mut ListenOptions::augment_args(Command::new("listen")), false);
    page += "\n## The whole process: `[daemon]`\n";
    page += &tables::<DaemonOptions>(&mut DaemonOptions::augment_args(Command::new("daemon")), true);
    page
}

/// A table for each group of options.
fn tables<T: Table>(command: &mut Command, may_need_restart: bool) -> String {
    let mut text = String::new();
    let mut heading = None;
    for option in T::DEFINITIONS {
        if heading != Some(option.heading) {
            heading = Some(option.heading);
            let title = if option.heading.is_empty() { "Endpoints" } else { option.heading };
            let last = if may_need_restart { "changed by" } else { "has an effect with" };
            text += &format!(
                "\n### {title}\n\n| option, key, variable | meaning | values | default | {last} |\n|---|---|---|---|---|\n"
            );
        }
        text += &row(command, option, may_need_restart);
    }
    text
}

fn row(command: &Command, option: &Definition, may_need_restart: bool) -> String {
    let Some(arg) = command.get_arguments().find(|arg| arg.get_id() == option.id) else {
        return String::new();
    };
    let value = value(arg);
    let name = arg.get_long().map_or_else(String::new, |long| format!("--{long} "));
    let written = [
        format!("{name}{value}").trim_end().to_owned(),
        format!("{} = {}", option.key(), in_file(arg)),
        option.variable(),
    ];
    let default = match (option.otherwise, option.default) {
        ("", Some(text)) => format!("`{}`", text()),
        (otherwise, _) => otherwise.to_owned(),
    };
    let last = match may_need_restart {
        true if option.reload => "a reload",
        true => "a restart",
        false => option.needs.map_or("any", |need| need.what),
    };
    let written = written.map(|text| format!("`{text}`")).join("<br>");
    let cells = [written, format!("{}.", option.help.trim()), values(arg, option), default, last.to_owned()];
    format!("| {} |\n", cells.map(|cell| cell.replace('|', "\\|")).join(" | "))
}

/// What it can be.
fn values(arg: &clap::Arg, option: &Definition) -> String {
    let choices = arg.get_possible_values();
    let names: Vec<_> = choices.iter().map(|choice| format!("`{}`", choice.get_name())).collect();
    match (&option.range, option.value) {
        (_, "") => "`true`, `false`".to_owned(),
        (Some(range), _) if *range.end() == u64::MAX => format!("{} or more", range.start()),
        (Some(range), _) => format!("{} to {}", range.start(), range.end()),
        (None, _) => names.join(", "),
    }
}
