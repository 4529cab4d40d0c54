//! Servers in the process of their caller, which here has the test harness's threads.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::{self, BufRead, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use common::{LIMIT, eventually, free_port, is_cut, is_refused, lingers};
use forkd_server::model::{Model, Threads};
use forkd_server::{Connection, Echo, Error, Handle, Handler, HandlerError, Peer, Server, Service};

/// The models that serve in their caller's process.
const MODELS: [Model; 3] = [Model::Iterative, Model::Thread, Model::Coroutine];

fn bind(endpoint: &str, model: Model) -> Server {
    Server::bind(endpoint).unwrap().model(model)
}

fn local(model: Model) -> Server {
    bind("tcp://127.0.0.1:0", model)
}

fn address(server: &Server) -> SocketAddr {
    server.server_address().to_string().split_once("://").unwrap().1.parse().unwrap()
}

/// A server in a thread; panics if it does not end.
struct Running {
    address: SocketAddr,
    handle: Handle,
    thread: JoinHandle<Result<(), Error>>,
}

impl Running {
    fn start(server: Server, service: impl Into<Service>) -> Self {
        let (address, handle, service) = (address(&server), server.handle(), service.into());
        Self { address, handle, thread: thread::spawn(move || server.serve_forever(service)) }
    }

    fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(self.address).unwrap();
        client.set_read_timeout(Some(LIMIT)).unwrap();
        client
    }

    #[track_caller]
    fn ends(self) {
        eventually("the server ends", || self.thread.is_finished());
        self.thread.join().unwrap().unwrap();
        eventually("its socket is gone", || is_refused(self.address));
    }

    #[track_caller]
    fn stop(self) {
        self.handle.shutdown();
        self.ends();
    }
}

#[track_caller]
fn talk(client: &mut TcpStream, text: &str) -> String {
    client.write_all(text.as_bytes()).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut heard = String::new();
    client.read_to_string(&mut heard).unwrap();
    heard
}

/// Again, if a signal has ended it: this process is the server, too, and has its signals.
fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Does as its client says.
#[derive(Clone, Default)]
struct Obedient {
    count: Arc<AtomicUsize>,
}

impl Handler for Obedient {
    fn handle(&mut self, connection: &mut Connection<'_>) -> io::Result<()> {
        let (mut rfile, mut wfile) = connection.files();
        let mut line = String::new();
        rfile.read_line(&mut line)?;
        match line.trim() {
            "panic" => resume_unwind(Box::new("as was wished")),
            "fail" => return Err(io::Error::other("failed, as was wished")),
            "shutdown" => connection.server().shutdown(),
            _ => {}
        }
        write!(wfile, "{line}{}", self.count.fetch_add(1, Ordering::SeqCst))
    }
}

fn obedient() -> Service {
    let first = Obedient::default();
    Service::handler("obedient", move || first.clone())
}

/// Reads one letter, and has much to say.
struct Terse;

impl Handler for Terse {
    fn handle(&mut self, connection: &mut Connection<'_>) -> io::Result<()> {
        let mut letter = [0];
        connection.read_exact(&mut letter)?;
        connection.write_all(&vec![letter[0]; 200_000])?;
        if letter == *b"f" { Err(io::Error::other("failed, as was wished")) } else { Ok(()) }
    }
}

#[test]
fn what_a_handler_leaves_unread_does_not_cost_the_answer() {
    for model in MODELS {
        let running = Running::start(local(model), Service::handler("terse", || Terse));
        for letter in [b'x', b'f'] {
            let mut client = running.connect();
            client.write_all(&[letter; 50_000]).unwrap();
            let mut answer = vec![0; 1000];
            client.read_exact(&mut answer).unwrap();
            client.write_all(&[letter; 50_000]).unwrap();
            client.read_to_end(&mut answer).unwrap();
            assert!(answer == [letter; 200_000], "{model:?}: {} bytes came", answer.len());
        }
        running.stop();
    }
}

#[test]
fn a_shutdown_always_ends_it() {
    // at any moment of its start, as in CPython's test_shutdown
    for model in MODELS {
        let servers: Vec<Running> = (0..20).map(|_| Running::start(local(model), Echo)).collect();
        servers.into_iter().for_each(Running::stop);
        let server = local(model);
        server.handle().shutdown();
        assert!(server.handle().is_shut_down());
        server.serve_forever(Echo).unwrap();
    }
}

