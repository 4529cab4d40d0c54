//! A property: whatever a protocol says, and in whichever pieces its client sends and reads, the client gets
//! what it would get from a blocking connection.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use nix::sys::socket::{setsockopt, sockopt};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::fairness::TURN;
use crate::service::{Protocol, Reply, Service};
use crate::transport::early::Early;
use crate::transport::{Connection, FilePart, Peer, ServerInfo};

/// Says for each byte of its input what that byte asks for, and goodbye at the end; so it says the same
/// however its input is cut.
#[derive(Default)]
struct Puppet {
    listens: bool,
    says: VecDeque<Word>,
    said: Vec<u8>,
    part: Option<FilePart>,
    is_done: bool,
}

enum Word {
    Bytes(Vec<u8>),
    File(FilePart),
}

impl Puppet {
    fn obey(&mut self, input: &[u8]) {
        for &byte in input {
            match byte {
                _ if self.is_done => return,
                0..100 => {}
                100..200 => self.says.push_back(Word::Bytes(vec![byte; usize::from(byte) * 3])),
                200..240 => self.says.push_back(Word::Bytes(vec![byte; usize::from(byte) * 40])),
                240..255 => {
                    let (offset, length) = (u64::from(byte), u64::from(byte - 240) * 1000);
                    self.says.push_back(Word::File(FilePart { file: file(), offset, length }));
                }
                255 => self.is_done = true,
            }
        }
    }

    fn next(&mut self) -> Reply<'_> {
        match self.says.pop_front() {
            None if self.is_done => Reply::Finish(b""),
            None => Reply::Wait,
            Some(Word::File(part)) => Reply::File(self.part.insert(part)),
            Some(Word::Bytes(bytes)) => {
                self.said = bytes;
                match (self.says.is_empty(), self.is_done) {
                    (true, true) => Reply::Finish(&self.said),
                    (true, false) => Reply::Send(&self.said),
                    _ => Reply::More(&self.said),
                }
            }
        }
    }
}

impl Protocol for Puppet {
    fn connected(&mut self, _: Peer) -> Reply<'_> {
        self.said = b"hello".to_vec();
        Reply::Send(&self.said)
    }

    fn received<'a>(&'a mut self, input: &'a [u8]) -> Reply<'a> {
        let produces = !self.says.is_empty();
        self.obey(input);
        // what it has to say comes in its turn
        if produces { Reply::Wait } else { self.next() }
    }

    fn resume(&mut self) -> Reply<'_> {
        self.next()
    }

    fn listens(&self) -> bool {
        self.listens
    }

    fn ended(&mut self) -> Reply<'_> {
        self.says.push_back(Word::Bytes(b"goodbye".to_vec()));
        self.next()
    }
}

fn file() -> Arc<std::fs::File> {
    static FILE: std::sync::OnceLock<Arc<std::fs::File>> = std::sync::OnceLock::new();
    Arc::clone(FILE.get_or_init(|| {
        let mut file = tempfile::tempfile().expect("file");
        let bytes: Vec<u8> = (0..20_000_u32).map(|n| (n % 251) as u8).collect();
        file.write_all(&bytes).expect("write");
        Arc::new(file)
    }))
}

struct Alone(Box<dyn Protocol>);

impl<'a> Session<'a> for Alone {
    fn protocol(&mut self) -> &mut dyn Protocol {
        &mut *self.0
    }

