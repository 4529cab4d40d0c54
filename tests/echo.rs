//! The matrix: every transport under every model gives an echo that can be relied on.
//!
//! One line for each cell, at the end of the file; each is a module with a daemon for each test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixDatagram, UnixStream};

use common::wire::{bounces, datagrams, noise, receive, send_aside, stream};
use common::{Daemon, Forkd, becomes_true, echoes, eventually};
use nix::sys::socket::{setsockopt, sockopt};

const CLIENTS: usize = 50;

/// The counters of the only listener, once `connections` of them have ended.
#[track_caller]
fn counts(daemon: &Daemon, connections: u64, bytes: u64) {
    let mut last = String::new();
    let reached = becomes_true(common::LIMIT, || {
        let listener = daemon.listener(0);
        let number = |name: &str| listener[name].as_u64().unwrap();
        last = listener.to_string();
        [number("connections"), number("bytes_in"), number("bytes_out")] == [connections, bytes, bytes]
    });
    assert!(reached, "{connections} connections with {bytes} bytes each way are not counted: {last}");
}

mod streams {
    use super::*;

    pub(super) fn what_is_sent_comes_back(daemon: &Daemon) {
        let mut client = stream(daemon);
        for text in [&b"hello\n"[..], b"x", &[0; 3], &noise(1, 5000)] {
            echoes(&mut client, text);
        }
        drop(client);
        counts(daemon, 1, 5010);
    }

    pub(super) fn a_half_close_gets_the_rest_and_then_the_end(daemon: &Daemon) {
        let mut client = stream(daemon);
        let sent = noise(2, 100_000);
        client.write_all(&sent).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut back = Vec::new();
        client.read_to_end(&mut back).unwrap();
        assert!(back == sent, "{} bytes of {}", back.len(), sent.len());
    }

    pub(super) fn a_client_that_says_nothing_gets_the_end(daemon: &Daemon) {
        let mut client = stream(daemon);
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.read(&mut [0; 9]).unwrap(), 0);
        counts(daemon, 1, 0);
    }

    pub(super) fn megabytes_come_back_in_order_and_are_counted(daemon: &Daemon) {
        let mut client = stream(daemon);
        echoes(&mut client, b"small first");
        let sent = noise(3, 5 << 20);
        let writer = send_aside(&client, sent.clone());
        let mut back = Vec::new();
        client.read_to_end(&mut back).unwrap();
        writer.join().unwrap().unwrap();
        let same = back.iter().zip(&sent).take_while(|(a, b)| a == b).count();
        assert!(
            back == sent,
            "{} of {} bytes came back, and the first {same} are right",
            back.len(),
            sent.len()
        );
        counts(daemon, 1, 11 + (5 << 20));
    }

    pub(super) fn small_pieces_after_a_bulk_do_not_wait_for_more(daemon: &Daemon) {
        let mut client = stream(daemon);
        for round in 0..4 {
            let bulk = noise(round, 300_000);
            let mut writer = client.try_clone().unwrap();
            let copy = bulk.clone();
            let writer = std::thread::spawn(move || writer.write_all(&copy));
            let mut back = vec![0; bulk.len()];
            client.read_exact(&mut back).unwrap();
            assert!(back == bulk);
            writer.join().unwrap().unwrap();
            echoes(&mut client, b"and now one by one");
            echoes(&mut client, b"!");
        }
    }

    pub(super) fn many_at_once_each_get_their_own_bytes(daemon: &Daemon) {
        // all are connected before the first is through, more than there are workers
        let clients: Vec<UnixStream> = (0..CLIENTS).map(|_| stream(daemon)).collect();
        let talk = |(number, mut client): (usize, UnixStream)| {
            std::thread::spawn(move || {
                let sent = noise(number as u64, 20_000);
                for piece in sent.chunks(3000) {
                    echoes(&mut client, piece);
                }
                client.shutdown(Shutdown::Write).unwrap();
                assert_eq!(client.read(&mut [0; 9]).unwrap(), 0);
            })
        };
        let threads: Vec<_> = clients.into_iter().enumerate().map(talk).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        counts(daemon, CLIENTS as u64, CLIENTS as u64 * 20_000);
    }

    pub(super) fn a_reset_midway_harms_no_other(daemon: &Daemon) {
        let mut bystander = stream(daemon);
        echoes(&mut bystander, b"before");
        for seed in 0..4 {
            let mut victim = stream(daemon);
            echoes(&mut victim, b"so that it is served");
            victim.set_nonblocking(true).unwrap();
            // as much as fits; with unread bytes in both directions, a close is a reset
            let sent = noise(seed, 1 << 20);
            let mut at = 0;
            while at < sent.len() {
                match victim.write(&sent[at..]) {
                    Ok(n) => at += n,
                    Err(_) => break,
                }
            }
            let linger = libc::linger { l_onoff: 1, l_linger: 0 };
            setsockopt(&victim.as_fd(), sockopt::Linger, &linger).unwrap();
            drop(victim);
            echoes(&mut bystander, b"after");
        }
        drop(bystander);
        eventually("all five have ended", || {
            let serving = |child: &serde_json::Value| child["state"] == "serving";
            !daemon.status()["children"].as_array().unwrap().iter().any(serving)
        });
        assert_eq!(daemon.listener(0)["connections"], 5);
        let bad = |line: &String| ["error: ", "warning: "].iter().any(|word| line.contains(word));
        assert!(!daemon.log().iter().any(bad), "a client's doing is no trouble: {:#?}", daemon.log());
        echoes(&mut stream(daemon), b"and a new one");
    }
}

