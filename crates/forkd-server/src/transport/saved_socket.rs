//! A listening socket, written down for the program that this process executes.
//!
//! What it is bound to is asked of the socket itself, as of any that is handed over.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::PathBuf;

use super::inherited::listener_on;
use super::listener::Listener;
use super::socket_file::SocketFile;
use crate::sys::handover::LeftOpen;

/// A listening socket, written down.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SavedSocket {
    descriptor: RawFd,
    /// It is another process's, too.
    is_inherited: bool,
    /// The file that is removed at the end: its path, device and inode.
    #[cfg_attr(feature = "serde", serde(default))]
    file: Option<(PathBuf, [u64; 2])>,
}

impl SavedSocket {
    /// Writes down what is no listening socket.
    pub fn open(descriptor: &impl AsRawFd) -> Self {
        Self { descriptor: descriptor.as_raw_fd(), is_inherited: false, file: None }
    }

    /// Its descriptor.
    pub fn descriptor(&self) -> RawFd {
        self.descriptor
    }
}

impl Listener {
    /// Writes it down.
    pub fn save(&self) -> SavedSocket {
        SavedSocket {
            descriptor: self.as_raw_fd(),
            is_inherited: self.is_inherited(),
            file: self.file().as_ref().map(SocketFile::save),
        }
    }

    /// Goes on with that of the program before this one.
    ///
    /// # Errors
    ///
    /// `NotFound` where it was not left open, `InvalidData` where it is no socket that can be served.
    pub fn restore(saved: &SavedSocket, left: &mut LeftOpen) -> io::Result<Self> {
        let socket = left.remove(saved.descriptor)?;
        let found = listener_on(socket).map_err(|why| {
            let number = saved.descriptor;
            io::Error::new(io::ErrorKind::InvalidData, format!("descriptor {number} {why}"))
        })?;
        let file = saved.file.clone().map(|(path, identity)| SocketFile::adopt(path, identity));
        Ok(found.owned(saved.is_inherited, file))
    }
}
