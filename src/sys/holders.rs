//! Which processes have a socket open, as /proc tells: proc(5).

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

/// Whether another process than this one has the socket; also where that can't be known. The cost grows with the number
/// of all processes, 10 us each.
///
/// The descriptors of another user's process can't be seen. Such a one is taken to have the socket if it is of this
/// process group.
pub(crate) fn others_have(socket: impl AsFd, group: u32) -> bool {
    let (Ok(stat), Ok(processes)) = (rustix::fs::fstat(socket), fs::read_dir("/proc")) else { return true };
    let (name, own) = (format!("socket:[{}]", stat.st_ino), std::process::id());
    processes.flatten().any(|process| {
        let pid = process.file_name().to_str().and_then(|name| name.parse().ok());
        pid.is_some_and(|pid: u32| pid != own)
            && has(&process.path(), &name).unwrap_or_else(|_| is_of(&process.path(), group))
    })
}

/// Whether one of the descriptors of a process is of this name.
fn has(process: &Path, name: &str) -> io::Result<bool> {
    match fs::read_dir(process.join("fd")) {
        Ok(mut descriptors) => Ok(descriptors.any(|descriptor| {
            let target = descriptor.and_then(|descriptor| fs::read_link(descriptor.path()));
            target.is_ok_and(|target| target == Path::new(name))
        })),
        // it has ended
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether a process is of this group: the third field after its name, which is in parentheses.
fn is_of(process: &Path, group: u32) -> bool {
    let stat = fs::read_to_string(process.join("stat")).unwrap_or_default();
    let fields = stat.rsplit_once(')').map(|(_, fields)| fields.split_whitespace());
    fields.and_then(|mut fields| fields.nth(2)?.parse().ok()) == Some(group)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_that_has_the_socket_is_found() {
        let (ours, _theirs) = UnixStream::pair().expect("pair");
        let copy = OwnedFd::from(ours.try_clone().expect("dup"));
        let mut child =
            Command::new("sleep").arg("1000").stdin(copy).stdout(Stdio::null()).spawn().expect("sleep");
        assert!(others_have(&ours, 0));
        child.kill().expect("kill");
        child.wait().expect("wait");
        // another test may be between fork and exec of a child of its own
        let until = std::time::Instant::now() + std::time::Duration::from_secs(15);
        while others_have(&ours, 0) {
            assert!(std::time::Instant::now() < until);
        }
    }

    #[test]
    fn the_group_of_a_process_is_read() {
        let own = Path::new("/proc/self");
        let group = rustix::process::getpgrp().as_raw_pid().cast_unsigned();
        assert!(is_of(own, group) && !is_of(own, group + 1));
    }
}