mod datagram {
    use super::*;

    pub(super) fn each_comes_back_from_the_address_asked(daemon: &Daemon) {
        let client = datagrams(daemon);
        for length in [1, 6, 1472, 1473, 9000] {
            bounces(&client, &noise(length as u64, length));
        }
        counts(daemon, 5, 1 + 6 + 1472 + 1473 + 9000);
    }

    pub(super) fn an_empty_one_is_answered_with_an_empty_one(daemon: &Daemon) {
        let client = datagrams(daemon);
        for text in [&b""[..], b"text between", b"", b""] {
            bounces(&client, text);
        }
        counts(daemon, 4, 12);
    }

    pub(super) fn the_largest_comes_back_whole(daemon: &Daemon) {
        let client = datagrams(daemon);
        // RFC 768 and 8200: 65,535 bytes less the headers that count; a Unix socket takes more
        let largest = match daemon.endpoint(0) {
            udp6 if udp6.starts_with("udp://[") => 65_527,
            udp4 if udp4.starts_with("udp://") => 65_507,
            _ => 100_000,
        };
        bounces(&client, &noise(7, largest));
        bounces(&client, &noise(8, largest - 1));
        bounces(&client, b"and a small one after it");
    }

    pub(super) fn of_a_burst_each_is_answered(daemon: &Daemon) {
        let client = datagrams(daemon);
        // what the receiver's buffer holds for sure: a Unix socket counts datagrams
        let at_once = if daemon.endpoint(0).starts_with("udp:") { 200 } else { queue_length() };
        let wanted: Vec<Vec<u8>> = (0..200).map(|number| noise(number, 60)).collect();
        for batch in wanted.chunks(at_once) {
            batch.iter().for_each(|payload| assert_eq!(client.send(payload).unwrap(), 60));
            let mut answers: Vec<Vec<u8>> =
                batch.iter().map(|_| receive(&client).expect("an answer")).collect();
            // children answer in any order
            answers.sort();
            let mut batch = batch.to_vec();
            batch.sort();
            assert!(answers == batch, "200 came back, but not the same");
        }
        counts(daemon, 200, 200 * 60);
        assert_eq!(daemon.listener(0)["refused"].as_object().unwrap().len(), 0);
    }

    fn queue_length() -> usize {
        let text = std::fs::read_to_string("/proc/sys/net/unix/max_dgram_qlen").unwrap();
        text.trim().parse().unwrap()
    }

    pub(super) fn several_clients_each_get_their_own(daemon: &Daemon) {
        let clients: Vec<UnixDatagram> = (0..20).map(|_| datagrams(daemon)).collect();
        for round in 0..10_u64 {
            for (number, client) in clients.iter().enumerate() {
                client.send(format!("{number}/{round}").as_bytes()).unwrap();
            }
            for (number, client) in clients.iter().enumerate() {
                assert_eq!(receive(client).expect("an answer"), format!("{number}/{round}").into_bytes());
            }
        }
    }
}

macro_rules! cell {
    ($name:ident: $args:literal, portable: $portable:literal, $kind:ident: $($test:ident)*) => {
        mod $name {
            use super::*;
            $(#[test]
            fn $test() {
                $kind::$test(&Forkd::new($args).portable($portable).start());
            })*
        }
    };
    ($name:ident: streams $args:literal, portable: $portable:literal) => {
        cell! { $name: $args, portable: $portable, streams:
            what_is_sent_comes_back
            a_half_close_gets_the_rest_and_then_the_end
            a_client_that_says_nothing_gets_the_end
            megabytes_come_back_in_order_and_are_counted
            small_pieces_after_a_bulk_do_not_wait_for_more
            many_at_once_each_get_their_own_bytes
            a_reset_midway_harms_no_other
        }
    };
    ($name:ident: datagrams $args:literal, portable: $portable:literal) => {
        cell! { $name: $args, portable: $portable, datagram:
            each_comes_back_from_the_address_asked
            an_empty_one_is_answered_with_an_empty_one
            the_largest_comes_back_whole
            of_a_burst_each_is_answered
            several_clients_each_get_their_own
        }
    };
}

