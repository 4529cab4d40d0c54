//! Writers: what is written to a connection at any time reaches its client, under every model that serves several.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::{LIMIT, eventually};
use forkd_server::model::{Model, Threads};
use forkd_server::reactor::Reactor;
use forkd_server::{
    CloseReason, Error, Handle, Opening, Peer, Protocol, Reply, Server, Service, WriteError, Writer,
};

const MODELS: [Model; 3] = [Model::Event, Model::Coroutine, Model::Thread];

/// A server in this process, which ends with this.
struct Running {
    address: String,
    handle: Handle,
    thread: Option<JoinHandle<Result<(), Error>>>,
}

impl Running {
    fn new(model: Model, with: impl FnOnce(Server) -> Server, service: Service) -> Self {
        let server = with(Server::bind("tcp://127.0.0.1:0").unwrap().model(model));
        let address = server.server_address().to_string().trim_start_matches("tcp://").to_owned();
        let handle = server.handle();
        let thread = Some(std::thread::spawn(move || server.serve_forever(service)));
        Self { address, handle, thread }
    }

    fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(&self.address).unwrap();
        client.set_read_timeout(Some(LIMIT)).unwrap();
        client
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.shutdown();
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}

/// Hands its writer out, tells why it is over, and does what the test wants of it.
struct Probe {
    writers: Sender<Writer>,
    reasons: Sender<String>,
    writer: Writer,
    conduct: Conduct,
}

#[derive(Clone, Default)]
struct Conduct {
    /// What it writes before each reply, and after that replies.
    answers: Option<(&'static [u8], &'static [u8])>,
    listens: bool,
    /// Goes on when its client has ended.
    stays: bool,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Protocol for Probe {
    fn opened(&mut self, opening: &Opening) {
        self.writer = opening.writer();
        assert_eq!(self.writer, opening.writer());
    }

    fn connected(&mut self, _: Peer) -> Reply<'_> {
        self.writers.send(self.writer.clone()).unwrap();
        Reply::Wait
    }

    fn received<'a>(&'a mut self, input: &'a [u8]) -> Reply<'a> {
        self.conduct.heard.lock().unwrap().extend_from_slice(input);
        match self.conduct.answers {
            None => Reply::Wait,
            Some((before, reply)) => {
                self.writer.write(before).unwrap();
                Reply::Send(reply)
            }
        }
    }

    fn listens(&self) -> bool {
        self.conduct.listens
    }

    fn ended(&mut self) -> Reply<'_> {
        if self.conduct.stays { Reply::Wait } else { Reply::Finish(b"") }
    }

    fn stopping(&mut self) -> Reply<'_> {
        let _ = self.writer.write(b"we close, ");
        Reply::Finish(b"good night")
    }

    fn closed(&mut self, reason: CloseReason<'_>) {
        assert!(!self.writer.is_open());
        let _ = self.reasons.send(reason.to_string());
    }
}

struct Scene {
    server: Running,
    writers: Receiver<Writer>,
    reasons: Receiver<String>,
}

impl Scene {
    fn new(model: Model, conduct: Conduct) -> Self {
        Self::with(model, |server| server, conduct)
    }

    fn with(model: Model, options: impl FnOnce(Server) -> Server, conduct: Conduct) -> Self {
        let ((to_us, writers), (tells, reasons)) = (channel(), channel());
        let ends = Mutex::new((to_us, tells));
        let service = Service::protocol("probe", move || {
            let (writers, reasons) = ends.lock().unwrap().clone();
            Probe { writers, reasons, writer: Writer::default(), conduct: conduct.clone() }
        });
        Self { server: Running::new(model, options, service), writers, reasons }
    }

    fn connect(&self) -> (TcpStream, Writer) {
        let client = self.server.connect();
        (client, self.writers.recv_timeout(LIMIT).expect("a writer"))
    }

    fn reason(&self) -> String {
        self.reasons.recv_timeout(LIMIT).expect("a reason")
    }
}

#[track_caller]
fn hears(client: &mut TcpStream, expected: &[u8]) {
    let mut heard = vec![0; expected.len()];
    client.read_exact(&mut heard).unwrap();
    assert_eq!(heard, expected);
}

#[track_caller]
fn hears_the_end(client: &mut TcpStream) {
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty(), "{} bytes", rest.len());
}

