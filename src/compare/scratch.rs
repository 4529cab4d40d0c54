//! A place for the files of a server.

use std::fs;
use std::path::PathBuf;

use crate::Error;

/// A directory that nobody else may look into, and that goes when this does.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new() -> Result<Self, Error> {
        let template = std::env::temp_dir().join("forkd-compare-XXXXXX");
        let made = nix::unistd::mkdtemp(&template);
        made.map(Self).map_err(|errno| Error::os(format!("cannot create {}", template.display()), errno))
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
