//! The program that servers are started from: a copy of this one.
//!
//! Pages of a file are shared by all processes that run it, so a server would share some with the very program that measures
//! it, and its part of them (PSS) would grow with its processes. Of a copy it has all for itself.

use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

use super::scratch::Scratch;
use forkd_net::Error;

/// The copy; it goes when this is dropped.
#[derive(Debug)]
pub(super) struct Copy {
    path: PathBuf,
    _scratch: Scratch,
}

impl Copy {
    /// Makes one; where no copy can be run, it is this very program.
    pub(super) fn new() -> Result<Self, Error> {
        let ours =
            std::env::current_exe().map_err(|cause| Error::os("cannot find this program's file", cause))?;
        let scratch = Scratch::new()?;
        let copy = scratch.path("forkd");
        let copied = std::fs::copy(&ours, &copy);
        // not where programs may not be run: access(2), EACCES
        let may_run = copied.is_ok() && access(&copy, AccessFlags::X_OK).is_ok();
        let path = if may_run { copy } else { ours };
        Ok(Self { path, _scratch: scratch })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}
