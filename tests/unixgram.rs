//! Unix datagrams: clients without a name, that do not read, that are gone, or that say too much.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::os::unix::net::UnixDatagram;

use common::wire::{bounces, datagrams, receive};
use common::{Daemon, Forkd, becomes_true, eventually};
use nix::sys::socket::{setsockopt, sockopt};

fn each_model(test: impl Fn(&Daemon)) {
    for model in ["-m fork", "-m prefork -w 2", "-m thread --threads 2"] {
        test(&Forkd::new(&format!("{model} unixgram://{{dir}}/echo")).start());
    }
}

#[track_caller]
fn refused_only(daemon: &Daemon, cause: &str, count: u64) {
    let mut last = String::new();
    let as_expected = becomes_true(common::LIMIT, || {
        let refused = &daemon.listener(0)["refused"];
        last = refused.to_string();
        refused[cause] == count && refused.as_object().unwrap().len() == 1
    });
    assert!(as_expected, "not {cause}={count} but {last}");
}

#[test]
fn a_client_without_a_name_is_refused_and_harms_nothing() {
    each_model(|daemon| {
        let unnamed = UnixDatagram::unbound().unwrap();
        unnamed.connect(daemon.path("echo")).unwrap();
        let named = datagrams(daemon);
        for count in 1..=3 {
            unnamed.send(b"who am I?").unwrap();
            refused_only(daemon, "unnamed", count);
            bounces(&named, b"I am somebody");
        }
        unnamed.set_nonblocking(true).unwrap();
        assert!(receive(&unnamed).is_err());
    });
}

#[test]
fn a_client_of_the_abstract_namespace_is_answered() {
    use std::os::linux::net::SocketAddrExt;
    each_model(|daemon| {
        let name = format!("forkd-test-{}", daemon.pid());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(name).unwrap();
        let client = UnixDatagram::bind_addr(&address).unwrap();
        client.set_read_timeout(Some(common::LIMIT)).unwrap();
        client.connect(daemon.path("echo")).unwrap();
        bounces(&client, b"no file is mine");
    });
}

/// A client that is not connected, so that what waits for it is limited (net.unix.max_dgram_qlen).
fn loose(daemon: &Daemon) -> UnixDatagram {
    let socket = UnixDatagram::bind(daemon.path("loose")).unwrap();
    socket.set_write_timeout(Some(common::LIMIT)).unwrap();
    socket
}

fn waiting(client: &UnixDatagram) -> u64 {
    client.set_nonblocking(true).unwrap();
    let mut count = 0;
    while receive(client).is_ok() {
        count += 1;
    }
    count
}

#[test]
fn a_client_that_does_not_read_blocks_no_other() {
    each_model(|daemon| {
        let (deaf, other) = (loose(daemon), datagrams(daemon));
        for number in 0..1000_u64 {
            deaf.send_to(&number.to_ne_bytes(), daemon.path("echo")).unwrap();
            if number % 50 == 0 {
                bounces(&other, b"I do read");
            }
        }
        eventually("all are seen to", || daemon.listener(0)["connections"] == 1020);
        let waiting = waiting(&deaf);
        assert!((1..200).contains(&waiting), "{waiting} answers found room");
        refused_only(daemon, "unsendable", 1000 - waiting);
        deaf.send_to(b"now I listen", daemon.path("echo")).unwrap();
        eventually("it gets its answer", || receive(&deaf).is_ok_and(|answer| answer == b"now I listen"));
    });
}

/// What a connected client has not read is charged to the sender alone (unix(7) has no limit for it), and
/// all that the daemon sends leaves from one socket: while its buffer is full, answers are dropped. They
/// are counted, no client hangs, and it is over as soon as that client reads or goes.
#[test]
fn a_connected_client_that_does_not_read_costs_answers_until_it_goes() {
    each_model(|daemon| {
        let (deaf, other) = (datagrams(daemon), datagrams(daemon));
        (0..1000).for_each(|_| _ = deaf.send(b"I won't read this").unwrap());
        eventually("all are seen to", || daemon.listener(0)["connections"] == 1000);
        let dropped = daemon.listener(0)["refused"]["unsendable"].as_u64().unwrap();
        assert!((1..1000).contains(&dropped), "{dropped} dropped");
        other.send(b"is anybody there?").unwrap();
        refused_only(daemon, "unsendable", dropped + 1);
        drop(deaf);
        bounces(&other, b"and now?");
    });
}

#[test]
fn a_client_that_is_gone_before_its_answer_harms_nothing() {
    each_model(|daemon| {
        common::stopped(daemon.pid());
        daemon.children().into_iter().for_each(common::stopped);
        let gone = datagrams(daemon);
        gone.send(b"don't wait for me").unwrap();
        drop(gone);
        let client = datagrams(daemon);
        for pid in daemon.children().into_iter().chain([daemon.pid()]) {
            common::signal(pid, nix::sys::signal::Signal::SIGCONT);
        }
        refused_only(daemon, "unsendable", 1);
        bounces(&client, b"I did");
    });
}

#[test]
fn a_datagram_that_is_too_long_gets_no_answer() {
    each_model(|daemon| {
        let client = datagrams(daemon);
        setsockopt(&client, sockopt::SndBuf, &(1 << 20)).unwrap();
        client.send(&vec![b'x'; 300_000]).unwrap();
        refused_only(daemon, "oversize", 1);
        bounces(&client, &[b'x'; 50_000]);
    });
}
