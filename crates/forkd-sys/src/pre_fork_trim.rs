//! Makes the process cheap to fork: what a child need not have is given up once, by the master.
//!
//! A fork copies each mapping (0.5 µs) and each present page's entry (0.1 µs), and every page that
//! parent or child writes to afterwards is copied (1.7 µs). Nothing here changes what a program
//! can do; each step may fail, and then the process stays as it was.

#[cfg(target_os = "linux")]
const PAGE: usize = 4096;

/// Gives up what can be spared. For a process with one thread.
pub fn trim() {
    trim_heap();
    #[cfg(target_os = "linux")]
    {
        trim_stack();
        move_signal_stack();
        super::stack::keep_stack();
        #[cfg(all(target_env = "gnu", target_arch = "x86_64"))]
        rseq::unregister();
    }
}

/// Gives back the pages of the program's text and constants that starting up has used. They are the file's, and the kernel
/// maps again what is needed again. For a master that is ready: it runs other code from now on.
pub fn trim_text() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        unsafe extern "C" {
            static __executable_start: u8;
            static etext: u8;
        }
        let (start, end) = (&raw const __executable_start, &raw const etext);
        let length = (end.addr() & !(PAGE - 1)).saturating_sub(start.addr());
        // SAFETY: the linker sets both symbols. The program begins at the first of them, on a page, and up to the second one
        // are headers, constants and text, to which nothing writes: what is given back is read from the file as it was.
        unsafe { libc::madvise(start.cast_mut().cast(), length, libc::MADV_DONTNEED) };
    }
}

/// Gives back heap pages that starting up has used and freed.
fn trim_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim(3) has no preconditions.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Gives back the pages of the stack that starting up has used and left.
#[cfg(target_os = "linux")]
fn trim_stack() {
    const DEPTH: usize = 128 * 1024;
    let here = 0_u8;
    // a page's distance, for what this frame and the call below still use
    let end = ((&raw const here).addr() & !(PAGE - 1)) - PAGE;
    // SAFETY: what lies below the stack pointer of the main thread is no live value: calls will
    // write there before they read. Where the stack does not reach that deep, there is the gap that
    // the kernel keeps below it (mmap(2), MAP_GROWSDOWN), and the call does nothing about it.
    unsafe {
        libc::madvise(std::ptr::without_provenance_mut(end - DEPTH), DEPTH, libc::MADV_DONTNEED);
    }
}

/// Moves the stack for signal handlers, which std maps with a guard page, to zeroed memory of our
/// own, and keeps std's two mappings from children.
#[cfg(target_os = "linux")]
fn move_signal_stack() {
    use std::cell::UnsafeCell;

    const SIZE: usize = 64 * 1024;

    #[repr(C, align(4096))]
    struct Stack(UnsafeCell<[u8; SIZE]>);
    // SAFETY: only the kernel writes here, for the one thread that has it as its signal stack.
    unsafe impl Sync for Stack {}
    static STACK: Stack = Stack(UnsafeCell::new([0; SIZE]));

    // SAFETY: sigaltstack(2) reads and writes locals; STACK is static and used for nothing else.
    // The old stack stays mapped here, for std to unmap at exit, and no longer serves any handler,
    // so children can do without it. MADV_DONTFORK changes nothing for this process.
    unsafe {
        let ours = libc::stack_t { ss_sp: STACK.0.get().cast(), ss_flags: 0, ss_size: SIZE };
        let mut old: libc::stack_t = std::mem::zeroed();
        if libc::sigaltstack(&raw const ours, &raw mut old) != 0 || old.ss_flags & libc::SS_DISABLE != 0 {
            return;
        }
        let page = libc::sysconf(libc::_SC_PAGESIZE).max(0) as usize;
        libc::madvise(old.ss_sp, old.ss_size, libc::MADV_DONTFORK);
        libc::madvise(old.ss_sp.wrapping_byte_sub(page), page, libc::MADV_DONTFORK);
    }
}

/// Restartable sequences (rseq(2)): glibc registers an area in thread-local memory that the kernel
/// then writes to whenever the process has been scheduled away, so that its page is copied after
/// each fork, by parent and child. glibc itself uses it only to make `sched_getcpu` quicker, and
/// does without it once it is gone.
#[cfg(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64"))]
mod rseq {
    use super::super::raw::syscall4;

    const UNREGISTER: usize = 1;
    /// What the area was registered with: the abort signature of the architecture (glibc's
    /// `RSEQ_SIG`) and the size of the first published `struct rseq`.
    const SIGNATURE: usize = 0x5305_3053;
    const SIZE: usize = 32;

    pub(super) fn unregister() {
        let offset: *const isize;
        let thread: usize;
        // SAFETY: reads the thread pointer, which fs:0 has a copy of, and the address of a symbol of
        // glibc since 2.35 from the linker's table; the symbol is weak, so elsewhere that is null.
        unsafe {
            std::arch::asm!(
                ".weak __rseq_offset",
                "mov {offset}, [rip + __rseq_offset@GOTPCREL]",
                "mov {thread}, fs:0",
                offset = out(reg) offset,
                thread = out(reg) thread,
                options(nostack, readonly, preserves_flags)
            );
        }
        if offset.is_null() {
            return;
        }
        // SAFETY: glibc sets the symbol before main. The kernel takes back only an area that is
        // registered with just this address, size and signature (else EINVAL).
        unsafe {
            let area = thread.wrapping_add_signed(*offset);
            let _ = syscall4(libc::SYS_rseq, area, SIZE, UNREGISTER, SIGNATURE);
        }
    }
}
