//! A property: whatever is sent, in whichever pieces, comes back the same.
//!
//! One daemon for each cell of the matrix; proptest finds the pieces, and shrinks what fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::ops::RangeInclusive;
use std::os::unix::net::UnixStream;

use common::wire::{bounces, datagrams, noise, receive, stream};
use common::{Daemon, Forkd};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseResult, TestRunner};

const CASES: u32 = 32;

#[track_caller]
fn holds<S: Strategy>(strategy: &S, property: impl Fn(S::Value) -> TestCaseResult) {
    // where an answer is missing, each try to shrink the case waits for it in vain
    let max_shrink_time = 30_000;
    let config = Config { cases: CASES, failure_persistence: None, max_shrink_time, ..Config::default() };
    if let Err(failure) = TestRunner::new(config).run(strategy, property) {
        panic!("{failure}");
    }
}

/// Sizes around those at which something changes: a byte, a segment, the child's buffer (16 KiB), the
/// pipe of the splice (64 KiB, 256 KiB).
fn size() -> impl Strategy<Value = usize> {
    let around = |size: usize| size - 3..=size + 3;
    prop_oneof![
        4 => 1_usize..=64,
        4 => 65_usize..=6000,
        2 => prop_oneof![around(4096), around(16_384), around(32_768), around(65_536)],
        1 => 60_000_usize..=300_000,
    ]
}

/// What one client does: the pieces that it writes, and those that it asks for when it reads.
#[derive(Debug, Clone)]
struct Dialogue {
    seed: u64,
    writes: Vec<usize>,
    reads: Vec<usize>,
    /// After so many writes it waits for the echo of all of them before it goes on; 0: never.
    in_step: usize,
}

fn dialogue() -> impl Strategy<Value = Dialogue> {
    let parts = (any::<u64>(), prop::collection::vec(size(), 0..24), prop::collection::vec(size(), 1..6));
    (parts, 0..4_usize).prop_map(|((seed, writes, reads), in_step)| Dialogue { seed, writes, reads, in_step })
}

fn echoes_any_dialogue(daemon: &Daemon) {
    holds(&dialogue(), |dialogue| {
        let bytes = noise(dialogue.seed, dialogue.writes.iter().sum());
        let mut client = stream(daemon);
        let mut back = Vec::new();
        let mut rest = &bytes[..];
        let pieces: Vec<&[u8]> = dialogue
            .writes
            .iter()
            .map(|&size| {
                let (piece, after) = rest.split_at(size);
                rest = after;
                piece
            })
            .collect();
        let step = if dialogue.in_step == 0 { pieces.len().max(1) } else { dialogue.in_step };
        let mut steps = pieces.chunks(step).peekable();
        while let Some(pieces) = steps.next() {
            let last = steps.peek().is_none();
            let expected = pieces.iter().map(|piece| piece.len()).sum();
            std::thread::scope(|scope| {
                let mut writer = client.try_clone().unwrap();
                let writes = scope.spawn(move || {
                    pieces.iter().try_for_each(|piece| writer.write_all(piece))?;
                    if last { writer.shutdown(Shutdown::Write) } else { Ok(()) }
                });
                read_in_pieces(&mut client, &dialogue.reads, expected, &mut back);
                writes.join().unwrap().expect("send");
            });
        }
        if !dialogue.writes.is_empty() {
            // its own side has ended, so this ends too, and there is nothing left to come
            prop_assert_eq!(client.read(&mut [0; 9]).expect("the end"), 0);
        }
        let same = back.iter().zip(&bytes).take_while(|(a, b)| a == b).count();
        prop_assert!(back == bytes, "{} bytes instead of {}, {} right", back.len(), bytes.len(), same);
        Ok(())
    });
}

/// Reads `expected` bytes in pieces of these sizes, or less if the end comes.
fn read_in_pieces(client: &mut UnixStream, sizes: &[usize], mut expected: usize, back: &mut Vec<u8>) {
    let mut buffer = vec![0; sizes.iter().copied().max().unwrap_or(1)];
    for &size in sizes.iter().cycle() {
        if expected == 0 {
            return;
        }
        let n = client.read(&mut buffer[..size.min(expected)]).expect("receive");
        if n == 0 {
            return;
        }
        back.extend_from_slice(&buffer[..n]);
        expected -= n;
    }
}