cell!(tcp4_fork: streams "tcp://127.0.0.1:0", portable: false);
cell!(tcp4_prefork: streams "-m prefork tcp://127.0.0.1:0", portable: false);
cell!(tcp4_event: streams "-m event tcp://127.0.0.1:0", portable: false);
cell!(tcp4_fork_portable: streams "tcp://127.0.0.1:0", portable: true);
cell!(tcp4_prefork_portable: streams "-m prefork tcp://127.0.0.1:0", portable: true);
cell!(tcp4_event_portable: streams "-m event -w 2 tcp://127.0.0.1:0", portable: true);
cell!(tcp6_fork: streams "tcp://[::1]:0", portable: false);
cell!(tcp6_prefork: streams "-m prefork tcp://[::1]:0", portable: false);
cell!(tcp6_event: streams "-m event tcp://[::1]:0", portable: false);
cell!(unix_fork: streams "unix://{dir}/echo", portable: false);
cell!(unix_prefork: streams "-m prefork unix://{dir}/echo", portable: false);
cell!(unix_event: streams "-m event unix://{dir}/echo", portable: false);
cell!(unix_prefork_portable: streams "-m prefork unix://{dir}/echo", portable: true);
cell!(udp4_fork: datagrams "udp://127.0.0.1:0", portable: false);
cell!(udp4_prefork: datagrams "-m prefork udp://127.0.0.1:0", portable: false);
cell!(udp4_event: datagrams "-m event udp://127.0.0.1:0", portable: false);
cell!(tcp4_coroutine: streams "-m coroutine tcp://127.0.0.1:0", portable: false);
cell!(tcp4_coroutine_portable: streams "-m coroutine tcp://127.0.0.1:0", portable: true);
cell!(tcp6_coroutine: streams "-m coroutine -w 2 tcp://[::1]:0", portable: false);
cell!(unix_coroutine: streams "-m coroutine unix://{dir}/echo", portable: false);
cell!(udp4_coroutine: datagrams "-m coroutine udp://127.0.0.1:0", portable: false);
cell!(udp4_fork_portable: datagrams "udp://127.0.0.1:0", portable: true);
cell!(udp4_prefork_portable: datagrams "-m prefork udp://127.0.0.1:0", portable: true);
cell!(udp6_fork: datagrams "udp://[::1]:0", portable: false);
cell!(udp6_prefork: datagrams "-m prefork udp://[::1]:0", portable: false);
cell!(udp6_event: datagrams "-m event udp://[::1]:0", portable: false);
cell!(unixgram_fork: datagrams "unixgram://{dir}/echo", portable: false);
cell!(unixgram_prefork: datagrams "-m prefork unixgram://{dir}/echo", portable: false);
cell!(unixgram_event: datagrams "-m event unixgram://{dir}/echo", portable: false);
cell!(udp6_coroutine: datagrams "-m coroutine udp://[::1]:0", portable: false);
cell!(unixgram_coroutine: datagrams "-m coroutine unixgram://{dir}/echo", portable: false);
cell!(unixgram_fork_portable: datagrams "unixgram://{dir}/echo", portable: true);
cell!(tcp4_thread: streams "-m thread tcp://127.0.0.1:0", portable: false);
cell!(tcp4_thread_portable: streams "-m thread tcp://127.0.0.1:0", portable: true);
cell!(tcp4_threads: streams "-m thread --threads 4 tcp://127.0.0.1:0", portable: false);
cell!(tcp6_thread: streams "-m thread tcp://[::1]:0", portable: false);
cell!(unix_thread: streams "-m thread -w 2 unix://{dir}/echo", portable: false);
cell!(unix_threads: streams "-m thread -w 2 --threads 2 unix://{dir}/echo", portable: false);
cell!(udp4_thread: datagrams "-m thread udp://127.0.0.1:0", portable: false);
cell!(udp4_threads: datagrams "-m thread --threads 4 udp://127.0.0.1:0", portable: false);
cell!(udp6_thread: datagrams "-m thread udp://[::1]:0", portable: false);
cell!(unixgram_thread: datagrams "-m thread unixgram://{dir}/echo", portable: false);
cell!(unixgram_threads: datagrams "-m thread --threads 4 unixgram://{dir}/echo", portable: false);
