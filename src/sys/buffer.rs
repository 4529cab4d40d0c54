//! The buffer that a connection is read into.
//!
//! It lies in the program's zeroed data: a child that reads a short message touches one page of
//! it, where a buffer on the stack would be touched page by page when it is made (stack probes),
//! and one on the heap would have the heap's pages copied.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

/// What is read at once. Small enough to cost an idle child little, and large enough that the
/// switch to splice(2) comes early for a bulk sender.
pub(crate) const CHUNK: usize = 16 * 1024;

type Bytes = [MaybeUninit<u8>; CHUNK];

/// The flag shares its page with the first bytes.
#[repr(C, align(4096))]
struct Shelf {
    lent: AtomicBool,
    bytes: UnsafeCell<Bytes>,
}

// SAFETY: `bytes` is reached only through a `Buffer::Static`, of which `lent` allows one at a time.
unsafe impl Sync for Shelf {}

static SHELF: Shelf =
    Shelf { lent: AtomicBool::new(false), bytes: UnsafeCell::new([const { MaybeUninit::uninit() }; CHUNK]) };

/// A buffer of [`CHUNK`] bytes that need not be initialised.
pub(crate) struct Buffer {
    place: Place,
    /// So many bytes at the beginning have been read into it.
    length: usize,
}

enum Place {
    /// The one in static memory.
    Static(&'static mut Bytes),
    /// One of its own, for a second connection at the same time.
    Own(Box<Bytes>),
}

impl Buffer {
    pub(crate) fn new() -> Self {
        if SHELF.lent.swap(true, Ordering::Acquire) {
            let place = Place::Own(Box::new([const { MaybeUninit::uninit() }; CHUNK]));
            return Self { place, length: 0 };
        }
        // SAFETY: the flag was clear, so no other reference exists until this value is dropped.
        Self { place: Place::Static(unsafe { &mut *SHELF.bytes.get() }), length: 0 }
    }

    /// Reads into it what there is, in place of what it had; returns how many bytes that are.
    pub(crate) fn fill(&mut self, fd: impl AsFd) -> rustix::io::Result<usize> {
        self.length = 0;
        let bytes: &mut [MaybeUninit<u8>] = match &mut self.place {
            Place::Static(bytes) => *bytes,
            Place::Own(bytes) => &mut **bytes,
        };
        self.length = rustix::io::read(fd, bytes)?.0.len();
        Ok(self.length)
    }

    /// What has been read into it.
    pub(crate) fn filled(&self) -> &[u8] {
        let bytes: &[MaybeUninit<u8>] = match &self.place {
            Place::Static(bytes) => *bytes,
            Place::Own(bytes) => &**bytes,
        };
        // SAFETY: `fill` is the only one that sets the length, to what read(2) wrote.
        unsafe { &*(&raw const bytes[..self.length] as *const [u8]) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Place::Static(_) = self.place {
            SHELF.lent.store(false, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_buffers_are_two() {
        let (mut a, mut b) = (Buffer::new(), Buffer::new());
        for (buffer, text) in [(&mut a, b"one"), (&mut b, b"two")] {
            let (read_end, write_end) = crate::sys::fd::pipe().expect("pipe");
            rustix::io::write(write_end, text).expect("write");
            buffer.fill(read_end).expect("read");
        }
        assert_eq!((a.filled(), b.filled()), (&b"one"[..], &b"two"[..]));
    }
}
