//! A part of a file on its way to a client.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::sys::socket::NO_SIGNAL;
use rustix::net::{SendFlags, send};

/// A part of a file that a [`Protocol`](crate::Protocol) sends, see
/// [`Reply::File`](crate::Reply::File).
///
/// ```
/// use std::{fs::File, sync::Arc};
/// use forkd_server::{FilePart, Protocol, Reply};
///
/// /// Sends a file to each client that says something.
/// struct Library(FilePart);
/// impl Protocol for Library {
///     fn received<'a>(&'a mut self, _: &'a [u8]) -> Reply<'a> {
///         Reply::File(&self.0)
///     }
///
///     fn resume(&mut self) -> Reply<'_> {
///         Reply::Finish(b"")
///     }
/// }
/// let file = File::open("Cargo.toml")?;
/// let length = file.metadata()?.len();
/// let mut library = Library(FilePart { file: Arc::new(file), offset: 0, length });
/// assert!(matches!(library.received(b"please"), Reply::File(part) if part.length == length));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct FilePart {
    /// The file, open for reading.
    pub file: Arc<File>,
    /// Where the part begins, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub length: u64,
}

/// Two parts are equal if they are of the same open file.
impl PartialEq for FilePart {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.file, &other.file) && (self.offset, self.length) == (other.offset, other.length)
    }
}

impl Eq for FilePart {}

/// How much one call sends at most: enough to be quick, and others have their turn.
const PIECE: u64 = 256 * 1024;

impl FilePart {
    /// Leaves out what has been sent.
    pub(crate) fn advance(&mut self, sent: u64) {
        self.offset += sent;
        self.length -= sent;
    }

    /// Sends a piece to a socket, and returns how many bytes went; 0 at the end of the file.
    #[cfg(target_os = "linux")]
    pub(crate) fn send_to(&self, socket: impl AsFd) -> rustix::io::Result<usize> {
        let mut offset = self.offset;
        let length = self.length.min(PIECE) as usize;
        match rustix::fs::sendfile(&socket, &self.file, Some(&mut offset), length) {
            Err(errno) if crate::sys::calls::is_forbidden(errno) => {
                self.copy(|piece| rustix::io::write(socket, piece))
            }
            sent => sent,
        }
    }

    /// Sends a piece to a socket, and returns how many bytes went; 0 at the end of the file.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn send_to(&self, socket: impl AsFd) -> rustix::io::Result<usize> {
        self.copy(|piece| rustix::io::write(socket, piece))
    }

    /// The same, without waiting for the socket, whether it blocks or not.
    pub(crate) fn copy_to(&self, socket: impl AsFd) -> rustix::io::Result<usize> {
        self.copy(|piece| send(socket, piece, SendFlags::DONTWAIT | NO_SIGNAL))
    }

    // not a part of the caller, whose stack would have room for the piece even where none is copied
    #[inline(never)]
    fn copy(&self, write: impl FnOnce(&[u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<usize> {
        let mut piece = [0; 16 * 1024];
        let wanted = self.length.min(piece.len() as u64) as usize;
        match rustix::io::pread(&self.file, &mut piece[..wanted], self.offset)? {
            0 => Ok(0),
            n => write(&piece[..n]),
        }
    }

    /// Appends a piece to what is sent later, and returns how many bytes those are.
    pub(crate) fn append_to(&self, bytes: &mut Vec<u8>) -> io::Result<usize> {
        let mut piece = vec![0; self.length.min(PIECE) as usize];
        let n = self.file.read_at(&mut piece, self.offset)?;
        bytes.extend_from_slice(&piece[..n]);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_part_goes_out_as_it_is_in_the_file() {
        let mut file = tempfile::tempfile().expect("file");
        file.write_all(b"0123456789").expect("write");
        let mut part = FilePart { file: Arc::new(file), offset: 2, length: 5 };
        let (socket, mut peer) = UnixStream::pair().expect("pair");
        assert_eq!(part.send_to(&socket).expect("send"), 5);
        let mut got = [0; 5];
        peer.read_exact(&mut got).expect("read");
        assert_eq!(&got, b"23456");
        assert_eq!(part.copy_to(&socket).expect("send"), 5);
        peer.read_exact(&mut got).expect("read");
        assert_eq!(&got, b"23456");
        part.advance(3);
        let mut rest = Vec::new();
        assert_eq!(part.append_to(&mut rest).expect("read"), 2);
        assert_eq!(rest, b"56");
    }
}
