//! Coroutines that say themselves which goes on.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use super::super::*;
use super::{Log, ms};

#[test]
fn two_switch_to_each_other_by_name() {
    let log = Log::default();
    let (one, two) = (Switch::new(), Switch::new());
    let (to_two, to_one) = (two.clone(), one.clone());
    // the example of greenlet's documentation
    let first = log.clone();
    let _one = one.becomes(move |()| {
        first.add("12");
        to_two.switch(()).expect("switch");
        first.add("34");
    });
    let second = log.clone();
    let _two = two.becomes(move |()| {
        second.add("56");
        to_one.switch(()).expect("switch");
        second.add("78");
    });
    one.switch(()).expect("switch");
    assert_eq!(log.take(), ["12", "56", "34"]);
    assert_eq!(one.switch(()), Err(SwitchError::Ended(())));
    two.switch(()).expect("switch");
    assert_eq!(log.take(), ["78"]);
}

#[test]
fn who_can_not_be_switched_to_says_why() {
    assert_eq!(Switch::new().switch(1), Err(SwitchError::Vacant(1)));
    assert_eq!(back(2), Err(SwitchError::Outside(2)));
    let name = Switch::new();
    let itself = name.clone();
    let one = name.becomes(move |n| itself.switch(n).expect_err("it runs").into_value() + 1);
    assert_eq!(one.switch(3), Ok(4));
    assert!(one.is_finished());
    let failing = Coroutine::new(|()| std::panic::resume_unwind(Box::new("as was wished")));
    assert!(catch_unwind(AssertUnwindSafe(|| failing.switch(()))).is_err());
    assert_eq!(failing.switch(()), Err(SwitchError::Ended(())));
    let name = Coroutine::new(|n: u8| n).name();
    assert_eq!(name.switch(5), Err(SwitchError::Ended(5)), "it was dropped");
}

#[test]
fn one_that_is_dropped_while_it_runs_ends_when_it_stops() {
    let log = Log::default();
    let owner: Rc<RefCell<Option<Coroutine<u8>>>> = Rc::default();
    let (mine, noted) = (Rc::clone(&owner), log.clone());
    struct OnDrop(Log);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            self.0.add("unwound");
        }
    }
    let one = Coroutine::new(move |n| {
        let _on_drop = OnDrop(noted);
        drop(mine.take());
        back(n + 1).expect("back")
    });
    let name = one.name();
    owner.replace(Some(one));
    assert_eq!(name.switch(1), Ok(2));
    assert_eq!(log.take(), ["unwound"]);
}

#[test]
fn one_that_is_switched_to_may_wait_and_others_go_on() {
    let log = Log::default();
    run(|| {
        let other = log.clone();
        spawn(move || {
            sleep(ms(5));
            other.add("another");
        });
        let inner = log.clone();
        let sleeper = Coroutine::new(move |n: u32| {
            sleep(ms(30));
            inner.add("waited");
            let n = back(n + 1).expect("back");
            // another kind of value is another circle
            let text = Coroutine::new(|text: String| back(text + "!").expect("back"));
            assert_eq!(text.switch("hey".into()).as_deref(), Ok("hey!"));
            spawn(|| 40).join().expect("no panic") + n
        });
        // by the main function, and then by a coroutine
        assert_eq!(sleeper.switch(1), Ok(2));
        assert_eq!(spawn(move || sleeper.switch(2)).join().expect("no panic"), Ok(42));
    })
    .expect("run");
    assert_eq!(log.take(), ["another", "waited"]);
}

#[test]
fn a_scheduler_within_a_coroutine_is_a_world_of_its_own() {
    let outer = Coroutine::new(|n: u32| {
        let inside = run(|| {
            assert_eq!(back(n), Err(SwitchError::Outside(n)));
            spawn(|| {
                sleep(ms(1));
                5
            })
            .join()
        });
        back(inside.expect("run").expect("no panic")).expect("back")
    });
    assert_eq!(outer.switch(1), Ok(5));
    assert!(catch_unwind(|| run(|| run(|| ()))).is_err(), "one scheduler for a thread");
}