/// Writes until no more is kept for the client; returns how much was taken.
#[track_caller]
fn fill(writer: &Writer) -> usize {
    let mut taken = 0;
    // for a while the kernel finds room for some more
    eventually("no more is kept", || {
        while writer.write(&[7; CHUNK]).is_ok() {
            taken += CHUNK;
        }
        std::thread::sleep(Duration::from_millis(1));
        writer.queued() >= Writer::LIMIT
    });
    taken
}

const CHUNK: usize = 10_000;

#[test]
fn a_client_that_waits_hears_what_another_thread_writes() {
    for model in MODELS.into_iter().chain([Model::Iterative]) {
        let scene = Scene::new(model, Conduct::default());
        let (mut client, writer) = scene.connect();
        for n in 0..200_u32 {
            writer.write(&n.to_ne_bytes()).unwrap();
            if n.is_multiple_of(20) {
                // it waits again
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        for n in 0..200_u32 {
            hears(&mut client, &n.to_ne_bytes());
        }
        eventually("all is gone", || writer.queued() == 0);
        drop(client);
        assert_eq!(scene.reason(), "the client has ended it", "{model}");
        assert_eq!(writer.write(b"!"), Err(WriteError::Closed));
    }
}

#[test]
fn what_is_written_goes_out_in_one_order_with_the_replies() {
    for model in MODELS {
        let answers = Some((&b"written "[..], &b"replied "[..]));
        let scene = Scene::new(model, Conduct { answers, ..Conduct::default() });
        let (mut client, _) = scene.connect();
        for _ in 0..50 {
            client.write_all(b"?").unwrap();
            hears(&mut client, b"written replied ");
        }
    }
}

#[test]
fn a_client_that_does_not_read_costs_a_bounded_amount_and_holds_up_nobody() {
    for model in MODELS {
        let scene = Scene::new(model, Conduct::default());
        let ((mut slow, to_slow), (mut quick, to_quick)) = (scene.connect(), scene.connect());
        let taken = fill(&to_slow);
        assert!(to_slow.queued() < Writer::LIMIT + CHUNK);
        to_quick.write(b"quick").unwrap();
        hears(&mut quick, b"quick");
        // not a byte is lost
        let mut heard = vec![0; taken];
        slow.read_exact(&mut heard).unwrap();
        assert!(heard.iter().all(|&byte| byte == 7));
        eventually("there is room", || to_slow.queued() == 0);
        to_slow.write(b"again").unwrap();
        hears(&mut slow, b"again");
    }
}

#[test]
fn a_writer_ends_its_connection_when_all_is_sent_and_aborts_it_at_once() {
    for model in MODELS {
        let scene = Scene::new(model, Conduct::default());
        let (mut client, writer) = scene.connect();
        writer.write(&[1; 60_000]).unwrap();
        writer.finish();
        assert_eq!(writer.write(b"!"), Err(WriteError::Closed));
        hears(&mut client, &[1; 60_000]);
        hears_the_end(&mut client);
        drop(client);
        assert_eq!(scene.reason(), "this side has ended it", "{model}");

        let (mut client, writer) = scene.connect();
        while writer.write(&[1; 60_000]).is_ok() {}
        writer.abort();
        assert_eq!(scene.reason(), "this side has aborted it", "{model}");
        let mut heard = Vec::new();
        let _ = client.read_to_end(&mut heard);
    }
}

#[test]
fn half_a_close_leaves_the_other_half() {
    for model in MODELS {
        let conduct = Conduct { stays: true, ..Conduct::default() };
        let heard = Arc::clone(&conduct.heard);
        let scene = Scene::new(model, conduct);
        // first this side, and then the client
        let (mut client, writer) = scene.connect();
        writer.write(b"all").unwrap();
        writer.end();
        hears(&mut client, b"all");
        hears_the_end(&mut client);
        client.write_all(b"still heard").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(scene.reason(), "the client has ended it", "{model}");
        assert_eq!(&*heard.lock().unwrap(), b"still heard");
        // the other way round
        let (mut client, writer) = scene.connect();
        client.write_all(b" and again").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        eventually("it is heard", || heard.lock().unwrap().ends_with(b" and again"));
        writer.write(b"late").unwrap();
        hears(&mut client, b"late");
        writer.end();
        hears_the_end(&mut client);
        assert_eq!(scene.reason(), "the client has ended it", "{model}");
    }
}

#[test]
fn one_that_listens_is_heard_while_it_is_written_to() {
    for model in MODELS {
        let conduct = Conduct { listens: true, ..Conduct::default() };
        let heard = Arc::clone(&conduct.heard);
        let scene = Scene::new(model, conduct);
        let (mut client, writer) = scene.connect();
        fill(&writer);
        client.write_all(b"I don't read").unwrap();
        eventually("it is heard all the same", || heard.lock().unwrap().ends_with(b"I don't read"));
    }
}

#[test]
fn limits_of_time_hold_and_what_is_written_is_no_silence() {
    let idle = Duration::from_millis(500);
    for model in MODELS {
        let scene = Scene::with(model, |server| server.idle_timeout(idle), Conduct::default());
        let (mut client, writer) = scene.connect();
        let start = Instant::now();
        while start.elapsed() < 2 * idle {
            writer.write(b"tick").unwrap();
            hears(&mut client, b"tick");
            std::thread::sleep(idle / 10);
        }
        assert_eq!(scene.reason(), "the client was silent for too long", "{model}");
        let (_client, writer) = scene.connect();
        // the kernel may find more room for a while, and then it has been no silence
        let mut reason = None;
        eventually("it is over", || {
            while writer.write(&[7; CHUNK]).is_ok() {}
            reason = scene.reasons.try_recv().ok();
            reason.is_some()
        });
        assert_eq!(reason.unwrap(), "the client read nothing for too long", "{model}");
    }
}

#[test]
fn who_resets_a_connection_is_the_reason_of_its_end() {
    for model in MODELS {
        let scene = Scene::new(model, Conduct::default());
        let (client, writer) = scene.connect();
        nix::sys::socket::setsockopt(
            &client,
            nix::sys::socket::sockopt::Linger,
            &libc::linger { l_onoff: 1, l_linger: 0 },
        )
        .unwrap();
        drop(client);
        assert_eq!(scene.reason(), "the client has reset it, or has gone", "{model}");
        assert!(!writer.is_open());
    }
}

/// Passes on what it gets to the other one.
struct Passes {
    to: Writer,
}

impl Protocol for Passes {
    fn received<'a>(&'a mut self, input: &'a [u8]) -> Reply<'a> {
        match self.to.write(input) {
            Ok(()) => Reply::WaitFor(&self.to),
            Err(_) => Reply::Finish(b"full"),
        }
    }
}

/// The one that is passed to has a writer, the one that passes has none.
#[test]
fn one_that_passes_its_input_on_reads_no_more_quickly_than_the_other_client() {
    for model in MODELS {
        let (to_us, writers) = channel();
        let to_us = Mutex::new(to_us);
        let target: Arc<Mutex<Option<Writer>>> = Arc::default();
        let of_service = Arc::clone(&target);
        let service = Service::protocol("both", move || Both {
            inner: of_service.lock().unwrap().clone().map(|to| Passes { to }),
            writers: to_us.lock().unwrap().clone(),
        });
        let server = Running::new(model, |server| server, service);
        let mut reader = server.connect();
        let writer: Writer = writers.recv_timeout(LIMIT).unwrap();
        *target.lock().unwrap() = Some(writer.clone());
        let mut source = server.connect();
        let total = 20_000_000;
        let sending = std::thread::spawn(move || {
            source.write_all(&vec![3; total]).unwrap();
            source
        });
        // it does not read yet, and the other one is held
        eventually("it is held", || writer.queued() >= Writer::LIMIT / 2);
        let mut heard = vec![0; total];
        reader.read_exact(&mut heard).unwrap();
        assert!(heard.iter().all(|&byte| byte == 3), "{model}");
        drop(sending.join().unwrap());
    }
}

struct Both {
    inner: Option<Passes>,
    writers: Sender<Writer>,
}

impl Protocol for Both {
    fn opened(&mut self, opening: &Opening) {
        if self.inner.is_none() {
            self.writers.send(opening.writer()).unwrap();
        }
    }

    fn received<'a>(&'a mut self, input: &'a [u8]) -> Reply<'a> {
        match &mut self.inner {
            Some(passes) => passes.received(input),
            None => Reply::Wait,
        }
    }
}

#[test]
fn what_a_reactor_connects_to_is_written_to_before_and_after_it_is_there() {
    struct Collect(Vec<u8>);
    impl Protocol for Collect {
        fn connected(&mut self, _: Peer) -> Reply<'_> {
            Reply::Send(b"connected ")
        }
        fn received<'a>(&'a mut self, input: &'a [u8]) -> Reply<'a> {
            self.0.extend_from_slice(input);
            Reply::Wait
        }
    }
    let mut reactor = Reactor::new().unwrap();
    let echo = reactor.listen("tcp://127.0.0.1:0", |_| forkd_server::Echo).unwrap();
    let address = echo.endpoints().next().unwrap().to_string();
    let heard = std::cell::RefCell::new(Vec::new());
    let mut reactor = reactor;
    let writer = reactor
        .connect(&address, Collect(Vec::new()), |reactor, collect, outcome| {
            outcome.unwrap();
            *heard.borrow_mut() = collect.0;
            reactor.stop();
        })
        .unwrap();
    writer.write(b"before ").unwrap();
    // from a timer and from another thread
    let (by_timer, by_thread) = (writer.clone(), writer.clone());
    let thread = std::cell::RefCell::new(None);
    reactor.call_later(Duration::from_millis(20), move |_| {
        by_timer.write(b"by-timer ").unwrap();
        *thread.borrow_mut() = Some(std::thread::spawn(move || {
            by_thread.write(b"by-thread").unwrap();
            by_thread.end();
        }));
    });
    reactor.call_later(LIMIT, |_| panic!("no answer"));
    reactor.run().unwrap();
    drop(reactor);
    assert_eq!(String::from_utf8(heard.into_inner()).unwrap(), "before connected by-timer by-thread");
    assert!(!writer.is_open());
}

#[test]
fn a_connection_that_is_aborted_before_it_is_there_is_not_made() {
    let mut reactor = Reactor::new().unwrap();
    let echo = reactor.listen("tcp://127.0.0.1:0", |_| forkd_server::Echo).unwrap();
    let address = echo.endpoints().next().unwrap().to_string();
    let outcomes = std::cell::RefCell::new(Vec::new());
    let mut reactor = reactor;
    let writer = reactor
        .connect(&address, forkd_server::Echo, |reactor, _, outcome| {
            outcomes.borrow_mut().push(outcome.map_err(|error| error.kind()));
            reactor.stop();
        })
        .unwrap();
    writer.write(b"never sent").unwrap();
    writer.abort();
    let refused = reactor
        .connect("tcp://127.0.0.1:1", forkd_server::Echo, |_, _, outcome| {
            outcomes.borrow_mut().push(outcome.map_err(|error| error.kind()));
        })
        .unwrap();
    reactor.run().unwrap();
    reactor.call_later(Duration::from_millis(10), |reactor| reactor.stop());
    reactor.run().unwrap();
    drop(reactor);
    let mut outcomes = outcomes.into_inner();
    outcomes.sort_by_key(Result::is_err);
    assert_eq!(outcomes, [Ok(()), Err(ErrorKind::ConnectionRefused)]);
    assert!(!writer.is_open() && !refused.is_open());
}

#[test]
fn protocols_hear_that_their_reactor_is_no_more() {
    let scene = Scene::with(Model::Event, |server| server.block_on_close(false), Conduct::default());
    let (_client, writer) = scene.connect();
    scene.server.handle.shutdown();
    assert_eq!(scene.reason(), "the server has stopped");
    assert!(!writer.is_open());
}

#[test]
fn protocols_hear_that_the_server_stops_and_may_say_something_to_it() {
    let fixed: fn(Server) -> Server = |server| server.threads(Threads::Fixed(2));
    let options: [fn(Server) -> Server; 4] = [|server| server, |server| server, |server| server, fixed];
    for (model, options) in MODELS.into_iter().chain([Model::Thread]).zip(options) {
        let scene = Scene::with(model, options, Conduct::default());
        let (mut client, writer) = scene.connect();
        scene.server.handle.shutdown();
        hears(&mut client, b"we close, good night");
        hears_the_end(&mut client);
        // the connection is still there, as its client has not ended
        assert_eq!(writer.write(b"!"), Err(WriteError::Closed));
        drop(client);
        assert_eq!(scene.reason(), "this side has ended it", "{model}");
    }
}
