//! System calls that this system has, and that a filter (seccomp(2)) lets through.
//!
//! Containers and service managers filter calls: a call that is forbidden fails with `EPERM`, or with `ENOSYS`, as
//! one that the kernel does not have. Where there is another way, the caller takes that
//! ([`is_forbidden`]). Where there is none, the server must not start: [`first_forbidden`] tries each call with
//! arguments that the kernel refuses, so nothing is done.
//!
//! What the C library and std need before `main` is not tried here: without it the process ends there.

use std::io;

use rustix::io::Errno;

/// Whether a call that fails like this is one that this process may not make.
pub fn is_forbidden(errno: Errno) -> bool {
    matches!(errno, Errno::PERM | Errno::NOSYS)
}

/// As [`is_forbidden`], for std's errors.
pub fn is_forbidden_io(error: &io::Error) -> bool {
    Errno::from_io_error(error).is_some_and(is_forbidden)
}

/// What a server does with system calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Any server: sockets, signals, waiting.
    Serve,
    /// Connections.
    Accept,
    /// Datagrams.
    Receive,
    /// A master with children.
    Fork,
    /// Workers, which are told to leave.
    Work,
    /// Threads.
    StartThreads,
    /// A poller.
    Poll,
    /// Coroutines with stacks of their own.
    Switch,
}

/// The first call that one of these purposes can't do without and that is forbidden: its name, and how it fails.
pub fn first_forbidden(purposes: &[Purpose]) -> Option<(&'static str, io::Error)> {
    table::first_forbidden(purposes).map(|(name, errno)| (name, errno.into()))
}

