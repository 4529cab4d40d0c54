//! A child that begins on a stack of its own.
//!
//! After a fork the parent and the child share their private pages, and the first of them to write to a page has it
//! copied (1.7 µs): the parent, which goes on with its loop, a page for each function that it calls there. So a child
//! whose parent forks all the time begins on memory that only children use, and is forked without
//! the parent's stack ([`keep_stack`](crate::stack::keep_stack)), which then is the parent's alone and never copied.
//!
//! What the child works with must therefore not lie on the parent's stack, nor refer to it. [`Inherited`] puts it on the
//! heap and takes only what is `'static`; besides it the child gets a descriptor and a few numbers, in registers.

use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::{Blocked, Child, PidCells, Watch};

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
        && let Some(memory) = crate::stack::memory()
    {
        super::require_single_thread()?;
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
mod linux {
    use super::*;
    use crate::fork::linux::clone_args;
    use crate::stack::Memory;

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
        args.stack = memory.stack().start as u64;
        args.stack_size = memory.stack().len() as u64;
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
        crate::fork::run(|| live(task, connection, [first, second, third, fourth]))
    }
}