#[test]
fn a_shutdown_does_not_wait_for_the_next_look() {
    for model in MODELS {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let server = local(model).poll_interval(Duration::from_secs(3600)).service_actions(move || {
            counted.fetch_add(1, Ordering::SeqCst);
        });
        let running = Running::start(server, Echo);
        eventually("it serves", || calls.load(Ordering::SeqCst) > 0);
        running.stop();
    }
}

#[test]
fn a_handler_can_end_its_server() {
    for model in MODELS {
        let running = Running::start(local(model), obedient());
        assert_eq!(talk(&mut running.connect(), "one\n"), "one\n0");
        assert_eq!(talk(&mut running.connect(), "shutdown\n"), "shutdown\n1", "it finishes with its client");
        running.ends();
    }
}

#[test]
fn a_shutdown_lets_a_client_finish() {
    for model in MODELS {
        let running = Running::start(local(model), Echo);
        let mut client = running.connect();
        common::echoes(&mut client, b"are you there?");
        running.handle.shutdown();
        common::echoes(&mut client, b"still there?");
        eventually("a client that comes now is refused", || is_refused(running.address));
        drop(client);
        running.ends();
    }
}

#[test]
fn a_stop_waits_for_no_client_where_it_is_told_so() {
    let servers = [
        local(Model::Thread),
        local(Model::Thread).threads(Threads::Fixed(2)),
        local(Model::Event),
        local(Model::Coroutine),
    ];
    for server in servers {
        let goes_on = format!("{server:?}").contains("Thread");
        let (told, hears) = mpsc::channel();
        let told = Mutex::new(told);
        let server = server
            .block_on_close(false)
            .handle_error(move |_, error| told.lock().unwrap().send(error.to_string()).unwrap());
        let running = Running::start(server, Echo);
        let mut clients = [running.connect(), running.connect()];
        clients.iter_mut().for_each(|client| common::echoes(client, b"are you there?"));
        let address = running.address;
        running.stop();
        for mut client in clients {
            if goes_on {
                common::echoes(&mut client, b"still there?");
                client.shutdown(Shutdown::Write).unwrap();
            }
            assert!(is_cut(&mut client));
        }
        eventually("the address is free", || Server::bind(&format!("tcp://{address}")).is_ok());
        // the last of them has let go of the hook, and never called it
        assert_eq!(hears.recv_timeout(LIMIT), Err(mpsc::RecvTimeoutError::Disconnected));
    }
}

/// Those that serve in this process, with a service that waits for its client.
fn all_in_process() -> Vec<Server> {
    let threads = local(Model::Thread).threads(Threads::Fixed(2));
    let models = [Model::Iterative, Model::Thread, Model::Event, Model::Coroutine].map(local);
    models.into_iter().chain([threads]).collect()
}

#[test]
fn a_stop_gives_clients_time_and_cuts_those_that_stay() {
    const GRACE: Duration = Duration::from_millis(300);
    for server in all_in_process() {
        let name = format!("{server:?}");
        let running = Running::start(server.grace(GRACE), Echo);
        let mut client = running.connect();
        common::echoes(&mut client, b"are you there?");
        let (handle, start) = (running.handle.clone(), Instant::now());
        handle.shutdown();
        common::echoes(&mut client, b"still there?");
        // it says nothing more
        assert!(is_cut(&mut client), "{name}");
        let lasted = start.elapsed();
        assert!(lasted >= GRACE && lasted < GRACE + LIMIT / 2, "{name}: {lasted:?}");
        running.ends();
    }
}

/// As the command line does.
#[test]
fn options_without_effect_are_refused() {
    let [fork, prefork, thread, event, iterative] =
        [Model::Fork, Model::Prefork, Model::Thread, Model::Event, Model::Iterative]
            .map(|model| move || local(model));
    let second = Duration::from_secs(1);
    let exec = || Service::from(forkd_server::service::Exec::new(["cat"]));
    let echo = || Service::from(Echo);
    for (name, server, service) in [
        ("workers", fork().workers(2), echo()),
        ("spare_workers", prefork().workers(4).spare_workers(3..=9), echo()),
        ("max_connections_per_child", fork().max_connections_per_child(9), echo()),
        ("max_connections_per_child", thread().max_connections_per_child(9), echo()),
        ("threads", event().threads(Threads::Fixed(9)), echo()),
        ("max_connections", thread().max_connections(9), echo()),
        ("max_children", prefork().max_children(9), echo()),
        ("spare_children", prefork().spare_children(9), echo()),
        ("spare_children", bind("udp://127.0.0.1:0", Model::Fork).spare_children(9), echo()),
        ("idle_timeout", iterative().idle_timeout(second), exec()),
        ("max_lifetime", bind("udp://127.0.0.1:0", Model::Iterative).max_lifetime(second), echo()),
    ] {
        let model = format!("{server:?}");
        let refusal = server.serve_forever(service).unwrap_err().sentence();
        assert!(
            refusal.starts_with(&format!("{name} has no effect here, with the model ")),
            "{model}: {refusal}"
        );
        assert!(refusal.contains(": leave it out; it needs "), "{refusal}");
    }
}

