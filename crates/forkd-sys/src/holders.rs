//! Which processes have a socket open, as /proc tells: proc(5).

use std::ffi::CString;
use std::io;
use std::os::fd::AsFd;

use rustix::fs::{Dir, OFlags, readlinkat};

use super::procfs;

/// Whether another process than this one has the socket; also where that can't be known. The cost grows with the number
/// of all processes, 10 us each.
///
/// The descriptors of another user's process can't be seen. Such a one is taken to have the socket if it is of this
/// process group.
pub fn others_have(socket: impl AsFd, group: u32) -> bool {
    let processes =
        procfs::open(c"/proc/.", OFlags::RDONLY | OFlags::DIRECTORY).and_then(|proc| Ok(Dir::new(proc)?));
    let (Ok(stat), Ok(processes)) = (rustix::fs::fstat(socket), processes) else { return true };
    let (name, own) = (format!("socket:[{}]", stat.st_ino), std::process::id());
    processes.flatten().any(|process| {
        let pid = process.file_name().to_str().ok().and_then(|name| name.parse().ok());
        pid.is_some_and(|pid: u32| {
            pid != own && has(pid, name.as_bytes()).unwrap_or_else(|_| is_of(pid, group))
        })
    })
}

/// Whether one of the descriptors of a process is of this name.
fn has(pid: u32, name: &[u8]) -> io::Result<bool> {
    let directory = match procfs::open(&path(pid, "fd")?, OFlags::RDONLY | OFlags::DIRECTORY) {
        // it has ended
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened?,
    };
    Ok(Dir::read_from(&directory)?.flatten().any(|descriptor| {
        let target = readlinkat(&directory, descriptor.file_name(), Vec::new());
        target.is_ok_and(|target| target.as_bytes() == name)
    }))
}

/// Whether a process is of this group: the third field after its name, which is in parentheses.
fn is_of(pid: u32, group: u32) -> bool {
    let stat = path(pid, "stat").and_then(|path| procfs::read(&path)).unwrap_or_default();
    let fields = stat.rsplit_once(')').map(|(_, fields)| fields.split_whitespace());
    fields.and_then(|mut fields| fields.nth(2)?.parse().ok()) == Some(group)
}

fn path(pid: u32, name: &str) -> io::Result<CString> {
    Ok(CString::new(format!("/proc/{pid}/{name}"))?)
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
        let own = std::process::id();
        let group = rustix::process::getpgrp().as_raw_pid().cast_unsigned();
        assert!(is_of(own, group) && !is_of(own, group + 1));
    }
}
