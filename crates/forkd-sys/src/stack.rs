//! The stack on which children begin, and that of the main thread, which they are forked without.
//!
//! `fork::apart` says why. Here is the memory, and which children have what.

#[cfg(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64"))]
pub use linux::keep_stack;
#[cfg(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64"))]
pub(crate) use linux::{Memory, have_stack, lend_stack, memory};

/// Does nothing on this system, where children begin on their parent's stack.
#[cfg(not(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64")))]
pub fn keep_stack() {}

#[cfg(not(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64")))]
pub(crate) fn have_stack() {}

#[cfg(not(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64")))]
pub(crate) fn lend_stack<T>(fork: impl FnOnce() -> T) -> T {
    fork()
}

#[cfg(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64"))]
mod linux {
    use std::num::NonZeroUsize;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, mprotect};

    use crate::buffer::{SharedBytes, lend_from};
    use crate::raw;
    use crate::shared::near;

    const PAGE: usize = 4096;

    /// Where children begin: `PAGE` bytes that can't be written, so that what runs over the end of the stack meets a fault;
    /// the stack; and the buffer that a connection is read into, which begins on the page where the stack does, so that a
    /// short connection touches one page for both. A request of http takes 6.3 KiB of stack: with three quarters of that
    /// page they are two pages, and with a half they were three.
    ///
    /// The stack is as large as that of a main thread is by default. Only what is used takes memory.
    const STACK: std::ops::Range<usize> = PAGE..PAGE + (8 << 20) + PAGE / 4 * 3;
    const TOTAL: usize = (STACK.end + size_of::<SharedBytes>()).next_multiple_of(PAGE);

    /// The memory on which children begin.
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Memory {
        start: usize,
    }

    impl Memory {
        /// The addresses of the stack.
        pub(crate) fn stack(self) -> std::ops::Range<usize> {
            self.start + STACK.start..self.start + STACK.end
        }
    }

    /// Makes it at the first call; `None` where there is too little, or where the kernel promises no memory that it may not
    /// have (overcommit_memory of proc_sys_vm(5)): then it would count the whole stack for each child.
    pub(crate) fn memory() -> Option<Memory> {
        static MEMORY: OnceLock<Option<Memory>> = OnceLock::new();
        *MEMORY.get_or_init(|| if is_strict() { None } else { map().ok() })
    }

    fn is_strict() -> bool {
        crate::procfs::read(c"/proc/sys/vm/overcommit_memory").is_ok_and(|mode| mode.trim() == "2")
    }

    fn map() -> nix::Result<Memory> {
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE | MapFlags::MAP_STACK;
        let length = NonZeroUsize::MIN.saturating_add(TOTAL - 1);
        // SAFETY: without MAP_FIXED a new mapping disturbs no existing one; the address is a wish. The mapping is ours, for
        // ever, and nothing has been written there. A `SharedBytes` may be zeroes, and its alignment divides a quarter of a page.
        unsafe {
            let start = mmap_anonymous(near::stack(), length, access, flags)?;
            mprotect(start, PAGE, ProtFlags::PROT_NONE)?;
            // a child does without that page: what isn't mapped is a fault, too
            let _ = madvise(start, PAGE, MmapAdvise::MADV_DONTFORK);
            // a page of 2 MiB would be cleared for each child
            let _ = madvise(start, TOTAL, MmapAdvise::MADV_NOHUGEPAGE);
            lend_from(start.byte_add(STACK.end).cast().as_ref());
            Ok(Memory { start: start.addr().get() })
        }
    }

    /// Where the part of the main stack begins that children are forked without, and its length; 0: they have it all.
    static KEPT: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

    /// From here on children that [begin apart](crate::fork::fork_apart) are forked without this process's stack, but for
    /// its first page, where the arguments and the environment are. For the main thread, once no value that such a child
    /// could know of lies there any more: there is none but what C libraries keep to themselves.
    pub fn keep_stack() {
        /// More than the stack of a master ever grows to.
        const DEPTH: usize = 1 << 20;
        if crate::portable() || memory().is_none() {
            return;
        }
        let Some(bottom) = crate::procfs::start_of_stack() else { return };
        let Some(start) = (bottom & !(PAGE - 1)).checked_sub(DEPTH) else { return };
        KEPT[0].store(start, Ordering::Relaxed);
        KEPT[1].store(DEPTH, Ordering::Relaxed);
        inherit(false);
    }

    /// In a child that has the stack: it is this process's own, as is that of each process.
    pub(crate) fn have_stack() {
        KEPT[1].store(0, Ordering::Relaxed);
    }

    /// Runs what forks a child that has the stack. All ways to fork but [`fork_apart`] need it, those of std, too.
    pub(crate) fn lend_stack<T>(fork: impl FnOnce() -> T) -> T {
        inherit(true);
        let forked = fork();
        inherit(false);
        forked
    }

    fn inherit(inherited: bool) {
        let [start, length] = KEPT.each_ref().map(|cell| cell.load(Ordering::Relaxed));
        if length == 0 {
            return;
        }
        let advice = if inherited { libc::MADV_DOFORK } else { libc::MADV_DONTFORK };
        // SAFETY: it changes nothing for this process, and what a child lacks is no memory that it could know of: see
        // `keep_stack`, and `fork_apart`. Below the stack nothing is mapped (mmap(2), MAP_GROWSDOWN): ENOMEM, after the
        // stack itself has been dealt with; to store that in errno would be one more page to copy for each fork.
        let _ = unsafe { raw::syscall4(libc::SYS_madvise, start, length, advice as usize, 0) };
    }
}
