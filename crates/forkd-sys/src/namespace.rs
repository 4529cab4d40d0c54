//! The network that a socket belongs to: network_namespaces(7).

use std::os::fd::AsFd;

/// A number that no other network namespace has before the next boot; of a socket, that of its own (Linux 5.14,
/// `SO_NETNS_COOKIE`).
pub fn network_of(socket: impl AsFd) -> Option<u64> {
    #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        use std::os::fd::AsRawFd;
        const SO_NETNS_COOKIE: libc::c_int = 71;
        let mut cookie = 0_u64;
        let mut length = size_of_val(&cookie) as libc::socklen_t;
        let fd = socket.as_fd().as_raw_fd();
        // SAFETY: the kernel writes at most `length` bytes to `cookie`, for which each value is one.
        let answer = unsafe {
            libc::getsockopt(fd, libc::SOL_SOCKET, SO_NETNS_COOKIE, (&raw mut cookie).cast(), &raw mut length)
        };
        (answer == 0 && length as usize == size_of_val(&cookie)).then_some(cookie)
    }
    #[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
    {
        let _ = socket;
        None
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn sockets_of_one_process_belong_to_one_network() {
        let (one, other) = UnixDatagram::pair().unwrap();
        assert_eq!(network_of(one), network_of(other));
        assert_eq!(network_of(std::io::pipe().unwrap().0), None);
    }
}
