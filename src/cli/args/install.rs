//! The grammar of `forkd man` and `forkd completions`, which make what a package would install beside the program.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

use crate::config::choice::{choices, one_of};

pub(super) const MAN_EXAMPLES: &str = "\
Examples:
  forkd man | man -l -                                 read forkd(1)
  forkd man forkd.toml.5 | man -l -                    read forkd.toml(5)
  sudo forkd man --dir /usr/local/share/man            install both for everybody
  forkd man --dir ~/.cargo/share/man                   or for yourself, after cargo install";

pub(super) const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  forkd completions bash > ~/.local/share/bash-completion/completions/forkd
  forkd completions fish > ~/.config/fish/completions/forkd.fish
  sudo sh -c 'forkd completions zsh > /usr/local/share/zsh/site-functions/_forkd'";

/// The options of `man`.
#[derive(Debug, Clone, Args)]
pub struct ManArgs {
    /// Page to print, as the source that man(1) and mandoc(1) read
    #[arg(value_name = "PAGE", value_parser = one_of::<Page>(), default_value = "forkd.1")]
    pub page: Page,

    /// Write all pages below this directory instead, as DIR/man1/forkd.1 and DIR/man5/forkd.toml.5
    #[arg(long, value_name = "DIR", conflicts_with = "page")]
    pub dir: Option<PathBuf>,
}

choices! {
    /// A page of the manual.
    pub enum Page {
        /// The program: commands, options, signals, exit codes
        Program = "forkd.1",
        /// The configuration file
        Configuration = "forkd.toml.5",
    }
}

/// The options of `completions`.
#[derive(Debug, Clone, Args)]
pub struct CompletionsArgs {
    /// Shell to print the script for
    #[arg(value_name = "SHELL", value_enum)]
    pub shell: Shell,
}
