//! Locks on files that only processes which may write to the file can take.
//!
//! flock(2) asks for a descriptor and no more, so anyone who can read a file can lock it. A lock for writing by
//! fcntl(2) takes a descriptor that is open for writing; one for reading is anyone's again, so it counts as none. On
//! Linux the lock belongs to the open file description, elsewhere to the process.

use std::io;
use std::mem::zeroed;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

fn whole_file(kind: i32) -> libc::flock {
    // SAFETY: a struct of integers, for which zero is a value: here from the beginning to the end, of no process.
    let mut lock: libc::flock = unsafe { zeroed() };
    lock.l_type = kind as _;
    lock
}

/// Locks a file for writing, until it is closed; `false` if that is impossible, as another lock is there.
pub fn try_lock(file: impl AsFd) -> io::Result<bool> {
    let lock = whole_file(libc::F_WRLCK as _);
    #[cfg(target_os = "linux")]
    let request = FcntlArg::F_OFD_SETLK(&lock);
    #[cfg(not(target_os = "linux"))]
    let request = FcntlArg::F_SETLK(&lock);
    match fcntl(file, request) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether a process has locked a file for writing. One that is open for reading only will do.
pub fn is_locked(file: impl AsFd) -> io::Result<bool> {
    // a lock for reading blocks writers alone
    let mut lock = whole_file(libc::F_RDLCK as _);
    #[cfg(target_os = "linux")]
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock))?;
    #[cfg(not(target_os = "linux"))]
    fcntl(file, FcntlArg::F_GETLK(&mut lock))?;
    Ok(i32::from(lock.l_type) != i32::from(libc::F_UNLCK as i16))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn a_reader_s_lock_counts_as_none() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let reader = || File::open(file.path()).expect("open");
        let (stranger, other) = (reader(), reader());
        stranger.lock().expect("flock");
        let lock = whole_file(libc::F_RDLCK as _);
        fcntl(&other, FcntlArg::F_OFD_SETLK(&lock)).expect("a lock for reading");
        assert!(!is_locked(reader()).expect("ask"));
        assert!(!try_lock(&file).expect("lock"));
        drop(other);
        assert!(try_lock(&file).expect("lock") && is_locked(reader()).expect("ask"));
        assert!(try_lock(reader()).is_err(), "it is not open for writing");
        drop(file);
        assert!(!is_locked(&stranger).expect("ask"));
    }
}
