//! A place for the files of a server.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Once;

use forkd_net::Error;

/// What our directories' names begin with; the process id follows.
const PREFIX: &str = "forkd-compare-";

/// A directory that no other user may look into, and that goes when this does. One that a killed program has left goes when
/// the next one is made.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes one.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] if the directory for temporary files can't have another one.
    pub fn new() -> Result<Self, Error> {
        static FIRST: Once = Once::new();
        let dir = std::env::temp_dir();
        FIRST.call_once(|| remove_stale(&dir));
        let template = dir.join(format!("{PREFIX}{}-XXXXXX", std::process::id()));
        let made = nix::unistd::mkdtemp(&template);
        made.map(Self).map_err(|errno| Error::os(format!("cannot create {}", template.display()), errno))
    }

    /// Returns where in it a file of this name is, or would be.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Removes those of comparisons of this user that were killed.
fn remove_stale(dir: &Path) {
    let us = nix::unistd::geteuid().as_raw();
    for entry in fs::read_dir(dir).into_iter().flatten().map_while(Result::ok) {
        let name = entry.file_name();
        let whose = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split_once('-')?.0.parse().ok());
        // of the entry itself: what a link leads to is not ours to remove
        let is_ours = entry.metadata().is_ok_and(|meta| meta.is_dir() && meta.uid() == us);
        if is_ours && whose.is_some_and(is_gone) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn is_gone(process: i32) -> bool {
    // 0 and less would be groups
    process > 0
        && nix::sys::signal::kill(nix::unistd::Pid::from_raw(process), None) == Err(nix::errno::Errno::ESRCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_directories_of_comparisons_that_are_gone_are_removed() {
        let mut ended = std::process::Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let name = |process: u32, rest: &str| dir.path().join(format!("{PREFIX}{process}-{rest}"));
        let (stale, alive) = (name(ended.id(), "a"), name(std::process::id(), "b"));
        let (other, file, link) =
            (dir.path().join("forkd-compare-x"), name(ended.id(), "f"), name(ended.id(), "l"));
        [&stale, &alive, &other].into_iter().for_each(|path| fs::create_dir(path).unwrap());
        fs::write(stale.join("forkd"), "x").unwrap();
        fs::write(&file, "x").unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), &link).unwrap();
        remove_stale(dir.path());
        assert!(!stale.exists());
        assert!([&alive, &other, &file, &link].into_iter().all(|path| path.exists()));
        let scratch = Scratch::new().unwrap();
        let path = scratch.path("");
        assert!(path.display().to_string().contains(&format!("{PREFIX}{}-", std::process::id())));
        drop(scratch);
        assert!(!path.exists());
    }
}
