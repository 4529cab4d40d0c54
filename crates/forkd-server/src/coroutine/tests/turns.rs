//! Which coroutine goes on when, and how it ends.

use std::cell::{Cell, RefCell};
use std::io::{self, Read, Write};
use std::os::unix::net;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Instant;

use super::super::*;
use super::{LONG, Log, ms};
use crate::fairness::TURN;

#[test]
fn each_has_its_turn_in_the_order_of_spawning() {
    let log = Log::default();
    run(|| {
        let begin = |names: [&'static str; 3]| {
            let log = log.clone();
            spawn(move || {
                for name in names {
                    log.add(name);
                    yield_now();
                }
            })
        };
        let handles = [begin(["a1", "a2", "a3"]), begin(["b1", "b2", "b3"])];
        assert!(log.take().is_empty(), "none runs before the main function waits");
        join_all(handles, None);
    })
    .expect("run");
    assert_eq!(log.take(), ["a1", "b1", "a2", "b2", "a3", "b3"]);
}

#[test]
fn sleepers_wake_in_the_order_of_their_times() {
    let log = Log::default();
    run(|| {
        for (span, name) in [(30, "late"), (10, "early"), (20, "between")] {
            let log = log.clone();
            spawn(move || {
                sleep(ms(span));
                log.add(name);
            });
        }
        sleep(ms(60));
    })
    .expect("run");
    assert_eq!(log.take(), ["early", "between", "late"]);
}

#[test]
fn join_all_gives_back_those_that_are_not_in_time() {
    run(|| {
        let nap = |span| spawn(move || sleep(span));
        let start = Instant::now();
        let mut joined = join_all(
            [nap(LONG), nap(ms(1)), spawn(|| std::panic::resume_unwind(Box::new("as was wished")))],
            Some(ms(50)),
        );
        assert!(start.elapsed() >= ms(50) && start.elapsed() < LONG);
        assert!(matches!(joined.pop(), Some(Ok(Err(_)))), "the panic");
        assert!(matches!(joined.pop(), Some(Ok(Ok(())))));
        let Some(Err(late)) = joined.pop() else { panic!("the long one has not ended") };
        assert!(!late.is_finished());
    })
    .expect("run");
}

#[test]
fn a_panic_ends_one_and_gives_its_stack_back() {
    run(|| {
        for n in 0..1000 {
            let outcome =
                spawn(move || if n % 2 == 0 { std::panic::resume_unwind(Box::new(n)) } else { n }).join();
            match outcome {
                Ok(value) => assert_eq!(value, n),
                Err(payload) => assert_eq!(payload.downcast_ref(), Some(&n)),
            }
        }
    })
    .expect("run");
}

#[test]
fn the_end_of_the_main_function_drops_what_others_have() {
    struct Dropped(Log);
    impl Drop for Dropped {
        fn drop(&mut self) {
            // what waits at the end waits for nothing, whether it has begun or not
            sleep(LONG);
            self.0.add("dropped");
        }
    }
    let log = Log::default();
    let sleeper = run(|| {
        let (here, there) = (Dropped(log.clone()), Dropped(log.clone()));
        let sleeper = spawn(move || {
            let _here = here;
            sleep(LONG);
        });
        yield_now();
        spawn(move || drop(there));
        sleeper
    })
    .expect("run");
    assert_eq!(log.take(), ["dropped", "dropped"]);
    assert!(sleeper.is_finished() && sleeper.join().is_err());
}

#[test]
fn a_panic_of_the_main_function_ends_all_and_another_run_can_follow() {
    let log = Log::default();
    let inner = log.clone();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        run(|| {
            spawn(move || {
                inner.add("begun");
                sleep(LONG);
                inner.add("never");
            });
            yield_now();
            std::panic::resume_unwind(Box::new("as was wished"));
        })
    }));
    assert!(outcome.is_err());
    assert_eq!(log.take(), ["begun"]);
    assert_eq!(run(|| spawn(|| 7).join().expect("no panic")).expect("run"), 7);
}

