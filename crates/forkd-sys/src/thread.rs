//! Threads that start quickly, on small stacks.
//!
//! std gives each thread a mapping of its own for its signal stack, and takes it away again: at every
//! start and end the process's memory map changes, while its other threads wait. With 32 clients at
//! once, a thread for each connection is a third slower that way. These have a signal stack that is used
//! again. And they allocate nothing themselves before their body does: the allocator would map memory for each of them.

use std::ffi::{CStr, c_void};
use std::io;
use std::mem::{MaybeUninit, forget};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::{Mutex, PoisonError};

use nix::sys::signal::{SaFlags, SigHandler, SigSet, Signal};

use super::disposition::set;
use super::signal::POKE;

/// How much address space a stack has, in bytes: many times what the services need, even in a debug
/// build, and room for a handler with buffers of its own. Pages that are not touched take no memory.
const STACK: usize = 256 * 1024;

/// On this one a stack overflow is recorded, when there is no other: the kernel puts all registers there (12 KiB
/// at most, with AMX), and the handler needs little.
const SIGNAL_STACK: usize = 16 * 1024;

/// A thread. Dropping this leaves it to itself.
#[derive(Debug)]
pub struct Thread(libc::pthread_t);

struct Job<F> {
    name: &'static CStr,
    body: F,
    signal_stack: Area,
}

/// Starts a thread, which the system shows under this name (15 bytes of it). A panic ends that thread only.
///
/// SIGTERM is blocked in it: it goes to the main thread, which may have to be called back from accept(2).
///
/// # Errors
///
/// `EAGAIN` or `ENOMEM` as in pthread_create(3), and the body comes back.
pub fn spawn<F: FnOnce() + Send + 'static>(name: &'static CStr, body: F) -> Result<Thread, (F, io::Error)> {
    let job = Box::into_raw(Box::new(Job { name, body, signal_stack: take_area() }));
    // what is blocked in it from its first instruction on, it inherits
    let before = SigSet::thread_get_mask().unwrap_or_else(|_| SigSet::empty());
    let mut inside = before;
    inside.add(Signal::SIGTERM);
    inside.remove(POKE);
    let _ = inside.thread_set_mask();
    let created = create(start::<F>, job.cast());
    let _ = before.thread_set_mask();
    match created {
        Ok(id) => Ok(Thread(id)),
        Err(error) => {
            // SAFETY: no thread has come to be, so the box, which was made above, is still ours alone.
            let Job { body, signal_stack, .. } = *unsafe { Box::from_raw(job) };
            put_back_area(signal_stack);
            Err((body, error))
        }
    }
}

fn create(start: extern "C" fn(*mut c_void) -> *mut c_void, job: *mut c_void) -> io::Result<libc::pthread_t> {
    let check = |errno| if errno == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(errno)) };
    let mut attributes = MaybeUninit::uninit();
    let mut id = MaybeUninit::uninit();
    // SAFETY: the attributes are used between init and destroy only. pthread_create(3) sets `id` where it
    // returns 0, and then `start` runs once, with the job that was made for it.
    unsafe {
        check(libc::pthread_attr_init(attributes.as_mut_ptr()))?;
        let created = check(libc::pthread_attr_setstacksize(attributes.as_mut_ptr(), STACK))
            .and_then(|()| check(libc::pthread_create(id.as_mut_ptr(), attributes.as_ptr(), start, job)));
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
        created.map(|()| id.assume_init())
    }
}

extern "C" fn start<F: FnOnce()>(job: *mut c_void) -> *mut c_void {
    // SAFETY: `spawn` made this box of a `Job<F>`, and gave it up to this thread.
    let memory = unsafe { Box::from_raw(job.cast::<MaybeUninit<Job<F>>>()) };
    // SAFETY: the job is in there, and is taken out once, here. The memory is freed at the end: this thread's first call
    // of the allocator maps memory for it.
    let Job { name, body, signal_stack } = unsafe { memory.assume_init_read() };
    // a name is for people: without one it works as well
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::set_name(name);
    #[cfg(not(target_os = "linux"))]
    let _ = name;
    let signal_stack = SignalStack::put_on(signal_stack);
    // the panic hook has said what there is to say
    let _ = catch_unwind(AssertUnwindSafe(body));
    put_back_area(signal_stack.take_off());
    ptr::null_mut()
}

