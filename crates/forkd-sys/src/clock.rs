//! The monotonic clock, read by a system call.

/// Microseconds since some moment in the past, the same for all processes.
///
/// Not by way of the vDSO, as std reads it: a new child would have to fault in that page first, which
/// costs more than the system call. Async-signal-safe.
#[inline(always)]
pub fn monotonic_us() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
    // SAFETY: the kernel writes a timespec to `now`, which lives through the call.
    let _ = unsafe {
        super::raw::syscall4(
            libc::SYS_clock_gettime,
            libc::CLOCK_MONOTONIC as usize,
            (&raw mut now).addr(),
            0,
            0,
        )
    };
    #[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
    // SAFETY: as above.
    unsafe {
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now);
    }
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn goes_as_fast_as_the_clock_of_std() {
        let (start, before) = (Instant::now(), monotonic_us());
        std::thread::sleep(Duration::from_millis(20));
        let (inner, outer) = (monotonic_us() - before, start.elapsed().as_micros() as u64);
        // Both moments are whole microseconds: their difference can be almost one more than what passed.
        assert!((20_000..=outer + 1).contains(&inner), "{inner} of {outer}");
    }
}
