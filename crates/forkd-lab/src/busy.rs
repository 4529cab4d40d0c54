//! How much of the processors other programs leave.

use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};

/// For how long it is tried.
const SPAN: Duration = Duration::from_millis(200);

/// The share of all processors that this process gets when it wants them: it runs one thread for each for a moment. So a quota
/// of a control group counts as what other programs take, and what they do at a lower priority does not.
pub(crate) fn share() -> f64 {
    let count = std::thread::available_parallelism().map_or(1, |count| count.get());
    let (before, began) = (used(), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..count {
            scope.spawn(|| while began.elapsed() < SPAN {});
        }
    });
    let could = began.elapsed().as_secs_f64() * count as f64;
    ((used() - before) / could).min(1.0)
}

/// The processor time of this process so far in seconds.
fn used() -> f64 {
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    getrusage(UsageWho::RUSAGE_SELF)
        .map_or(0.0, |usage| seconds(usage.user_time()) + seconds(usage.system_time()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_share() {
        let share = share();
        assert!(share > 0.0 && share <= 1.0, "{share}");
    }
}
