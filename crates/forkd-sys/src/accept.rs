//! accept(2), also where a filter forbids accept4(2), and one that does not wait, on a socket that other processes share.
//!
//! Whether accept(2) waits is said by `O_NONBLOCK`, which belongs to the open file description: all processes that
//! share the socket have the same flag, and any of them may change it at any moment. There is no flag for one
//! call, as recvmsg(2) has in `MSG_DONTWAIT`. poll(2) tells whether there is a client, but another process may
//! accept it first. So a timer interrupts the call, again and again until it has returned. Without a timer there is no
//! call: a server asks at its start whether there is one ([`check_timer`]).

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::io::{Errno, Result};
use rustix::net::{SocketAddrAny, acceptfrom};

#[cfg(not(target_vendor = "apple"))]
use super::calls::is_forbidden;
use super::fd::wait_readable;
use super::socket::{Mode, made};

/// Accepts a client, with the address of the other end. Waits for one, if the socket blocks.
///
/// # Errors
///
/// As accept(2).
#[inline]
pub fn accept(socket: impl AsFd, mode: Mode) -> Result<(OwnedFd, Option<SocketAddrAny>)> {
    #[cfg(not(target_vendor = "apple"))]
    match rustix::net::acceptfrom_with(&socket, super::socket::flags(mode)) {
        // a filter may know accept(2) only; or a firewall has forbidden one connection, which that doesn't return
        Err(errno) if is_forbidden(errno) => {}
        accepted => return accepted,
    }
    accept_without_flags(socket, mode)
}

#[cold]
fn accept_without_flags(socket: impl AsFd, mode: Mode) -> Result<(OwnedFd, Option<SocketAddrAny>)> {
    let (connection, address) = acceptfrom(socket)?;
    Ok((made(connection, mode)?, address))
}

/// Accepts a client if there is one, with the address of the other end.
///
/// # Errors
///
/// As accept(2), and `AGAIN` where there is no client, whether the socket blocks or not; `NOBUFS` where the kernel has no
/// timer for this process at the moment.
pub fn accept_now(socket: impl AsFd, mode: Mode) -> Result<(OwnedFd, Option<SocketAddrAny>)> {
    if !wait_readable(&socket, Duration::ZERO) {
        return Err(Errno::AGAIN);
    }
    match timer::interrupted(|| accept(&socket, mode)) {
        // another process was quicker, and no other client has come since
        Err(Errno::INTR) => Err(Errno::AGAIN),
        accepted => accepted,
    }
}

/// Whether this process can have the timer that [`accept_now`] needs.
///
/// # Errors
///
/// As timer_create(2): a filter forbids it, or this user has as many signals queued as allowed (`RLIMIT_SIGPENDING`).
pub fn check_timer() -> std::io::Result<()> {
    timer::check()
}

#[cfg(any(
    target_os = "linux",
    target_os = "freebsd",
    target_os = "netbsd",
    target_os = "illumos",
    target_os = "solaris"
))]
mod timer {
    use std::cell::RefCell;
    use std::mem::ManuallyDrop;
    use std::time::Duration;

    use nix::Result;
    use nix::sys::signal::{SaFlags, SigEvent, SigHandler, SigSet, SigevNotify};
    use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
    use nix::time::ClockId;
    use rustix::io::Errno;
    use rustix::process::{Pid, getpid};

    use super::super::disposition::set;
    use super::super::signal::NUDGE;

    /// How long a call waits, unless the timer expires before the call has begun: then for as long again. A time that
    /// is shorter than the kernel's own tick would cost twice as much, as each start would set up the hardware anew.
    const LIMIT: Duration = Duration::from_millis(10);

    thread_local! {
        /// The timer of this thread, and the process that has made it. A forked child has none of its parent's, so it is
        /// never deleted.
        static TIMER: RefCell<Option<(Pid, ManuallyDrop<Timer>)>> = const { RefCell::new(None) };
    }

    /// Makes a call that fails with `INTR` where it would wait for longer than [`LIMIT`]; without a timer it is not made.
    pub(super) fn interrupted<T>(call: impl FnOnce() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
        TIMER.with_borrow_mut(|timer| {
            // not AGAIN, as timer_create(2) says where there is none: that would mean that there is no client
            let timer = started(timer).map_err(|_| Errno::NOBUFS)?;
            let outcome = call();
            let _ = stop(timer);
            outcome
        })
    }

