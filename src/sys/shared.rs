//! Memory that parent and children share.
//!
//! Anonymous shared mappings. An [`Arena`] is made once and never unmapped: references to it are `'static`,
//! so a child can't outlive it and a signal handler may look into it at any time. A [`Shared`] value has a
//! mapping of its own, and an owner.

use std::alloc::{Layout, handle_alloc_error};
use std::io;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize};

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

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
        Ok(Self { next: map(bytes, beside_our_data())?, left: bytes })
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

/// A value, zeroed at first, that this process and all it forks later have in common. Each of them gives it
/// back for itself.
///
/// It is a mapping more for each fork to copy (0.5 µs), so nothing for what every server has.
#[derive(Debug)]
pub(crate) struct Shared<T: Plain>(NonNull<T>);

// SAFETY: it is no more than a reference to a T, which is Sync, and memory that any thread may unmap.
unsafe impl<T: Plain> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Plain> Sync for Shared<T> {}

impl<T: Plain> Default for Shared<T> {
    /// Where there is no memory the process ends, as it does for a [`Box`].
    fn default() -> Self {
        const { assert!(align_of::<T>() <= ALIGN) };
        map(size_of::<T>(), None)
            .map_or_else(|_| handle_alloc_error(Layout::new::<T>()), |start| Self(start.cast()))
    }
}

impl<T: Plain> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the mapping is large enough, aligned to a page, and there until `drop`; it began as
        // zeroes, which are a value of T, as T is Plain, and shared access to it is allowed.
        unsafe { self.0.as_ref() }
    }
}

impl<T: Plain> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping was made for this value alone, and no reference to it outlives the value. It
        // fails only for what is no mapping.
        let _ = unsafe { munmap(self.0.cast(), size_of::<T>()) };
    }
}

fn map(bytes: usize, beside: Option<NonZeroUsize>) -> io::Result<NonNull<u8>> {
    let length = NonZeroUsize::new(bytes).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?;
    let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: without MAP_FIXED a new mapping disturbs no existing one; the address is a wish.
    Ok(unsafe { mmap_anonymous(beside, length, access, MapFlags::MAP_SHARED)? }.cast())
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
