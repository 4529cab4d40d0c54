//! Stackful coroutines, scheduled by readiness: what Python has as greenlet and gevent.
//!
//! A coroutine is a function with a stack of its own. Where it has to wait, for bytes, a time or another
//! coroutine, others in the same thread go on. Code is written as if it blocked; nothing is `async`, and
//! nothing else runs between two waits, so nothing need be locked.
//!
//! ```
//! use std::time::{Duration, Instant};
//! use forkd_server::coroutine::{self, join_all, sleep, spawn};
//!
//! coroutine::run(|| {
//!     let start = Instant::now();
//!     let naps: Vec<_> = (0..100).map(|_| spawn(|| sleep(Duration::from_millis(20)))).collect();
//!     join_all(naps, None);
//!     assert!(start.elapsed() < Duration::from_secs(1), "they have slept at the same time");
//! })?;
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # In a server
//!
//! Under [`Model::Coroutine`](crate::model::Model::Coroutine) each connection is served by a coroutine: the same
//! [`Handler`](crate::Handler) as under the other models, whose reads and writes let others go on. It can spawn
//! further ones, and ask other servers by [`TcpStream`].
//!
//! What this module does not know of blocks *all* coroutines of a worker: [`std::thread::sleep`], sockets and locks
//! of `std`, long computations (see [`yield_now`]), a name that is resolved. [`sleep`], [`yield_now`] and the sockets here are
//! right everywhere: where no coroutines run, they block as those of `std` do.
//!
//! # Coming from greenlet and gevent
//!
//! | there | here |
//! |---|---|
//! | `gevent.spawn(f)` | [`spawn`] |
//! | `g.join()`, `g.get()` | [`JoinHandle::join`], which returns what `f` does, or its panic |
//! | `gevent.joinall(gs, timeout)` | [`join_all`] |
//! | `gevent.sleep(s)`, `gevent.sleep(0)` | [`sleep`], [`yield_now`] |
//! | `gevent.pool.Pool(n)` | [`Pool`] |
//! | `gevent.socket`, `monkey.patch_all()` | [`TcpStream`], [`UnixStream`], [`UdpSocket`]; Rust has no way to patch `std` |
//! | `DatagramServer` | [`Server`](crate::Server) with `udp://`, or [`UdpSocket`] |
//! | `StreamServer` | [`Server`](crate::Server) with [`Model::Coroutine`](crate::model::Model::Coroutine), or [`TcpListener`] |
//! | `LoopExit` | a panic of [`run`]: all wait for each other |
//! | `greenlet(f)`, `g.switch(x)` | [`Coroutine::new`], [`Coroutine::switch`] |
//! | `g.parent.switch(x)` | [`back`]; the parent is always the code that switched from outside |
//! | `greenlet.getcurrent()` | none; a coroutine knows [names](Switch) |
//! | the hub | [`run`], whose main function it is that waits |
//!
//! # Stacks
//!
//! A stack has [`STACK_SIZE`] bytes, of which only what is touched takes memory, and a guard page: a recursion without
//! end is a SIGSEGV, which ends the process. Under a server that is the worker, and the master says so in its
//! log and starts another. [`Builder::stack_size`] gives a coroutine more.
//!
//! # Fork safety
//!
//! A scheduler belongs to its thread and its process. A child that is forked while it runs shares its epoll
//! instance, and must do nothing with it but exec or exit.

mod net;
mod pool;
mod scheduler;
mod stacks;
mod state;
mod switch;
mod task;
mod waiter;

use std::io;

pub use net::{TcpListener, TcpStream, UdpSocket, UnixListener, UnixStream};
pub use pool::Pool;
pub(crate) use scheduler::scheduler;
pub use stacks::STACK_SIZE;
pub(crate) use state::MAIN;
pub use switch::{Coroutine, Switch, SwitchError, back};
pub use task::{Builder, JoinHandle, Joined, join_all, sleep, spawn, yield_now};
pub(crate) use waiter::Waiter;

/// Runs `main`, and the coroutines that it spawns while it waits; returns what it returns.
///
/// Coroutines that are left then are unwound where they wait, so that what they have is dropped.
///
/// `main` runs on the thread's own stack, and may borrow.
///
/// # Errors
///
/// As epoll_create1(2) or kqueue(2): there may be no descriptor left.
///
/// # Panics
///
/// Within another `run` of the same thread; when every coroutine waits for another one, which would last for ever;
/// and as `main` does.
///
/// # Examples
///
/// ```
/// use forkd_server::coroutine::{self, spawn};
///
/// let answer = coroutine::run(|| spawn(|| 42).join().unwrap())?;
/// assert_eq!(answer, 42);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn run<T>(main: impl FnOnce() -> T) -> io::Result<T> {
    scheduler::run(|| switch::apart(main))
}

#[cfg(test)]
mod tests;
