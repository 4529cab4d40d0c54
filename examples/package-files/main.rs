//! Writes the files of a package that follow from the source: manual pages, shell completions, documents.
//!
//!     cargo run --example package-files -- target/package
//!
//! The pages and completions are those that `forkd man` and `forkd completions` print. A program of its own writes
//! them, since the one that is packaged may be for another machine.

mod documents;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use clap_complete::Shell;
use forkd::cli::args::Page;
use forkd::cli::{completions, man};
use forkd::config::choice::Choice;

fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::args_os().nth(1).map(PathBuf::from);
    let directory = directory.ok_or("name the directory to write to, such as target/package")?;
    write_all(&directory).map_err(|error| format!("cannot write to {}: {error}", directory.display()).into())
}

fn write_all(directory: &Path) -> std::io::Result<()> {
    fs::create_dir_all(directory)?;
    for &page in Page::ALL {
        fs::write(directory.join(page.name()), man::source(page))?;
    }
    for (shell, name) in [(Shell::Bash, "forkd.bash"), (Shell::Zsh, "_forkd"), (Shell::Fish, "forkd.fish")] {
        fs::write(directory.join(name), completions::script(shell))?;
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
