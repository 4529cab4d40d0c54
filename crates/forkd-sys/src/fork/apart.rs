//! A child that begins on a stack of its own.
//!
//! After a fork the parent and the child share their private pages, and the first of them to write to a page has it
//! copied (1.7 µs): the parent, which goes on with its loop, a page for each function that it calls there. So a child
//! whose parent forks all the time begins on memory that only children use, and is forked without
//! the parent's stack ([`keep_stack`]), which then is the parent's alone and never copied.
//!
//! What the child works with must therefore not lie on the parent's stack, nor refer to it. [`Inherited`] puts it on the
//! heap and takes only what is `'static`; besides it the child gets a descriptor and a few numbers, in registers.

use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::{Blocked, Child, PidCells, Watch, require_single_thread, run};

/// What a child does that begins on a stack of its own.
pub trait ChildTask: 'static {
    /// The life of the child; returns the status that it exits with. It has the descriptor for its own.
    fn live(&mut self, connection: Option<OwnedFd>, numbers: [u64; 4]) -> u8;
}

/// Memory that is on the heap, where a child finds it that has not its parent's stack.
#[derive(Debug)]
pub struct Inherited<T>(Box<T>);

impl<T: 'static> Inherited<T> {
    /// Moves a value there.
    pub fn new(value: T) -> Self {
        Self(Box::new(value))
    }
}

impl<T> Deref for Inherited<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Inherited<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

/// Forks a child that lives the task, with a copy of the descriptor; the parent's stays open.
///
/// # Errors
///
/// As [`fork`](super::fork).
pub fn fork_apart<T: ChildTask>(
    blocked: &Blocked,
    cells: PidCells<'_>,
    task: &mut Inherited<T>,
    connection: Option<&OwnedFd>,
    numbers: [u64; 4],
) -> io::Result<Child> {
    let number = connection.map_or(-1, AsRawFd::as_raw_fd);
    #[cfg(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64"))]
    if !crate::portable()
        && let Some(memory) = linux::memory()
    {
        require_single_thread()?;
        match linux::fork(memory, cells, &raw mut *task.0, number, numbers) {
            Err(error) if crate::calls::is_forbidden_io(&error) => {}
            forked => return forked,
        }
    }
    super::fork(blocked, cells, Watch::Nothing, || live(&mut *task.0, number, numbers))
}

/// In the child.
#[inline(always)]
fn live<T: ChildTask>(task: &mut T, number: i32, numbers: [u64; 4]) -> u8 {
    // SAFETY: the child's table of descriptors is a copy of the parent's, where the owner of this one lives on; in the child
    // nothing else owns it, as it runs nothing of the parent's and drops none of its values.
    let connection = (number >= 0).then(|| unsafe { OwnedFd::from_raw_fd(number) });
    task.live(connection, numbers)
}

#[cfg(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64"))]
pub use linux::keep_stack;
#[cfg(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64"))]
pub(crate) use linux::{have_stack, lend_stack};

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

    use super::*;
    use crate::buffer::{SharedBytes, lend_from};
    use crate::fork::linux::clone_args;
    use crate::raw;
    use crate::shared::near;

    const PAGE: usize = 4096;

    /// Where children begin: `PAGE` bytes that can't be written, so that what runs over the end of the stack meets a fault;
    /// the stack; and the buffer that a connection is read into, which begins on the page where the stack does, so that a
    /// short connection touches one page for both.
    ///
    /// The stack is as large as that of a main thread is by default. Only what is used takes memory.
    const STACK: std::ops::Range<usize> = PAGE..PAGE + (8 << 20) + PAGE / 2;
    const TOTAL: usize = (STACK.end + size_of::<SharedBytes>()).next_multiple_of(PAGE);

    /// The memory on which children begin.
    #[derive(Debug, Clone, Copy)]
    pub(super) struct Memory {
        start: usize,
    }

    /// Makes it at the first call; `None` where there is too little, or where the kernel promises no memory that it may not
    /// have (overcommit_memory of proc_sys_vm(5)): then it would count the whole stack for each child.
    pub(super) fn memory() -> Option<Memory> {
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
        // ever, and nothing has been written there. A `SharedBytes` may be zeroes, and its alignment divides half a page.
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

    /// fork by clone3(2), onto another stack.
    #[inline(always)]
    pub(super) fn fork<T: ChildTask>(
        memory: Memory,
        cells: PidCells<'_>,
        task: *mut T,
        connection: i32,
        numbers: [u64; 4],
    ) -> io::Result<Child> {
        let mut args = clone_args(cells);
        args.stack = (memory.start + STACK.start) as u64;
        args.stack_size = STACK.len() as u64;
        let answer: isize;
        // SAFETY: `args` lives through the call, and the addresses in it are of live cells and of memory that no frame lies
        // in. In the parent this is a system call like any other: rcx and r11 are overwritten. The child is a copy of a
        // process with one thread and blocked signals (see the module's text of `fork`), on an empty stack; it jumps to
        // `enter`, which never returns, with its arguments in the registers of the C calling convention and no return
        // address. Those of its arguments that are pointers lead to the heap, which it has a copy of.
        unsafe {
            std::arch::asm!(
                "syscall",
                "test rax, rax",
                "jnz 2f",
                // the end of the chain of frames
                "xor ebp, ebp",
                "push 0",
                "mov rdi, r12",
                "mov esi, r13d",
                "mov rcx, r10",
                "jmp {enter}",
                "2:",
                enter = sym enter::<T>,
                inlateout("rax") libc::SYS_clone3 as isize => answer,
                in("rdi") &raw mut args,
                in("rsi") size_of::<libc::clone_args>(),
                in("r12") task,
                in("r13") connection as isize,
                in("rdx") numbers[0],
                in("r10") numbers[1],
                in("r8") numbers[2],
                in("r9") numbers[3],
                lateout("rcx") _,
                lateout("r11") _,
            );
        }
        match -answer {
            errno @ 1..=4095 => Err(io::Error::from_raw_os_error(errno as i32)),
            _ => Ok(Child { pid: answer as i32, watch: None }),
        }
    }

    /// The first function of the child.
    unsafe extern "C" fn enter<T: ChildTask>(
        task: *mut T,
        connection: i32,
        first: u64,
        second: u64,
        third: u64,
        fourth: u64,
    ) -> ! {
        // SAFETY: the parent had it as `&mut`, and goes on with a copy of its own.
        let task = unsafe { &mut *task };
        run(|| live(task, connection, [first, second, third, fourth]))
    }

    /// Where the part of the main stack begins that children are forked without, and its length; 0: they have it all.
    static KEPT: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

    /// From here on children that [begin apart](fork_apart) are forked without this process's stack, but for its first page,
    /// where the arguments and the environment are. For the main thread, once no value that such a child could know of lies
    /// there any more: there is none but what C libraries keep to themselves.
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