    fn started(slot: &mut Option<(Pid, ManuallyDrop<Timer>)>) -> Result<&mut Timer> {
        let process = getpid();
        let timer = match slot.take() {
            Some((of, timer)) if of == process => timer,
            _ => {
                heed()?;
                ManuallyDrop::new(make()?)
            }
        };
        let (_, timer) = slot.insert((process, timer));
        timer.set(Expiration::IntervalDelayed(LIMIT.into(), LIMIT.into()), TimerSetTimeFlags::empty())?;
        Ok(timer)
    }

    fn stop(timer: &mut Timer) -> Result<()> {
        timer.set(Expiration::OneShot(Duration::ZERO.into()), TimerSetTimeFlags::empty())
    }

    /// Makes one, sets it to nothing, and deletes it.
    pub(super) fn check() -> std::io::Result<()> {
        make().and_then(|mut timer| stop(&mut timer)).map_err(Into::into)
    }

    /// Has this thread's calls end by the signal.
    fn heed() -> Result<()> {
        extern "C" fn nothing(_: i32) {}
        // without SA_RESTART: the call shall end
        set(NUDGE, SigHandler::Handler(nothing), SaFlags::empty())
            .map_err(|error| nix::Error::from_raw(error.raw_os_error().unwrap_or(libc::EINVAL)))?;
        SigSet::from(NUDGE).thread_unblock()
    }

    fn make() -> Result<Timer> {
        Timer::new(ClockId::CLOCK_MONOTONIC, SigEvent::new(to_this_thread()))
    }

    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    fn to_this_thread() -> SigevNotify<'static> {
        let thread_id = rustix::thread::gettid().as_raw_pid();
        SigevNotify::SigevThreadId { signal: NUDGE, thread_id, si_value: 0 }
    }

    /// Elsewhere to the process, whose main thread is the one that accepts.
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    fn to_this_thread() -> SigevNotify<'static> {
        SigevNotify::SigevSignal { signal: NUDGE, si_value: 0 }
    }
}

/// Where there are no timers of POSIX, poll(2) has to do.
#[cfg(not(any(
    target_os = "linux",
    target_os = "freebsd",
    target_os = "netbsd",
    target_os = "illumos",
    target_os = "solaris"
)))]
mod timer {
    pub(super) fn interrupted<T>(call: impl FnOnce() -> T) -> T {
        call()
    }

    pub(super) fn check() -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;
    use crate::fd::set_nonblocking;

    #[test]
    fn a_call_that_would_wait_is_interrupted() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        for _ in 0..3 {
            let outcome = timer::interrupted(|| rustix::net::accept(&listener));
            assert_eq!(outcome.map(|_| ()), Err(Errno::INTR));
        }
        // in another thread, too
        let other =
            std::thread::spawn(move || timer::interrupted(|| rustix::net::accept(&listener)).map(|_| ()));
        assert_eq!(other.join().expect("join"), Err(Errno::INTR));
    }

    #[test]
    fn it_is_the_same_whether_the_socket_blocks_or_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("s");
        let (tcp, unix) =
            (TcpListener::bind("127.0.0.1:0").expect("bind"), UnixListener::bind(&path).expect("bind"));
        let accept = |socket: &dyn AsFd| accept_now(socket.as_fd(), Mode::Blocking).map(|_| ());
        for blocks in [true, false] {
            set_nonblocking(&tcp, !blocks).expect("flag");
            set_nonblocking(&unix, !blocks).expect("flag");
            assert_eq!((accept(&tcp), accept(&unix)), (Err(Errno::AGAIN), Err(Errno::AGAIN)));
            let _client = TcpStream::connect(tcp.local_addr().expect("address")).expect("connect");
            let _other = UnixStream::connect(&path).expect("connect");
            assert_eq!((accept(&tcp), accept(&unix)), (Ok(()), Ok(())));
            assert_eq!((accept(&tcp), accept(&unix)), (Err(Errno::AGAIN), Err(Errno::AGAIN)));
        }
    }
}
