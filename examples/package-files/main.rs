//! Writes the files of a package that follow from the source: manual pages, shell completions, documents.
//!
//!     cargo run --example package-files -- target/package
//!
//! They are made of the definitions that `--help` and the configuration file are made of, by a program of
//! its own: what only a package needs is not in the daemon, whose children would carry it.

mod documents;
mod pages;
mod prose;
mod reference;
mod roff_page;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use clap_complete::{Shell, generate_to};
use forkd::cli::args::Cli;

fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::args_os().nth(1).map(PathBuf::from);
    let directory = directory.ok_or("name the directory to write to, such as target/package")?;
    write_all(&directory).map_err(|error| format!("cannot write to {}: {error}", directory.display()).into())
}

fn write_all(directory: &Path) -> std::io::Result<()> {
    fs::create_dir_all(directory)?;
    fs::write(directory.join("forkd.1"), pages::program())?;
    fs::write(directory.join("forkd.toml.5"), pages::configuration())?;
    fs::write(directory.join("options.md"), reference::options())?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut Cli::command(), "forkd", directory)?;
    }
    write_documents(Path::new(env!("CARGO_MANIFEST_DIR")), directory)
}

/// Writes each document of the repository that a package has, at the same path.
fn write_documents(repository: &Path, directory: &Path) -> std::io::Result<()> {
    let package = documents::Package::of(&fs::read_to_string(repository.join("Cargo.toml"))?)
        .ok_or_else(|| std::io::Error::other("Cargo.toml has no assets of a package"))?;
    for document in package.documents(repository)? {
        let text = fs::read_to_string(repository.join(&document))?;
        let to = directory.join(&document);
        fs::create_dir_all(to.parent().unwrap_or(directory))?;
        fs::write(to, package.relink(&document, &text))?;
    }
    Ok(())
}
