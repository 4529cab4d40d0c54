//! The buffer that a connection is read into.
//!
//! It lies in the program's zeroed data: a child that reads a short message touches one page of
//! it, where a buffer on the stack would be touched page by page when it is made (stack probes),
//! and one on the heap would have the heap's pages copied.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
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
pub(crate) enum Buffer {
    /// The one in static memory.
    Static(&'static mut Bytes),
    /// One of its own, for a second connection at the same time.
    Own(Box<Bytes>),
}

impl Buffer {
    pub(crate) fn new() -> Self {
        if SHELF.lent.swap(true, Ordering::Acquire) {
            return Self::Own(Box::new([const { MaybeUninit::uninit() }; CHUNK]));
        }
        // SAFETY: the flag was clear, so no other reference exists until this value is dropped.
        Self::Static(unsafe { &mut *SHELF.bytes.get() })
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Self::Static(_) = self {
            SHELF.lent.store(false, Ordering::Release);
        }
    }
}

impl Deref for Buffer {
    type Target = Bytes;

    fn deref(&self) -> &Bytes {
        match self {
            Self::Static(bytes) => bytes,
            Self::Own(bytes) => bytes,
        }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Bytes {
        match self {
            Self::Static(bytes) => bytes,
            Self::Own(bytes) => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_buffers_are_two() {
        let (mut a, mut b) = (Buffer::new(), Buffer::new());
        a[0].write(1);
        b[0].write(2);
        assert_ne!(a.as_ptr(), b.as_ptr());
    }
}