#[test]
fn a_stop_is_over_when_the_last_client_has_gone() {
    for server in all_in_process() {
        let name = format!("{server:?}");
        let running = Running::start(server.grace(Duration::from_secs(3600)), Echo);
        let mut client = running.connect();
        common::echoes(&mut client, b"are you there?");
        running.handle.shutdown();
        drop(client);
        eventually(&name, || running.thread.is_finished());
        running.ends();
    }
}

#[test]
fn threads_that_wait_for_something_else_are_left_alone() {
    for threads in [Threads::default(), Threads::Fixed(2)] {
        let (release, held) = mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        let (tell, told) = mpsc::channel();
        let service = Service::handler("deaf", move || {
            let (held, tell) = (Arc::clone(&held), tell.clone());
            move |_: &mut Connection<'_>| {
                tell.send(()).unwrap();
                let _ = held.lock().unwrap().recv();
                tell.send(()).unwrap();
                Ok(())
            }
        });
        let server = local(Model::Thread).threads(threads).grace(Duration::from_millis(10));
        let running = Running::start(server, service);
        let _client = running.connect();
        told.recv_timeout(LIMIT).unwrap();
        running.handle.shutdown();
        eventually("the server ends", || running.thread.is_finished());
        running.thread.join().unwrap().unwrap();
        drop(release);
        told.recv_timeout(LIMIT).expect("it goes on");
    }
}

#[test]
fn one_request_is_handled_to_its_end_all_the_same() {
    for model in MODELS {
        let server = local(model).block_on_close(false);
        let address = address(&server);
        let mut serving = server.ready(obedient()).unwrap();
        let client = thread::spawn(move || {
            let mut client = TcpStream::connect(address).unwrap();
            client.write_all(b"slow").unwrap();
            thread::sleep(Duration::from_millis(100));
            talk(&mut client, "ly\n")
        });
        assert!(serving.handle_request().unwrap());
        assert_eq!(client.join().unwrap(), "slowly\n0", "{model}");
    }
}

#[test]
fn handlers_share_the_caller_s_memory() {
    for model in MODELS {
        let first = Obedient::default();
        let count = Arc::clone(&first.count);
        let running = Running::start(local(model), Service::handler("count", move || first.clone()));
        for number in 0..3 {
            assert_eq!(talk(&mut running.connect(), ""), number.to_string());
        }
        assert_eq!(count.load(Ordering::SeqCst), 3);
        running.stop();
    }
}

#[test]
fn errors_and_panics_are_told_and_cost_one_client() {
    for model in MODELS {
        let (told, hears) = mpsc::channel();
        let told = Mutex::new(told);
        let server = local(model).handle_error(move |peer, error| {
            let how = match error {
                HandlerError::Error(error) => format!("error: {error}"),
                HandlerError::Panic(message) => format!("panic: {message}"),
                _ => "?".into(),
            };
            told.lock().unwrap().send((peer, how)).unwrap();
        });
        let running = Running::start(server, obedient());
        for (word, how) in [("panic\n", "panic: as was wished"), ("fail\n", "error: failed, as was wished")] {
            let mut client = running.connect();
            client.write_all(word.as_bytes()).unwrap();
            assert!(is_cut(&mut client));
            let expected = (Peer::Ip(client.local_addr().unwrap()), how.to_owned());
            assert_eq!(hears.recv_timeout(LIMIT).unwrap(), expected);
        }
        // a client that resets is no error
        common::reset(running.connect());
        assert_eq!(talk(&mut running.connect(), "on\n"), "on\n0");
        running.stop();
        assert!(hears.try_recv().is_err());
    }
}

