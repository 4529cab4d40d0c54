//! System calls without libc in between, for the few steps between fork(2) and the first read(2).
//!
//! Each page of program text that a child runs is a page fault of its own (2 µs), and libc's
//! `syscall` lies far from forkd's code and writes `errno`, whose page must be copied first.
//! Inlined, the call costs neither.

use std::io;

/// Makes a system call with up to four arguments; unused ones are 0.
///
/// # Errors
///
/// What the kernel answered.
///
/// # Safety
///
/// The number and arguments must be such that the call upholds Rust's rules: pointers valid for
/// what the kernel reads or writes through them, descriptors not owned by a value that is used on.
#[inline(always)]
pub(super) unsafe fn syscall4(
    number: libc::c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
) -> io::Result<usize> {
    // SAFETY: passed on to the caller.
    let answer = unsafe { enter(number, a, b, c, d) };
    // -4095 to -1 are error numbers (syscall(2), "Architecture calling conventions")
    match -answer {
        errno @ 1..=4095 => Err(io::Error::from_raw_os_error(errno as i32)),
        _ => Ok(answer.cast_unsigned()),
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn enter(number: libc::c_long, a: usize, b: usize, c: usize, d: usize) -> isize {
    let answer: isize;
    // SAFETY: the convention of syscall(2) for x86-64: rcx and r11 are overwritten, the stack is
    // not touched; memory is taken to change, as `nomem` is not given.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => answer,
            in("rdi") a,
            in("rsi") b,
            in("rdx") c,
            in("r10") d,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack)
        );
    }
    answer
}

#[cfg(target_arch = "aarch64")]
#[inline(always)]
unsafe fn enter(number: libc::c_long, a: usize, b: usize, c: usize, d: usize) -> isize {
    let answer: isize;
    // SAFETY: the convention of syscall(2) for arm64: only x0 is overwritten.
    unsafe {
        std::arch::asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") a as isize => answer,
            in("x1") b,
            in("x2") c,
            in("x3") d,
            options(nostack)
        );
    }
    answer
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn enter(number: libc::c_long, a: usize, b: usize, c: usize, d: usize) -> isize {
    // SAFETY: passed on to the caller.
    match unsafe { libc::syscall(number, a, b, c, d) } {
        -1 => -(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO) as isize),
        answer => answer as isize,
    }
}
