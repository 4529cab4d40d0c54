//! The buffer that a connection is read into.
//!
//! It lies in the program's zeroed data: a child that reads a short message touches one page of
//! it, where a buffer on the stack would be touched page by page when it is made (stack probes),
//! and one on the heap would have the heap's pages copied. A child with a stack of its own has the beginning of both on
//! the same page (see `fork::apart`).
//!
//! A connection has it only while there are bytes in it: many that wait in one thread, each for its
//! client, take turns with the same one.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use rustix::net::{RecvFlags, recv};

/// What is read at once. Small enough to cost an idle child little, and large enough that the
/// switch to splice(2) comes early for a bulk sender.
pub const CHUNK: usize = 16 * 1024;

type Bytes = [MaybeUninit<u8>; CHUNK];

/// The flag shares its page with the first bytes.
#[repr(C, align(64))]
pub(crate) struct SharedBytes {
    lent: AtomicBool,
    bytes: UnsafeCell<Bytes>,
}

// SAFETY: `bytes` is reached only through a `Buffer::Static`, of which `lent` allows one at a time.
unsafe impl Sync for SharedBytes {}

static IN_DATA: SharedBytes = SharedBytes {
    lent: AtomicBool::new(false),
    bytes: UnsafeCell::new([const { MaybeUninit::uninit() }; CHUNK]),
};

/// Where the one is that is lent.
static SHARED: AtomicPtr<SharedBytes> = AtomicPtr::new((&raw const IN_DATA).cast_mut());

/// Lends this memory from now on. It must be zeroed, and stay as it is.
#[cfg(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64"))]
pub(crate) fn lend_from(place: &'static SharedBytes) {
    SHARED.store(std::ptr::from_ref(place).cast_mut(), Ordering::Release);
}

/// A buffer of [`CHUNK`] bytes that need not be initialised. It takes memory when there is something to
/// read, and gives it back when there is nothing.
pub struct Buffer {
    storage: Storage,
    /// So many bytes at the beginning have been read into it.
    length: usize,
}

enum Storage {
    /// None, while there is nothing to keep.
    Empty,
    /// The one in static memory.
    Static(&'static mut Bytes, &'static AtomicBool),
    /// One of its own, for a second connection at the same time.
    Own(Box<[MaybeUninit<u8>]>),
}

impl Storage {
    fn take() -> Self {
        // SAFETY: it was a reference that lasts for ever.
        let shared = unsafe { &*SHARED.load(Ordering::Acquire) };
        if shared.lent.swap(true, Ordering::Acquire) {
            return Self::Own(Box::new_uninit_slice(CHUNK));
        }
        // SAFETY: the flag was clear, so no other reference exists until this value is dropped.
        Self::Static(unsafe { &mut *shared.bytes.get() }, &shared.lent)
    }
}

impl Default for Buffer {
    /// An empty buffer, which takes its memory when it is first used.
    fn default() -> Self {
        Self { storage: Storage::Empty, length: 0 }
    }
}

impl Buffer {
    /// Reads into it what there is, in place of what it had; returns how many bytes that are.
    #[inline(always)]
    pub fn fill(&mut self, fd: impl AsFd) -> rustix::io::Result<usize> {
        self.fill_by(|bytes| rustix::io::read(fd, bytes).map(|(filled, _)| filled.len()))
    }

    /// The same from a socket, without waiting for it, whether it blocks or not.
    pub fn fill_now(&mut self, socket: impl AsFd) -> rustix::io::Result<usize> {
        self.fill_by(|bytes| recv(socket, bytes, RecvFlags::DONTWAIT).map(|((filled, _), _)| filled.len()))
    }

    #[inline(always)]
    fn fill_by(
        &mut self,
        read: impl FnOnce(&mut [MaybeUninit<u8>]) -> rustix::io::Result<usize>,
    ) -> rustix::io::Result<usize> {
        self.length = 0;
        if let Storage::Empty = self.storage {
            self.storage = Storage::take();
        }
        let bytes: &mut [MaybeUninit<u8>] = match &mut self.storage {
            Storage::Empty => &mut [],
            Storage::Static(bytes, _) => *bytes,
            Storage::Own(bytes) => bytes,
        };
        match read(bytes) {
            Ok(length) => self.length = length,
            Err(error) => {
                self.empty();
                return Err(error);
            }
        }
        Ok(self.length)
    }

    /// What has been read into it.
    // part of its callers: by itself it would be one more window of text for a forked child
    #[inline(always)]
    pub fn filled(&self) -> &[u8] {
        let bytes: &[MaybeUninit<u8>] = match &self.storage {
            Storage::Empty => &[],
            Storage::Static(bytes, _) => *bytes,
            Storage::Own(bytes) => bytes,
        };
        // SAFETY: `fill_by` is the only one that sets the length, to what read(2) or recv(2) wrote.
        unsafe { &*(&raw const bytes[..self.length] as *const [u8]) }
    }

    /// Forgets what it had, and gives its memory to others.
    pub fn empty(&mut self) {
        self.length = 0;
        self.storage = Storage::Empty;
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        if let Self::Static(_, lent) = self {
            lent.store(false, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_buffers_are_two() {
        let (mut a, mut b) = (Buffer::default(), Buffer::default());
        for (buffer, text) in [(&mut a, b"one"), (&mut b, b"two")] {
            let (read_end, write_end) = crate::fd::pipe().expect("pipe");
            rustix::io::write(write_end, text).expect("write");
            buffer.fill(read_end).expect("read");
        }
        assert_eq!((a.filled(), b.filled()), (&b"one"[..], &b"two"[..]));
    }

    #[test]
    fn one_that_finds_nothing_to_read_has_no_memory() {
        let (read_end, write_end) = crate::fd::pipe().expect("pipe");
        crate::fd::set_nonblocking(&read_end, true).expect("flag");
        rustix::io::write(write_end.as_fd(), b"one").expect("write");
        let mut buffer = Buffer::default();
        assert_eq!(buffer.fill(&read_end), Ok(3));
        assert!(!matches!(buffer.storage, Storage::Empty));
        assert_eq!(buffer.fill(&read_end), Err(rustix::io::Errno::AGAIN));
        assert!(matches!(buffer.storage, Storage::Empty) && buffer.filled().is_empty());
    }
}