#[test]
fn a_client_whose_handler_panics_has_its_source_refused() {
    for model in MODELS {
        let running = Running::start(local(model).penalty("crash=1h").unwrap(), obedient());
        assert_eq!(talk(&mut running.connect(), "on\n"), "on\n0");
        let mut client = running.connect();
        client.write_all(b"panic\n").unwrap();
        assert!(is_cut(&mut client));
        let heard = uninterrupted(|| TcpStream::connect(running.address)?.read(&mut [0]));
        assert_eq!(heard.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        running.stop();
        let exempt = local(model).penalty("crash=1h").unwrap().penalty_exempt("127.0.0.0/8").unwrap();
        let running = Running::start(exempt, obedient());
        let mut client = running.connect();
        client.write_all(b"panic\n").unwrap();
        assert!(is_cut(&mut client));
        assert_eq!(talk(&mut running.connect(), "on\n"), "on\n0");
        running.stop();
    }
}

#[test]
fn hooks_that_panic_cost_no_other_client_anything() {
    for model in MODELS {
        let asked = AtomicUsize::new(0);
        let server = local(model)
            .verify_request(move |_| {
                asked.fetch_add(1, Ordering::SeqCst) != 0 || resume_unwind(Box::new("verify, as was wished"))
            })
            .handle_error(|_, _| resume_unwind(Box::new("handle_error, as was wished")));
        let running = Running::start(server, obedient());
        assert!(is_cut(&mut running.connect()), "a check that panics refuses");
        let mut client = running.connect();
        client.write_all(b"fail\n").unwrap();
        assert!(is_cut(&mut client));
        assert_eq!(talk(&mut running.connect(), "on\n"), "on\n0");
        running.stop();
    }
}

#[test]
fn a_panic_of_the_application_s_own_work_is_its_own() {
    for model in MODELS {
        let running = Running::start(
            bind("tcp://localhost:0", model)
                .service_actions(|| resume_unwind(Box::new("service_actions, as was wished"))),
            Echo,
        );
        eventually("the server ends", || running.thread.is_finished());
        assert!(running.thread.join().is_err(), "the panic has got lost");
        eventually("its socket is gone", || is_refused(running.address));
    }
}

#[test]
fn datagrams_are_served_here_too() {
    for model in MODELS {
        let running = Running::start(bind("udp://127.0.0.1:0", model), obedient());
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(running.address).unwrap();
        client.set_read_timeout(Some(LIMIT)).unwrap();
        for (question, answer) in
            [("one\n", "one\n0"), ("panic\n", ""), ("two\n", "two\n1"), ("shutdown\n", "shutdown\n2")]
        {
            client.send(question.as_bytes()).unwrap();
            if !answer.is_empty() {
                let mut heard = [0; 100];
                let n = uninterrupted(|| client.recv(&mut heard)).unwrap();
                assert_eq!(String::from_utf8_lossy(&heard[..n]), answer);
            }
        }
        eventually("a handler of a datagram ends it", || running.thread.is_finished());
        running.thread.join().unwrap().unwrap();
        // a test that starts a program has its sockets twice, until the program runs
        eventually("the port is free again", || UdpSocket::bind(running.address).is_ok());
    }
}

#[test]
fn handle_request_serves_one_and_waits_for_no_longer_than_it_may() {
    for model in MODELS {
        let waits = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&waits);
        let server = local(model)
            .timeout(Duration::from_millis(30))
            .handle_timeout(move || _ = counted.fetch_add(1, Ordering::SeqCst))
            .verify_request(
                |peer| !matches!(peer, Peer::Ip(address) if address.ip().to_string() == "127.0.0.2"),
            );
        let (address, handle) = (address(&server), server.handle());
        let mut serving = server.ready(obedient()).unwrap();
        let begun = Instant::now();
        assert!(!serving.handle_request().unwrap());
        assert!(begun.elapsed() >= Duration::from_millis(30));
        assert_eq!(waits.load(Ordering::SeqCst), 1);

        let clients: Vec<_> = (0..2)
            .map(|_| {
                let mut client = TcpStream::connect(address).unwrap();
                thread::spawn(move || talk(&mut client, "hello\n"))
            })
            .collect();
        assert!(serving.handle_request().unwrap());
        assert!(clients.iter().filter(|client| client.is_finished()).count() < 2, "it serves one only");
        assert!(serving.handle_request().unwrap());
        let mut answers: Vec<String> = clients.into_iter().map(|client| client.join().unwrap()).collect();
        answers.sort();
        assert_eq!(answers, ["hello\n0", "hello\n1"]);

        // a refused client, and one that has gone again, are not one
        refused_client(address);
        assert!(!serving.handle_request().unwrap());
        assert_eq!(waits.load(Ordering::SeqCst), 2);

        // a panic is a request that was handled
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(b"panic\n").unwrap();
        assert!(serving.handle_request().unwrap());
        assert!(is_cut(&mut client));

        handle.shutdown();
        assert!(!serving.handle_request().unwrap());
        assert_eq!(waits.load(Ordering::SeqCst), 2, "an end is no time-out");
    }
}

