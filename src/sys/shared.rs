//! Memory that parent and children share.
//!
//! An anonymous shared mapping, made once and never unmapped: references to it are `'static`, so
//! a child can't outlive it and a signal handler may look into it at any time.

use std::io;
use std::num::NonZeroUsize;

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};

/// What may live in shared memory.
///
/// # Safety
///
/// All-zero bytes must be a valid value, and every field must be safe to touch from several
/// processes at once: atomics of fixed layout, no pointers, no references.
pub(crate) unsafe trait Plain: Sync {}

/// Maps `count` zeroed values that this process and all it forks later have in common.
///
/// # Errors
///
/// `ENOMEM` as in mmap(2).
pub(crate) fn map<T: Plain>(count: usize) -> io::Result<&'static [T]> {
    let too_large = || io::Error::from_raw_os_error(libc::ENOMEM);
    let bytes = count.checked_mul(size_of::<T>()).and_then(NonZeroUsize::new).ok_or_else(too_large)?;
    // SAFETY: a new mapping at an address of the kernel's choice disturbs no existing one.
    let start = unsafe {
        mmap_anonymous(None, bytes, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED)?
    };
    // SAFETY: the mapping is page-aligned, `bytes` long, zeroed, and never unmapped; T is Plain,
    // so zeroes are a value of it and shared access from several processes is allowed.
    Ok(unsafe { std::slice::from_raw_parts(start.cast::<T>().as_ptr(), count) })
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
