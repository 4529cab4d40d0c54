//! Memory that parent and children share, and memory that children can't write.
//!
//! Shared mappings. An [`Arena`] is made once and never unmapped: references to it are `'static`,
//! so a child can't outlive it and a signal handler may look into it at any time. It may have a file without a name,
//! by which a program that this process executes maps the same memory again. A [`Shared`] value has a
//! mapping of its own, and an owner. An [`Own`] value is written by the process that made it and by no other:
//! children are forked without its mapping, or read it.

use std::alloc::{Layout, handle_alloc_error};
use std::io;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous, mprotect, munmap};

/// What may live in shared memory.
///
/// # Safety
///
/// Any bytes must be a valid value, and every field must be safe to touch from several
/// processes at once: atomics of fixed layout, no pointers, no references.
pub unsafe trait Plain: Sync {
    /// A number that is another one as soon as a field has another name, type or place: two programs for which it is the
    /// same read each other's memory rightly.
    const LAYOUT: u64;
}

/// A number of a text and of another number (FNV-1a), to tell layouts apart.
pub const fn layout(text: &str, of: u64) -> u64 {
    const PRIME: u64 = 0x0100_0000_01b3;
    let (bytes, more) = (text.as_bytes(), of.to_le_bytes());
    let (mut hash, mut at) = (0xcbf2_9ce4_8422_2325_u64, 0);
    while at < bytes.len() + more.len() {
        let byte = if at < bytes.len() { bytes[at] } else { more[at - bytes.len()] };
        hash = (hash ^ byte as u64).wrapping_mul(PRIME);
        at += 1;
    }
    hash
}

/// A region of shared memory that values are taken from, one after the other.
#[derive(Debug)]
pub struct Arena {
    next: NonNull<u8>,
    left: usize,
}

/// The file of an [`Arena`], by which another program can map it. Children have the memory and not the file: none of them can
/// make it shorter.
#[derive(Debug)]
pub struct ArenaFile {
    file: OwnedFd,
    bytes: usize,
}