/// One from 127.0.0.2, which has gone before it is accepted.
fn refused_client(server: SocketAddr) {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
    use std::os::fd::AsRawFd;
    let SocketAddr::V4(server) = server else { panic!("no IPv4") };
    let client = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(client.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 2, 0)).unwrap();
    connect(client.as_raw_fd(), &SockaddrIn::from(server)).unwrap();
}

#[test]
fn a_name_of_several_addresses_is_served_at_each() {
    for model in MODELS {
        let server = bind("tcp://localhost:0", model);
        let addresses: Vec<SocketAddr> = server
            .endpoints()
            .map(|endpoint| endpoint.to_string().strip_prefix("tcp://").unwrap().parse().unwrap())
            .collect();
        let running = Running::start(server, obedient());
        for address in &addresses {
            talk(&mut TcpStream::connect(address).unwrap(), "hello\n");
        }
        running.handle.shutdown();
        eventually("all of it ends", || running.thread.is_finished());
        eventually("their sockets are gone", || addresses.iter().copied().all(is_refused));
    }
}

#[test]
fn what_is_not_served_any_more_leaves_nothing_behind() {
    let room = tempfile::tempdir().unwrap();
    let path = room.path().join("socket");
    let endpoint = format!("unix://{}", path.display());
    let server = Server::bind(&endpoint).unwrap();
    assert!(path.exists());
    drop(server);
    assert!(!path.exists(), "a server that never serves removes its socket file");
    for model in MODELS {
        let server = bind(&endpoint, model);
        server.handle().shutdown();
        server.serve_forever(Echo).unwrap();
        assert!(!path.exists(), "and so does one that has served");
    }
}

/// In a process of its own, where no other test opens anything: run by the test below.
#[test]
#[ignore = "is run by no_descriptor_is_left"]
fn descriptors() {
    let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = count();
    for model in MODELS {
        for _ in 0..100 {
            let running = Running::start(local(model), obedient());
            talk(&mut running.connect(), "hello\n");
            running.stop();
        }
        // as in CPython's test_tcpserver_bind_leak
        let taken = local(model);
        let endpoint = taken.server_address().to_string();
        for _ in 0..1024 {
            assert!(matches!(Server::bind(&endpoint), Err(Error::Unavailable(_))));
        }
    }
    assert_eq!(count(), before);
}

#[test]
fn no_descriptor_is_left() {
    let mut test = std::process::Command::new(std::env::current_exe().unwrap());
    let ended = test.args(["--exact", "descriptors", "--ignored", "--test-threads=1"]).output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stdout));
}

#[test]
fn a_server_goes_from_one_thread_to_another() {
    fn moves(_: impl Send) {}
    moves(local(Model::Iterative).service_actions(|| {}).handle_timeout(|| {}));
    fn is_shared(_: impl Send + Sync + Clone) {}
    is_shared(local(Model::Iterative).handle());
}

#[test]
fn two_servers_share_a_port_only_if_both_say_so() {
    let sharing = Server::builder().allow_reuse_port(true);
    for scheme in ["tcp", "udp"] {
        let one = sharing.bind(&format!("{scheme}://127.0.0.1:0")).unwrap();
        let endpoint = one.server_address().to_string();
        assert!(matches!(Server::bind(&endpoint), Err(Error::Unavailable(_))));
        sharing.bind(&endpoint).unwrap();
    }
}

#[test]
fn a_port_that_lingers_is_reused_unless_that_is_forbidden() {
    let port = free_port();
    let endpoint = format!("tcp://127.0.0.1:{port}");
    let running = Running::start(Server::bind(&endpoint).unwrap().model(Model::Iterative), obedient());
    eventually("its side lingers", || {
        // the server closes first
        let mut client = running.connect();
        client.write_all(b"hello\n").unwrap();
        client.read_to_string(&mut String::new()).unwrap();
        drop(client);
        lingers(port)
    });
    running.stop();
    assert!(matches!(
        Server::builder().allow_reuse_address(false).bind(&endpoint),
        Err(Error::Unavailable(_))
    ));
    Server::bind(&endpoint).unwrap();
}
