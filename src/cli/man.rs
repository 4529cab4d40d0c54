//! `forkd man`: the manual pages, for a program that no package has installed.
//!
//! Invariant: a page is made of the definitions that `--help` and the configuration file are made of, and of nothing on
//! this machine: the same program writes the same page everywhere.

mod pages;
mod prose;
mod roff_page;

use std::fs;

use super::args::{ManArgs, Page};
use super::terminal::write;
use crate::config::choice::Choice;
use crate::{Error, Failure};
pub use pages::{in_file, value};

/// Prints a page, or writes all below a directory of manual pages.
///
/// # Errors
///
/// [`Error::CannotCreate`] if a page can't be written; [`Error::Os`] if the output can't.
pub fn run(args: &ManArgs) -> Result<(), Error> {
    let Some(root) = &args.dir else { return write(&source(args.page)).map(|_| ()) };
    for &page in Page::ALL {
        let section = page.name().rsplit('.').next().unwrap_or_default();
        let directory = root.join(format!("man{section}"));
        let path = directory.join(page.name());
        fs::create_dir_all(&directory)
            .and_then(|()| fs::write(&path, source(page)))
            .map_err(|cause| Failure::new(format!("cannot write {}", path.display()), cause))
            .map_err(Error::CannotCreate)?;
        write(&format!("{}\n", path.display()))?;
    }
    Ok(())
}

/// Makes the source of a page, in roff(7).
#[must_use]
pub fn source(page: Page) -> String {
    match page {
        Page::Program => pages::program(),
        Page::Configuration => pages::configuration(),
    }
}