impl ArenaFile {
    /// Makes one of so many bytes.
    ///
    /// # Errors
    ///
    /// As [`without_name`](super::fd::without_name).
    pub fn new(bytes: usize) -> io::Result<Self> {
        let file = super::fd::without_name()?;
        rustix::fs::ftruncate(&file, bytes as u64)?;
        #[cfg(target_os = "linux")]
        {
            use rustix::fs::SealFlags;
            // a file of /dev/shm has no seals
            let _ = rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL);
        }
        Ok(Self { file, bytes })
    }

    /// Takes over one that was made by this process before it executed this program.
    ///
    /// # Errors
    ///
    /// As fstat(2); `InvalidData` if it has another size.
    pub fn adopt(file: OwnedFd, bytes: usize) -> io::Result<Self> {
        match u64::try_from(rustix::fs::fstat(&file)?.st_size) {
            Ok(size) if size == bytes as u64 => Ok(Self { file, bytes }),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

impl AsFd for ArenaFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The boundary that each taken slice starts at: a cache line.
const ALIGN: usize = 64;

/// How many bytes of an arena `count` values take.
pub const fn bytes_for<T>(count: usize) -> usize {
    count.saturating_mul(size_of::<T>()).saturating_add(ALIGN)
}

impl Arena {
    /// Maps zeroed memory that this process and all it forks later have in common.
    ///
    /// # Errors
    ///
    /// `ENOMEM` as in mmap(2).
    pub fn new(bytes: usize) -> io::Result<Self> {
        Ok(Self { next: map(bytes, near::arena())?, left: bytes })
    }

    /// Maps the memory of a file: zeroed, or as the program before this one has left it.
    ///
    /// # Errors
    ///
    /// `ENOMEM` as in mmap(2).
    pub fn of(file: &ArenaFile) -> io::Result<Self> {
        let length =
            NonZeroUsize::new(file.bytes).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: without MAP_FIXED a new mapping disturbs no existing one; the address is a wish. No process that has the file makes it
        // shorter: that is this one, and the program that it executes.
        let start = unsafe { mmap(near::arena(), length, access, MapFlags::MAP_SHARED, file, 0)? };
        Ok(Self { next: start.cast(), left: file.bytes })
    }

    /// Takes `count` values, zeroed or as they were left; they are never given back.
    ///
    /// # Errors
    ///
    /// `ENOMEM` if the arena was made too small.
    pub fn take<T: Plain>(&mut self, count: usize) -> io::Result<&'static [T]> {
        let values = self.carve(count)?;
        // SAFETY: the mapping is never unmapped, in any process. T is Plain: it consists of atomics, of which any bytes are a
        // value, and shared access from several processes is allowed.
        Ok(unsafe { values.as_ref() })
    }

    fn carve<T: Plain>(&mut self, count: usize) -> io::Result<NonNull<[T]>> {
        const { assert!(align_of::<T>() <= ALIGN) };
        let skip = self.next.align_offset(ALIGN);
        let bytes = count.saturating_mul(size_of::<T>());
        self.left = self.left.checked_sub(skip.saturating_add(bytes)).ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: `skip + bytes` were left in the mapping.
        let start = unsafe { self.next.add(skip) };
        // SAFETY: as above.
        self.next = unsafe { start.add(bytes) };
        Ok(NonNull::slice_from_raw_parts(start.cast(), count))
    }
}

/// Memory that the process which made it writes, and no child of it.
///
/// On Linux a child is forked without the mapping (`MADV_DONTFORK`), which makes the fork cheaper, too. A child
/// that is forked while the memory is [lent](Self::lend) has it, and must give up writing
/// ([`read_only`](Self::read_only)) before it does anything else. Elsewhere, and under a filter that forbids
/// madvise(2), that is so of all children.
#[derive(Debug)]
pub struct OwnArena {
    start: NonNull<u8>,
    bytes: usize,
    arena: Arena,
    /// Children are forked without the mapping.
    hidden: bool,
}

// SAFETY: no more than two addresses; what they lead to is reached through `Own` only.
unsafe impl Send for OwnArena {}
// SAFETY: as above.
unsafe impl Sync for OwnArena {}

impl OwnArena {
    /// Maps zeroed memory.
    ///
    /// # Errors
    ///
    /// `ENOMEM` as in mmap(2).
    pub fn new(bytes: usize) -> io::Result<Self> {
        let start = map(bytes, None)?;
        let arena = Arena { next: start, left: bytes };
        let own = Self { start, bytes, arena, hidden: false };
        Ok(Self { hidden: own.inherit(false).is_ok(), ..own })
    }

    /// Takes `count` zeroed values; they are never given back.
    ///
    /// # Errors
    ///
    /// `ENOMEM` if the arena was made too small.
    pub fn take<T: Plain>(&mut self, count: usize) -> io::Result<Own<T>> {
        self.arena.carve(count).map(Own)
    }

    /// Lets children read the memory that are forked until the answer is dropped.
    ///
    /// # Errors
    ///
    /// As madvise(2).
    pub fn lend(&self) -> io::Result<Lent<'_>> {
        if self.hidden {
            self.inherit(true)?;
        }
        Ok(Lent(self))
    }

    /// In a child that it was lent to: from here on this process can't write it.
    ///
    /// # Errors
    ///
    /// As mprotect(2).
    pub fn read_only(&self) -> io::Result<()> {
        // SAFETY: the mapping is there in this process, or the call fails; nothing in this process writes to it
        // (a write would be a fault and no wrong value).
        unsafe { mprotect(self.start.cast(), self.bytes, ProtFlags::PROT_READ) }.map_err(Into::into)
    }

    /// In a child that it was not lent to: it can't write it either.
    #[inline(always)]
    pub fn keep_out(&self) {
        if !self.hidden {
            let _ = self.read_only();
        }
    }

    #[cfg(target_os = "linux")]
    fn inherit(&self, inherited: bool) -> io::Result<()> {
        use nix::sys::mman::{MmapAdvise, madvise};
        let advice = if inherited { MmapAdvise::MADV_DOFORK } else { MmapAdvise::MADV_DONTFORK };
        // SAFETY: the advice is about children; here the mapping stays as it is.
        unsafe { madvise(self.start.cast(), self.bytes, advice) }.map_err(Into::into)
    }

    #[cfg(not(target_os = "linux"))]
    fn inherit(&self, _inherited: bool) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// While it is there, children are forked with the memory (see [`OwnArena::lend`]).
#[derive(Debug)]
pub struct Lent<'a>(&'a OwnArena);

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if self.0.hidden {
            // the opposite has just worked for this mapping
            let _ = self.0.inherit(false);
        }
    }
}