impl Thread {
    /// Ends what the thread waits for in the kernel, if it does: a call that is restarted (SA_RESTART)
    /// looks at its arguments anew.
    pub fn poke(&self) -> io::Result<()> {
        extern "C" fn nothing(_: i32) {}
        set(POKE, SigHandler::Handler(nothing), SaFlags::SA_RESTART)?;
        // SAFETY: the thread is neither joined nor detached while `self` lives, so its id is good, even
        // if it has ended.
        match unsafe { libc::pthread_kill(self.0, POKE as i32) } {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    /// Waits until it has ended.
    pub fn join(self) {
        // SAFETY: as in `poke`; after this the id is not used any more.
        unsafe { libc::pthread_join(self.0, ptr::null_mut()) };
        forget(self);
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // SAFETY: as in `join`.
        unsafe { libc::pthread_detach(self.0) };
    }
}

/// Memory for a signal stack, which no other thread has.
type Area = &'static mut [MaybeUninit<u8>];

/// How many are made at once.
const AREAS: usize = 32;

/// Those that no thread has. There are never more than there were threads at once, and their pages take no memory until
/// a signal comes.
static AREAS_LEFT: Mutex<Vec<Area>> = Mutex::new(Vec::new());

fn take_area() -> Area {
    let mut left = AREAS_LEFT.lock().unwrap_or_else(PoisonError::into_inner);
    if left.is_empty() {
        let memory = Box::leak(Box::new_uninit_slice(AREAS * SIGNAL_STACK));
        left.extend(memory.chunks_exact_mut(SIGNAL_STACK));
    }
    left.pop().unwrap_or_default()
}

fn put_back_area(area: Area) {
    AREAS_LEFT.lock().unwrap_or_else(PoisonError::into_inner).push(area);
}

/// The signal stack of the thread that put it on.
struct SignalStack {
    /// The kernel writes here, while a handler runs.
    memory: Area,
}

impl SignalStack {
    fn put_on(memory: Area) -> Self {
        let stack = libc::stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: 0, ss_size: memory.len() };
        // SAFETY: the memory is never freed, and no other thread gets it before `take_off`. If it is too small for this
        // processor's registers, the thread goes without.
        unsafe { libc::sigaltstack(&raw const stack, ptr::null_mut()) };
        Self { memory }
    }

    fn take_off(self) -> Area {
        let off = libc::stack_t { ss_sp: ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: SIGNAL_STACK };
        // SAFETY: this is no signal handler, so the stack is not in use.
        unsafe { libc::sigaltstack(&raw const off, ptr::null_mut()) };
        self.memory
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use rustix::io::Errno;

    use super::*;
    use crate::shutdown_fd::ShutdownFd;

    #[test]
    fn a_thread_runs_and_a_panic_ends_it_alone() {
        let (sender, results) = channel();
        let body = move || {
            sender.send(SigSet::thread_get_mask().expect("mask").contains(Signal::SIGTERM)).expect("send");
            std::panic::resume_unwind(Box::new("as was wished"));
        };
        let Ok(thread) = spawn(c"test", body) else { panic!("no thread") };
        assert_eq!(results.recv_timeout(Duration::from_secs(10)), Ok(true));
        thread.join();
        assert!(!SigSet::thread_get_mask().expect("mask").contains(Signal::SIGTERM));
    }

    #[test]
    fn poked_threads_find_the_gate_shut() {
        let dir = tempfile::tempdir().expect("a directory");
        let listener = UnixListener::bind(dir.path().join("s")).expect("bind");
        let shutdown: &'static ShutdownFd =
            Box::leak(Box::new(ShutdownFd::new(&listener, true).expect("shutdown")));
        let (sender, results) = channel();
        let waits = || {
            let sender = sender.clone();
            let body = move || sender.send(rustix::net::accept(shutdown).map(|_| ())).expect("send");
            spawn(c"test", body).unwrap_or_else(|(_, error)| panic!("{error}"))
        };
        let threads = [waits(), waits(), waits()];
        shutdown.shut();
        for thread in &threads {
            thread.poke().expect("poke");
        }
        for thread in threads {
            assert_eq!(results.recv_timeout(Duration::from_secs(10)), Ok(Err(Errno::NOTSOCK)));
            thread.join();
        }
    }
}
