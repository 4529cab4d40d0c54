//! What is lock-free, in every order in which processes can take its steps (loom); see `scoreboard/tests/model.rs`.

mod atomic {
    pub(super) use loom::sync::atomic::{AtomicU32, Ordering};
}

#[allow(clippy::duplicate_mod, dead_code)]
#[path = "../early.rs"]
mod early;

use atomic::{AtomicU32, Ordering};
use early::Early;
use loom::thread;

fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.max_duration = Some(std::time::Duration::from_secs(20));
    builder.check(model);
}

fn count() -> &'static AtomicU32 {
    Box::leak(Box::new(AtomicU32::new(0)))
}

#[test]
fn connections_of_two_processes_come_and_go_and_none_is_left() {
    check(|| {
        let (mine, other_s, socket) = (count(), count(), count());
        let visit = move |process| {
            let (early, others) = Early::begin(process, socket, false);
            early.gives(1);
            others
        };
        let other = thread::spawn(move || visit(other_s));
        let others = [visit(mine), other.join().unwrap()];
        assert!(others.contains(&0) && others.iter().all(|&others| others <= 1), "{others:?}");
        assert_eq!([mine, other_s, socket].map(|count| count.load(Ordering::Acquire)), [0; 3]);
    });
}

#[test]
fn what_a_dead_process_had_is_taken_off_while_another_goes_on() {
    check(|| {
        let (dead_s, living_s, socket) = (count(), count(), count());
        Early::begin(dead_s, socket, false).0.leave_to_process();
        let living = thread::spawn(move || Early::begin(living_s, socket, false).0.leave_to_process());
        Early::abandon(dead_s, socket);
        living.join().unwrap();
        assert_eq!([dead_s, living_s, socket].map(|count| count.load(Ordering::Acquire)), [0, 1, 1]);
    });
}