    fn closed(self: Box<Self>, _: &mut Reactor<'a>, _: Peer, _: io::Result<()>) {}
}

fn by_reactor(service: &Service, socket: OwnedFd) {
    let mut reactor = Reactor::new().expect("reactor");
    crate::sys::fd::set_nonblocking(&socket, true).expect("flag");
    reactor.adopt(
        socket,
        Peer::None,
        Early::default(),
        Box::new(Alone(service.make_protocol().expect("a protocol"))),
    );
    reactor.run().expect("run");
}

fn by_blocking(service: &Service, socket: OwnedFd) {
    static TRAFFIC: Traffic = Traffic::new();
    let server = ServerInfo::nowhere();
    let mut connection = Connection::stream(socket, Peer::None, Early::default(), &TRAFFIC, &server);
    service.serve(&mut connection).expect("serve");
}

/// What a client hears that sends these pieces, and reads in pieces of this size.
fn heard(
    service: &Service,
    serve: fn(&Service, OwnedFd),
    buffer: usize,
    pieces: &[Vec<u8>],
    size: usize,
) -> Vec<u8> {
    let (ours, mut theirs) = UnixStream::pair().expect("pair");
    for end in [&ours, &theirs] {
        setsockopt(end, sockopt::SndBuf, &buffer).expect("buffer");
    }
    std::thread::scope(|scope| {
        scope.spawn(|| serve(service, ours.into()));
        let mut writer = theirs.try_clone().expect("clone");
        scope.spawn(move || {
            // it may be told to end before it has sent all
            let sent = pieces.iter().try_for_each(|piece| writer.write_all(piece));
            sent.and_then(|()| writer.shutdown(Shutdown::Write))
        });
        let (mut all, mut piece) = (Vec::new(), vec![0; size]);
        loop {
            match theirs.read(&mut piece) {
                Ok(0) => break,
                Ok(n) => all.extend_from_slice(&piece[..n]),
                Err(error) => panic!("{error} after {} bytes", all.len()),
            }
        }
        // so that a writer without a reader ends, too
        let _ = theirs.shutdown(Shutdown::Both);
        all
    })
}

#[test]
fn a_client_hears_what_it_would_hear_from_a_blocking_connection() {
    let byte =
        prop_oneof![20 => 0_u8..100, 6 => 100_u8..200, 3 => 200_u8..240, 2 => 240_u8..255, 1 => Just(255)];
    let pieces = prop::collection::vec(prop::collection::vec(byte, 1..40), 0..12);
    let strategy = (pieces, 1_usize..20_000, prop_oneof![Just(1), Just(8192), Just(200_000)], any::<bool>());
    let config = Config { cases: 96, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&strategy, |(pieces, size, buffer, listens)| {
        let service = Service::protocol("puppet", move || Puppet { listens, ..Puppet::default() });
        let expected = expected(&pieces.concat());
        for serve in [by_blocking, by_reactor] {
            let heard = heard(&service, serve, buffer, &pieces, size);
            prop_assert_eq!(heard.len(), expected.len());
            prop_assert!(heard == expected);
        }
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

fn expected(input: &[u8]) -> Vec<u8> {
    let mut puppet = Puppet::default();
    puppet.obey(input);
    let mut all = b"hello".to_vec();
    for word in &puppet.says {
        match word {
            Word::Bytes(bytes) => all.extend_from_slice(bytes),
            Word::File(part) => all.extend((part.offset..part.offset + part.length).map(|n| (n % 251) as u8)),
        }
    }
    if !puppet.is_done {
        all.extend_from_slice(b"goodbye");
    }
    all
}

/// What moved, and in which order.
#[derive(Default)]
struct Scene {
    /// How often a bulk connection has had a turn, and how many bytes in all.
    turns: usize,
    bytes: usize,
    /// The client of the quiet connection; it has sent its last message when this number of bytes had been moved.
    asks: Option<UnixStream>,
    asked: usize,
    is_asked: bool,
    /// How many bytes were moved until each of the messages was there.
    waits: Vec<usize>,
}

enum Part<'s> {
    Bulk(&'s RefCell<Scene>),
    Quiet(&'s RefCell<Scene>),
}

impl Protocol for Part<'_> {
    fn received<'b>(&'b mut self, input: &'b [u8]) -> Reply<'b> {
        match self {
            Part::Bulk(scene) => {
                let mut scene = scene.borrow_mut();
                (scene.turns, scene.bytes) = (scene.turns + 1, scene.bytes + input.len());
                // by now all of them are known to have much
                if scene.turns.is_multiple_of(BULK) && !scene.is_asked {
                    (scene.is_asked, scene.asked) = (true, scene.bytes);
                    scene.asks.as_ref().expect("a client").write_all(b"?").expect("write");
                }
            }
            Part::Quiet(scene) => {
                let mut scene = scene.borrow_mut();
                let waited = scene.bytes - scene.asked;
                scene.is_asked = false;
                scene.waits.push(waited);
            }
        }
        Reply::Wait
    }
}

struct Member<'s>(Part<'s>);

impl<'s> Session<'s> for Member<'s> {
    fn protocol(&mut self) -> &mut dyn Protocol {
        &mut self.0
    }

    fn closed(self: Box<Self>, _: &mut Reactor<'s>, _: Peer, _: io::Result<()>) {}
}

const BULK: usize = 20;

fn join<'s>(reactor: &mut Reactor<'s>, part: Part<'s>) -> UnixStream {
    let (ours, theirs) = UnixStream::pair().expect("pair");
    for end in [&ours, &theirs] {
        setsockopt(end, sockopt::SndBuf, &(1 << 20)).expect("buffer");
        end.set_nonblocking(true).expect("flag");
    }
    reactor.adopt(ours.into(), Peer::None, Early::default(), Box::new(Member(part)));
    theirs
}

#[test]
fn a_short_message_waits_for_one_turn_of_all_bulk_connections() {
    let scene = RefCell::new(Scene::default());
    let mut reactor = Reactor::new().expect("reactor");
    let mut clients: Vec<_> = (0..BULK).map(|_| join(&mut reactor, Part::Bulk(&scene))).collect();
    let quiet = join(&mut reactor, Part::Quiet(&scene));
    for client in &mut clients {
        while client.write(&[7; 1 << 16]).is_ok() {}
    }
    scene.borrow_mut().asks = Some(quiet);
    reactor.call_later(Duration::from_secs(30), |_| panic!("no answer"));
    while scene.borrow().waits.len() < 2 {
        reactor.call_later(Duration::ZERO, |reactor| reactor.stop());
        reactor.run().expect("run");
    }
    let waits = &scene.borrow().waits;
    assert!(waits.iter().all(|&bytes| bytes <= TURN), "{waits:?}");
}
