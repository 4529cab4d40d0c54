//! Memory that parent and children share.
//!
//! An anonymous shared mapping, made once and never unmapped: references to it are `'static`, so
//! a child can't outlive it and a signal handler may look into it at any time.

use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize};

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};

/// What may live in shared memory.
///
/// # Safety
///
/// All-zero bytes must be a valid value, and every field must be safe to touch from several
/// processes at once: atomics of fixed layout, no pointers, no references.
pub(crate) unsafe trait Plain: Sync {}

/// A region of shared memory that values are taken from, one after the other.
#[derive(Debug)]
pub(crate) struct Arena {
    next: NonNull<u8>,
    left: usize,
}

/// The boundary that each taken slice starts at: a cache line.
const ALIGN: usize = 64;

/// How many bytes of an arena `count` values take.
pub(crate) const fn bytes_for<T>(count: usize) -> usize {
    count.saturating_mul(size_of::<T>()).saturating_add(ALIGN)
}

impl Arena {
    /// Maps zeroed memory that this process and all it forks later have in common.
    ///
    /// # Errors
    ///
    /// `ENOMEM` as in mmap(2).
    pub(crate) fn new(bytes: usize) -> io::Result<Self> {
        let length = NonZeroUsize::new(bytes).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: without MAP_FIXED a new mapping disturbs no existing one; the address is a wish.
        let start = unsafe { mmap_anonymous(beside_our_data(), length, access, MapFlags::MAP_SHARED)? };
        Ok(Self { next: start.cast(), left: bytes })
    }

    /// Takes `count` zeroed values; they are never given back.
    ///
    /// # Errors
    ///
    /// `ENOMEM` if the arena was made too small.
    pub(crate) fn take<T: Plain>(&mut self, count: usize) -> io::Result<&'static [T]> {
        const { assert!(align_of::<T>() <= ALIGN) };
        let skip = self.next.align_offset(ALIGN);
        let bytes = count.saturating_mul(size_of::<T>());
        self.left = self.left.checked_sub(skip.saturating_add(bytes)).ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: `skip + bytes` were left in the mapping, which is zeroed and never unmapped; T is
        // Plain, so zeroes are a value of it and shared access from several processes is allowed.
        unsafe {
            let start = self.next.add(skip);
            self.next = start.add(bytes);
            Ok(std::slice::from_raw_parts(start.cast::<T>().as_ptr(), count))
        }
    }
}

/// An address soon after the program's own data, of which there is less than a step. Near it the mapping shares their page tables,
/// which the kernel makes anew for each child (2 µs).
fn beside_our_data() -> Option<NonZeroUsize> {
    static DATA: AtomicUsize = AtomicUsize::new(0);
    const STEP: usize = 0x4_0000;
    NonZeroUsize::new(((&raw const DATA).addr() / STEP + 2) * STEP)
}

/// Marks types as [`Plain`]; each must be `repr(C)` and consist of atomic integers.
macro_rules! plain {
    ($($kind:ty),+) => {
        $(
            #[allow(unsafe_code)]
            // SAFETY: the caller of the macro gives repr(C) structs of atomic integers only.
            unsafe impl $crate::sys::shared::Plain for $kind {}
        )+
    };
}
pub(crate) use plain;

plain!(AtomicU32, AtomicU64);