#[test]
fn what_would_last_for_ever_is_a_panic() {
    let outcome = catch_unwind(|| {
        run(|| {
            let never: Rc<RefCell<Option<JoinHandle<()>>>> = Rc::default();
            let itself = Rc::clone(&never);
            never.replace(Some(spawn(move || {
                let me = itself.take().expect("its own handle");
                let _ = me.join();
            })));
            let pool = Pool::new(1);
            let inner = pool.clone();
            pool.spawn(move || inner.join());
            pool.join();
        })
    });
    let panic = outcome.expect_err("a panic");
    assert!(panic.downcast_ref::<&str>().is_some_and(|text| text.contains("for ever")));
}

#[test]
fn what_needs_a_scheduler_says_so_and_what_does_not_blocks() {
    let panic = catch_unwind(|| spawn(|| ())).expect_err("a panic");
    let text = panic.downcast_ref::<&str>().expect("a sentence");
    assert!(text.contains("forkd_server::coroutine::run"), "{text}");
    sleep(ms(1));
    yield_now();
    let (mut one, mut other) = UnixStream::pair().expect("pair");
    one.set_read_timeout(Some(ms(5))).expect("time-out");
    assert_eq!(one.read(&mut [0; 9]).expect_err("silence").kind(), io::ErrorKind::WouldBlock);
    other.write_all(b"hello").expect("write");
    assert_eq!(one.read(&mut [0; 9]).expect("read"), 5);
}

#[test]
fn a_pool_is_never_over_full_and_a_panic_leaves_its_place() {
    run(|| {
        let (pool, most) = (Pool::new(4), Rc::new(Cell::new(0)));
        for n in 0..40 {
            let (here, most) = (pool.clone(), Rc::clone(&most));
            pool.spawn(move || {
                most.set(most.get().max(here.running()));
                sleep(ms(n % 3));
                if n % 5 == 0 {
                    std::panic::resume_unwind(Box::new("as was wished"));
                }
            });
            assert!(pool.running() <= 4);
        }
        pool.join();
        assert_eq!((most.get(), pool.running()), (4, 0));
    })
    .expect("run");
}

/// Touches some 128 bytes of stack for each level at least.
fn depth(levels: u32) -> u32 {
    let room = std::hint::black_box([levels; 32]);
    if levels == 0 { 0 } else { depth(levels - 1) + room[0] / room[31] }
}

#[test]
fn a_stack_has_the_size_that_is_promised() {
    run(|| {
        // the frames of a debug build are a good deal larger than what is in them
        assert_eq!(spawn(|| depth(300)).join().expect("no panic"), 300);
        let large = Builder::new().stack_size(16 << 20).spawn(|| depth(20_000)).expect("a stack");
        assert_eq!(large.join().expect("no panic"), 20_000);
    })
    .expect("run");
}

#[test]
fn a_short_message_waits_for_one_turn_of_all_that_carry_bulk() {
    const BULK: usize = 20;
    let (reads, bytes, asked) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let waits: Vec<usize> = run(|| {
        let (mut ours, theirs) = net::UnixStream::pair().expect("pair");
        let mut clients = Vec::new();
        for _ in 0..BULK {
            let (here, mut there) = net::UnixStream::pair().expect("pair");
            there.set_nonblocking(true).expect("flag");
            while there.write(&[7; 1 << 16]).is_ok() {}
            clients.push(there);
            let (reads, bytes, asked) = (Rc::clone(&reads), Rc::clone(&bytes), Rc::clone(&asked));
            let mut asks = ours.try_clone().expect("clone");
            spawn(move || {
                let mut here = UnixStream::from_std(here)?;
                let mut chunk = vec![0; 1 << 14];
                loop {
                    let n = here.read(&mut chunk)?;
                    bytes.set(bytes.get() + n);
                    reads.set(reads.get() + 1);
                    // by now all of them are known to have much
                    if [9, 10, 11].map(|reads| reads * BULK).contains(&reads.get()) {
                        asked.set(bytes.get());
                        asks.write_all(b"?")?;
                    }
                }
                #[allow(unreachable_code)]
                Ok::<(), io::Error>(())
            });
        }
        let mut quiet = UnixStream::from_std(theirs).expect("socket");
        let waits = (0..3).map(|_| {
            quiet.read_exact(&mut [0]).expect("read");
            bytes.get() - asked.get()
        });
        let waits = waits.collect();
        ours.write_all(b"!").expect("write");
        waits
    })
    .expect("run");
    assert!(waits.iter().all(|&bytes| bytes <= TURN), "{waits:?}");
}
