//! What the kernel has dropped at a socket.

use std::os::fd::AsFd;

/// How many packets the kernel has dropped at a socket since it was made, where the system says so: on Linux, also
/// for a listening one (SO_MEMINFO, sock_diag(7); the number has 32 bits, and begins anew after them).
pub fn dropped(socket: impl AsFd) -> Option<u32> {
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd;
        /// `SK_MEMINFO_DROPS`, the last of linux/sock_diag.h.
        const DROPS: usize = 8;
        let mut info = [0_u32; DROPS + 1];
        let mut length = size_of_val(&info) as libc::socklen_t;
        let fd = socket.as_fd().as_raw_fd();
        // SAFETY: the kernel writes at most `length` bytes to `info`; an older one writes fewer, and says so.
        let answer = unsafe {
            libc::getsockopt(
                fd,
                libc::SOL_SOCKET,
                libc::SO_MEMINFO,
                info.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        (answer == 0 && length as usize == size_of_val(&info)).then_some(info[DROPS])
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = socket;
        None
    }
}
