//! A filter for system calls (seccomp(2)), as containers and service managers have one.

use std::io;

/// The filter under which this process, and what it executes, can't make these calls: each fails with its error.
///
/// Async-signal-safe: the program for the kernel is made before.
pub struct Filter(Vec<libc::sock_filter>);

impl Filter {
    pub fn new(forbidden: &[(libc::c_long, i32)]) -> Self {
        // linux/bpf_common.h, linux/seccomp.h
        const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
        const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
        const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
        let step = |code, jf, k| libc::sock_filter { code, jt: 0, jf, k };
        // the number of the call is what seccomp_data begins with
        let mut program = vec![step(LOAD, 0, 0)];
        for &(number, errno) in forbidden {
            program.push(step(JUMP_IF_EQUAL, 1, number as u32));
            program.push(step(RETURN, 0, libc::SECCOMP_RET_ERRNO | errno as u32));
        }
        program.push(step(RETURN, 0, libc::SECCOMP_RET_ALLOW));
        Self(program)
    }

    /// Puts it in force for this process, for good.
    pub fn put_on(&self) -> io::Result<()> {
        let program = libc::sock_fprog { len: self.0.len() as u16, filter: self.0.as_ptr().cast_mut() };
        // SAFETY: prctl(2) is a plain system call; the kernel copies the program, which lives through it.
        let done = unsafe {
            // without it a filter needs a capability
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
        };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}
