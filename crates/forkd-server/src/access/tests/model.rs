//! What is lock-free, in every order in which processes can take its steps (loom); see `scoreboard/tests/model.rs`.

mod atomic {
    pub(super) use loom::sync::atomic::{AtomicU64, Ordering};
}
/// Here the structs are in no shared memory.
macro_rules! plain {
    ($($struct:item)+) => { $($struct)+ };
}
use plain;

#[allow(clippy::duplicate_mod, dead_code)]
#[path = "../bucket.rs"]
mod bucket;

use atomic::{AtomicU64, Ordering};
use bucket::{Bucket, Excess, Label, Sought, Terms};
use loom::sync::Arc;
use loom::thread;

fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.max_duration = Some(std::time::Duration::from_secs(20));
    builder.check(model);
}

fn sought(hash: u64) -> Sought {
    Sought { hash, label: Label::default() }
}

fn enter(bucket: &Bucket, hash: u64, most: u16) -> Result<Option<usize>, Excess> {
    let (is_penalised, pays) = (|_: &AtomicU64| false, |_: &AtomicU64| true);
    let terms = Terms { most: Some(most), notes: true, is_penalised, pays };
    bucket.enter(sought(hash), &terms, || 0)
}

#[test]
fn of_two_clients_of_one_source_one_is_too_many() {
    check(|| {
        let bucket = Arc::new(Bucket::default());
        let other = Arc::clone(&bucket);
        let other = thread::spawn(move || enter(&other, 7 << 16, 1));
        let mine = enter(&bucket, 7 << 16, 1);
        let both = [mine, other.join().unwrap()];
        assert!(both.contains(&Ok(Some(0))) && both.contains(&Err(Excess::Clients)), "{both:?}");
    });
}

#[test]
fn clients_of_two_sources_come_and_go_and_none_is_left() {
    check(|| {
        let bucket = Arc::new(Bucket::default());
        let visit = |bucket: &Bucket, hash: u64| {
            let way = enter(bucket, hash, 2).unwrap().unwrap();
            bucket.leave(way, |entry| entry >> 16 == hash >> 16);
        };
        let other = Arc::clone(&bucket);
        let other = thread::spawn(move || visit(&other, 7 << 16));
        visit(&bucket, 9 << 16);
        other.join().unwrap();
        assert_eq!(bucket.count(), 0);
    });
}

/// What a source has done is noted in its entry, whichever other source takes one meanwhile.
#[test]
fn what_two_clients_of_a_source_have_done_is_noted_while_another_comes() {
    check(|| {
        let bucket = Arc::new(Bucket::default());
        let note = |bucket: &Bucket, bit: u64| {
            let words = bucket.words_of(sought(7 << 16), 0).unwrap();
            words.record.fetch_or(bit << bucket::UNTIL_SHIFT, Ordering::Relaxed);
        };
        // it is known
        note(&bucket, 1);
        let other = Arc::clone(&bucket);
        let other = thread::spawn(move || {
            note(&other, 2);
            let _ = enter(&other, 9 << 16, 1).unwrap();
        });
        note(&bucket, 4);
        other.join().unwrap();
        let record = bucket.words_of(sought(7 << 16), 0).unwrap().record.load(Ordering::Relaxed);
        assert_eq!(record >> bucket::UNTIL_SHIFT, 7);
    });
}
