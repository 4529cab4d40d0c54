//! `forkd man` and `forkd completions`: what they print agrees with the program, and is what its readers understand.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use clap::CommandFactory;
use common::*;
use forkd::cli::args::Cli;

/// What a command that can't fail prints.
#[track_caller]
fn printed(args: &[&str]) -> String {
    let ended = run(args);
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "{args:?}");
    ended.stdout
}

/// A manual page without the marks of roff(7).
fn page(name: &str) -> String {
    let source = printed(&["man", name]);
    ["\\fB", "\\fR", "\\&"].iter().fold(source, |text, mark| text.replace(mark, "")).replace("\\-", "-")
}

/// All long options of all commands, with two dashes.
fn options() -> BTreeSet<String> {
    let mut cli = Cli::command();
    cli.build();
    let commands = cli.get_subcommands().flat_map(clap::Command::get_arguments);
    let options: BTreeSet<_> = commands.filter_map(|arg| Some(format!("--{}", arg.get_long()?))).collect();
    assert!(options.contains("--max-children") && options.contains("--json"));
    options
}

#[test]
fn the_manual_and_the_completions_have_every_option() {
    let (page, of) = (page("forkd.1"), |shell| (shell, printed(&["completions", shell])));
    let scripts = [of("bash"), of("zsh"), of("fish")];
    for option in options() {
        let is_its_term = |line: &str| line.split([' ', ',']).any(|word| word == option);
        assert!(page.lines().any(|line| line.starts_with('-') && is_its_term(line)), "{option} in\n{page}");
        for (shell, script) in &scripts {
            let name = if *shell == "fish" { &option[2..] } else { &option };
            assert!(script.contains(name), "{option} for {shell}");
        }
    }
    for command in Cli::command().get_subcommands() {
        assert!(page.contains(&format!(".SS \"forkd {}\"", command.get_name())), "{page}");
    }
}

#[test]
fn the_manual_has_the_variable_of_every_option() {
    let page = page("forkd.1");
    let (_, environment) = page.split_once("ENVIRONMENT").unwrap();
    let names: BTreeSet<_> = environment.split([' ', ',', '\n']).collect();
    let serve = Cli::command().find_subcommand("serve").unwrap().clone();
    // how standard input is served is no configuration, and what is hidden is no option of the user's
    let is_option = |option: &&clap::Arg| option.get_id() != "inetd" && !option.is_hide_set();
    for option in serve.get_arguments().filter(is_option) {
        let variable = format!("FORKD_{}", option.get_id().as_str().to_uppercase());
        assert!(names.contains(&*variable), "{variable} in\n{page}");
    }
}

#[test]
fn the_manual_has_the_exit_codes_and_signals_of_the_guide() {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/GUIDE.md");
    let (page, guide) = (page("forkd.1"), fs::read_to_string(guide).unwrap());
    let rows = |heading: &str| {
        let (_, section) = guide.split_once(heading).unwrap();
        let section = section.split("\n## ").next().unwrap();
        let cells = section.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
        cells.skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    let (codes, signals) = (rows("## Exit codes"), rows("## Signals"));
    assert!(codes.len() > 5 && signals.len() > 3, "{codes:?} {signals:?}");
    let terms = codes.iter().map(String::as_str).chain(signals.iter().flat_map(|row| row.split(", ")));
    for term in terms {
        let is_term = |line: &str| line.split(", ").any(|word| word == term);
        assert!(page.lines().any(is_term), "{term} in\n{page}");
    }
}

#[test]
fn all_pages_are_written_where_man_looks_for_them() {
    let dir = tempfile::tempdir().unwrap();
    // it is made, as ~/.cargo/share/man has to be
    let root = dir.path().join("share/man");
    let said = printed(&["man", "--dir", root.to_str().unwrap()]);
    let paths = [root.join("man1/forkd.1"), root.join("man5/forkd.toml.5")];
    assert_eq!(said, paths.each_ref().map(|path| format!("{}\n", path.display())).concat());
    let pages = paths.map(|path| fs::read_to_string(path).unwrap());
    assert_eq!(pages, [printed(&["man"]), printed(&["man", "forkd.toml.5"])]);

    fs::write(dir.path().join("file"), "").unwrap();
    let ended = run(&["man", "--dir", dir.path().join("file").to_str().unwrap()]);
    assert_eq!((ended.code, &*ended.stdout), (Some(73), ""), "{ended:?}");
    assert!(
        ended.stderr.contains("error: cannot write ") && ended.stderr.contains("file/man1/forkd.1"),
        "{ended:?}"
    );
}

/// What a program says of a text at its standard input, and whether it ended well.
fn read_by(reader: &[&str], text: &str) -> (bool, String) {
    let mut command = Command::new(reader[0]);
    command.args(&reader[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    // one that refuses it may end before it has read all
    let _ = input.write_all(text.as_bytes());
    drop(input);
    let output = child.wait_with_output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[test]
fn every_page_is_correct_for_mandoc() {
    if !need_tool("mandoc") {
        return;
    }
    for name in ["forkd.1", "forkd.toml.5"] {
        let (_, said) = read_by(&["mandoc", "-T", "lint", "-W", "warning"], &printed(&["man", name]));
        // pages have no date, so that the same source gives the same page
        let complaints: Vec<_> = said.lines().filter(|line| !line.contains("cannot parse date")).collect();
        assert!(complaints.is_empty(), "{name}: {complaints:#?}");
    }
}

#[test]
fn each_shell_reads_its_script() {
    for shell in ["bash", "zsh", "fish"] {
        if !need_tool(shell) {
            continue;
        }
        let script = printed(&["completions", shell]);
        assert_eq!(read_by(&[shell, "-n"], &script), (true, String::new()), "{shell}");
        // a script that is cut off is none
        let (is_read, _) = read_by(&[shell, "-n"], &format!("{script}\nif true\n"));
        assert!(!is_read, "{shell} takes anything");
    }
}

#[test]
fn bash_completes_commands_and_options() {
    let script = printed(&["completions", "bash"]);
    let asked = |words: &str, at: usize| {
        let ask = format!(
            "{script}\nCOMP_WORDS=({words}) COMP_CWORD={at}\n_forkd forkd \"${{COMP_WORDS[{at}]}}\" \"${{COMP_WORDS[{at}-1]}}\"\n\
             printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        read_by(&["bash"], &ask).1
    };
    assert_eq!(asked("forkd comp", 1), "compare\ncompletions\n");
    assert_eq!(asked("forkd serve --max-ch", 2), "--max-children\n");
    assert_eq!(asked("forkd man f", 2), "forkd.1\nforkd.toml.5\n");
}