/// Datagrams of which several are under way at once, and large ones that go one by one.
#[derive(Debug, Clone)]
struct Salvo {
    together: Vec<Vec<u8>>,
    alone: Vec<(u64, usize)>,
}

fn salvo(largest: usize) -> impl Strategy<Value = Salvo> {
    let small = prop::collection::vec(any::<u8>(), 0..1500);
    let around = |size: usize| -> RangeInclusive<usize> { size - 3..=size };
    let large = prop_oneof![0..3000_usize, 3000..largest, around(65_507), around(largest)];
    let large = (any::<u64>(), large);
    // 10: what the queue of a Unix socket holds (net.unix.max_dgram_qlen)
    (prop::collection::vec(small, 0..=10), prop::collection::vec(large, 0..4))
        .prop_map(|(together, alone)| Salvo { together, alone })
}

fn echoes_any_datagrams(daemon: &Daemon, largest: usize) {
    let client = datagrams(daemon);
    holds(&salvo(largest), |salvo| {
        for (seed, size) in salvo.alone {
            bounces(&client, &noise(seed, size));
        }
        for payload in &salvo.together {
            prop_assert_eq!(client.send(payload).expect("send"), payload.len());
        }
        let mut back: Vec<Vec<u8>> =
            salvo.together.iter().map(|_| receive(&client).expect("an answer")).collect();
        // children answer in any order
        back.sort();
        let mut sent = salvo.together;
        sent.sort();
        prop_assert_eq!(back, sent);
        Ok(())
    });
}

macro_rules! cell {
    ($name:ident: stream $args:literal) => {
        #[test]
        fn $name() {
            echoes_any_dialogue(&Forkd::new($args).start());
        }
    };
    ($name:ident: datagrams up to $largest:literal, $args:literal) => {
        #[test]
        fn $name() {
            echoes_any_datagrams(&Forkd::new($args).start(), $largest);
        }
    };
}

cell!(tcp4_fork: stream "tcp://127.0.0.1:0");
cell!(tcp4_prefork: stream "-m prefork tcp://127.0.0.1:0");
cell!(tcp4_event: stream "-m event tcp://127.0.0.1:0");
cell!(tcp4_coroutine: stream "-m coroutine tcp://127.0.0.1:0");
cell!(tcp6_fork: stream "tcp://[::1]:0");
cell!(tcp6_prefork: stream "-m prefork tcp://[::1]:0");
cell!(unix_fork: stream "unix://{dir}/echo");
cell!(unix_prefork: stream "-m prefork unix://{dir}/echo");
cell!(unix_event: stream "-m event unix://{dir}/echo");
cell!(udp4_fork: datagrams up to 65_507, "udp://127.0.0.1:0");
cell!(udp4_prefork: datagrams up to 65_507, "-m prefork udp://127.0.0.1:0");
cell!(udp4_event: datagrams up to 65_507, "-m event udp://127.0.0.1:0");
cell!(unix_coroutine: stream "-m coroutine unix://{dir}/echo");
cell!(udp4_coroutine: datagrams up to 65_507, "-m coroutine udp://127.0.0.1:0");
cell!(udp6_fork: datagrams up to 65_527, "udp://[::1]:0");
cell!(udp6_prefork: datagrams up to 65_527, "-m prefork udp://[::1]:0");
cell!(unixgram_fork: datagrams up to 120_000, "unixgram://{dir}/echo");
cell!(unixgram_prefork: datagrams up to 120_000, "-m prefork unixgram://{dir}/echo");
cell!(tcp4_thread: stream "-m thread tcp://127.0.0.1:0");
cell!(unix_threads: stream "-m thread --threads 2 unix://{dir}/echo");
cell!(udp4_threads: datagrams up to 65_507, "-m thread --threads 2 udp://127.0.0.1:0");
cell!(unixgram_thread: datagrams up to 120_000, "-m thread unixgram://{dir}/echo");
cell!(unixgram_coroutine: datagrams up to 120_000, "-m coroutine unixgram://{dir}/echo");