/// Values in an [`OwnArena`].
///
/// In a child that was forked without the memory each access is a fault, which ends that child; so a child's
/// code must not come here. It is a pointer and no reference, as a reference promises memory.
#[derive(Debug)]
pub struct Own<T: Plain>(NonNull<[T]>);

impl<T: Plain> Clone for Own<T> {
    fn clone(&self) -> Self {
        Self(self.0)
    }
}

// SAFETY: it is no more than a reference to values of T, which is Sync.
unsafe impl<T: Plain> Send for Own<T> {}
// SAFETY: as above.
unsafe impl<T: Plain> Sync for Own<T> {}

impl<T: Plain> Deref for Own<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: where the mapping exists it is never unmapped, was zeroed, and T is Plain. Where it doesn't, the
        // kernel stops the process at the first access.
        unsafe { self.0.as_ref() }
    }
}

/// A value, zeroed at first, that this process and all it forks later have in common. Each of them gives it
/// back for itself.
///
/// It is a mapping more for each fork to copy (0.5 µs), so nothing for what every server has.
#[derive(Debug)]
pub struct Shared<T: Plain>(NonNull<T>);

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

/// Addresses soon after the program's own data, of which there is less than a step. What a child writes to should be near
/// other such memory: then it shares page tables, which the kernel makes anew for each child (2 µs).
pub(crate) mod near {
    use std::num::NonZeroUsize;
    use std::sync::atomic::AtomicUsize;

    static DATA: AtomicUsize = AtomicUsize::new(0);
    const STEP: usize = 0x4_0000;
    const STACK: usize = 0x80_0000;

    /// For the stack of children, which they use from its end.
    pub(crate) fn stack() -> Option<NonZeroUsize> {
        NonZeroUsize::new(((&raw const DATA).addr() / STEP + 2) * STEP)
    }

    /// For what all share.
    pub(super) fn arena() -> Option<NonZeroUsize> {
        stack()?.checked_add(STACK + STEP)
    }
}

/// Defines structs that are [`Plain`]: of fields that are, in C's order.
#[macro_export]
macro_rules! plain {
    ($(
        $(#[$of_struct:meta])*
        $visible:vis struct $name:ident {
            $($(#[$of_field:meta])* $field_visible:vis $field:ident: $kind:ty),+ $(,)?
        }
    )+) => {$(
        $(#[$of_struct])*
        #[repr(C)]
        $visible struct $name {
            $($(#[$of_field])* $field_visible $field: $kind),+
        }

        const _: () = {
            const fn is_plain<T: $crate::shared::Plain>() {}
            $(is_plain::<$kind>();)+
        };
        // SAFETY: each field is Plain, as the lines above make sure, and repr(C) has them all.
        unsafe impl $crate::shared::Plain for $name {
            const LAYOUT: u64 = {
                let mut of = ::core::mem::size_of::<Self>() as u64;
                $(
                    of = $crate::shared::layout(stringify!($field), of);
                    of = $crate::shared::layout("", of ^ <$kind as $crate::shared::Plain>::LAYOUT);
                )+
                of
            };
        }
    )+};
}

// SAFETY: any bytes are a number, and any process may change it.
unsafe impl Plain for AtomicU32 {
    const LAYOUT: u64 = 4;
}
// SAFETY: as above.
unsafe impl Plain for AtomicU64 {
    const LAYOUT: u64 = 8;
}
// SAFETY: as its values, of which it is a row.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {
    const LAYOUT: u64 = layout("row", T::LAYOUT ^ N as u64);
}