/// The calls that have another way, and are forbidden or not there: their names, and how they fail.
pub fn missing() -> impl Iterator<Item = (&'static str, io::Error)> {
    table::missing().map(|(name, errno)| (name, errno.into()))
}

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod table {
    use super::*;
    use crate::raw::syscall4;

    /// A call, with arguments that the kernel refuses, or that change nothing.
    #[derive(Clone, Copy)]
    struct Call(&'static str, libc::c_long, [usize; 4]);

    const NO: usize = usize::MAX;

    /// The first argument is a descriptor, or a family, that does not exist.
    const fn of_nothing(name: &'static str, number: libc::c_long) -> Call {
        Call(name, number, [NO, 0, 0, 0])
    }

    impl Call {
        fn fails(self) -> Option<Errno> {
            let Self(_, number, [a, b, c, d]) = self;
            // SAFETY: each call of the tables fails for its arguments before it does anything (EBADF, EFAULT, EINVAL,
            // ESRCH, EAFNOSUPPORT), or asks for a number; it gets no pointer but null.
            let answer = unsafe { syscall4(number, a, b, c, d) };
            answer.err().and_then(|error| Errno::from_io_error(&error)).filter(|&errno| is_forbidden(errno))
        }
    }

    #[cfg(target_arch = "x86_64")]
    const DUP: Call = Call("dup2", libc::SYS_dup2, [NO, NO, 0, 0]);
    #[cfg(target_arch = "aarch64")]
    const DUP: Call = Call("dup3", libc::SYS_dup3, [NO, NO, 0, 0]);

    const CLONE3: Call = Call("clone3", libc::SYS_clone3, [0; 4]);
    /// A thread needs to share signal handlers: EINVAL.
    const CLONE: Call = Call("clone", libc::SYS_clone, [libc::CLONE_THREAD as usize, 0, 0, 0]);

    const SERVE: [Call; 13] = [
        of_nothing("read", libc::SYS_read),
        of_nothing("write", libc::SYS_write),
        of_nothing("close", libc::SYS_close),
        of_nothing("fcntl", libc::SYS_fcntl),
        // a family that a filter may let through, of a type that does not exist
        Call("socket", libc::SYS_socket, [libc::AF_UNIX as usize, NO, 0, 0]),
        of_nothing("socketpair", libc::SYS_socketpair),
        of_nothing("setsockopt", libc::SYS_setsockopt),
        of_nothing("bind", libc::SYS_bind),
        of_nothing("getsockname", libc::SYS_getsockname),
        of_nothing("sendto", libc::SYS_sendto),
        // a descriptor of which there is no address; tools such as valgrind would look at each of a huge number
        Call("ppoll", libc::SYS_ppoll, [0, 1, 0, 0]),
        // a mask of no size
        of_nothing("rt_sigprocmask", libc::SYS_rt_sigprocmask),
        Call("getpid", libc::SYS_getpid, [0; 4]),
    ];
    const ACCEPT: [Call; 1] = [of_nothing("listen", libc::SYS_listen)];
    const RECEIVE: [Call; 2] =
        [of_nothing("recvmsg", libc::SYS_recvmsg), of_nothing("sendmsg", libc::SYS_sendmsg)];
    const FORK: [Call; 4] = [
        // keeps memory from children; an address that is no page's
        Call("madvise", libc::SYS_madvise, [1, 0, 0, 0]),
        Call("kill", libc::SYS_kill, [i32::MAX as usize, 0, 0, 0]),
        // options that do not exist
        Call("wait4", libc::SYS_wait4, [NO, 0, NO, 0]),
        Call("getppid", libc::SYS_getppid, [0; 4]),
    ];
    const WORK: [Call; 2] = [of_nothing("pipe2", libc::SYS_pipe2), DUP];
    const FUTEX_WAKE_PRIVATE: usize = (libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG) as usize;
    const START_THREADS: [Call; 1] = [Call("futex", libc::SYS_futex, [0, FUTEX_WAKE_PRIVATE, 0, 0])];
    const POLL: [Call; 3] = [
        of_nothing("epoll_create1", libc::SYS_epoll_create1),
        of_nothing("epoll_ctl", libc::SYS_epoll_ctl),
        of_nothing("epoll_pwait", libc::SYS_epoll_pwait),
    ];
    const SWITCH: [Call; 2] = [
        // an address that is no page's
        Call("munmap", libc::SYS_munmap, [1, 0, 0, 0]),
        Call("mprotect", libc::SYS_mprotect, [1, 0, 0, 0]),
    ];
    const REPLACEABLE: [Call; 10] = [
        of_nothing("accept4", libc::SYS_accept4),
        CLONE3,
        // the last number is below the first
        Call("close_range", libc::SYS_close_range, [1, 0, 0, 0]),
        // flags that do not exist
        Call("eventfd2", libc::SYS_eventfd2, [0, NO, 0, 0]),
        Call("memfd_create", libc::SYS_memfd_create, [0, NO, 0, 0]),
        // a description of no size
        of_nothing("openat2", libc::SYS_openat2),
        of_nothing("pidfd_open", libc::SYS_pidfd_open),
        of_nothing("pidfd_send_signal", libc::SYS_pidfd_send_signal),
        of_nothing("recvmmsg", libc::SYS_recvmmsg),
        of_nothing("splice", libc::SYS_splice),
    ];

    pub(super) fn missing() -> impl Iterator<Item = (&'static str, Errno)> {
        REPLACEABLE.into_iter().filter_map(|call| Some((call.0, call.fails()?)))
    }

    pub(super) fn first_forbidden(purposes: &[Purpose]) -> Option<(&'static str, Errno)> {
        purposes.iter().find_map(|purpose| match purpose {
            Purpose::Serve => first_of(&SERVE),
            Purpose::Accept => first_of(&ACCEPT).or_else(|| {
                let [new, old] =
                    [of_nothing("accept4", libc::SYS_accept4), of_nothing("accept", libc::SYS_accept)];
                either(new, old, is_forbidden)
            }),
            Purpose::Receive => first_of(&RECEIVE),
            Purpose::Fork => first_of(&FORK).or_else(|| either(CLONE3, CLONE, is_forbidden)),
            Purpose::Work => first_of(&WORK),
            // the C library takes the other way only where the kernel has no such call
            Purpose::StartThreads => {
                first_of(&START_THREADS).or_else(|| either(CLONE3, CLONE, |errno| errno == Errno::NOSYS))
            }
            Purpose::Poll => first_of(&POLL),
            Purpose::Switch => first_of(&SWITCH),
        })
    }

    fn first_of(calls: &[Call]) -> Option<(&'static str, Errno)> {
        calls.iter().find_map(|call| Some((call.0, call.fails()?)))
    }

    /// Where the first fails in a way that has the second tried, that one decides.
    fn either(first: Call, second: Call, tries: impl Fn(Errno) -> bool) -> Option<(&'static str, Errno)> {
        match first.fails() {
            Some(errno) if tries(errno) => first_of(&[second]),
            outcome => outcome.map(|errno| (first.0, errno)),
        }
    }
}

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
mod table {
    use super::*;

    /// The portable path has none of them.
    pub(super) fn missing() -> impl Iterator<Item = (&'static str, Errno)> {
        std::iter::empty()
    }

    /// Elsewhere calls are not filtered, and the first use tells.
    pub(super) fn first_forbidden(_: &[Purpose]) -> Option<(&'static str, Errno)> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_forbidden_here_and_trying_does_nothing() {
        use Purpose::{Accept, Fork, Poll, Receive, Serve, StartThreads, Switch, Work};
        let all = [Serve, Accept, Receive, Fork, Work, StartThreads, Poll, Switch];
        let forbidden = first_forbidden(&all);
        assert!(forbidden.is_none(), "{forbidden:?}");
        // an old kernel may lack some
        assert!(missing().all(|(_, error)| is_forbidden_io(&error)));
    }
}
