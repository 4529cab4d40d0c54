//! What a handler can do with its connection: clone it for other threads and coroutines, limit its waits, set its options.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use common::{LIMIT, eventually};
use forkd_server::model::{Model, Threads};
use forkd_server::{Connection, Error, Handle, Handler, Server, Service, Stream, coroutine};

/// The models that serve handlers in their caller's process.
const MODELS: [Model; 3] = [Model::Iterative, Model::Thread, Model::Coroutine];

/// A server in a thread.
struct Running {
    address: SocketAddr,
    handle: Handle,
    thread: JoinHandle<Result<(), Error>>,
    /// What its handlers have failed by.
    failures: Arc<Mutex<Vec<String>>>,
}

impl Running {
    fn start(
        model: Model,
        handler: impl Fn(&mut Connection<'_>) -> io::Result<()> + Send + Sync + Clone + 'static,
    ) -> Self {
        let server = Server::bind("tcp://127.0.0.1:0").unwrap().model(model);
        Self::of(server, handler)
    }

    fn of(
        server: Server,
        handler: impl Fn(&mut Connection<'_>) -> io::Result<()> + Send + Sync + Clone + 'static,
    ) -> Self {
        let address = server.local_addr().unwrap();
        let handle = server.handle();
        let service = Service::handler("test", move || handler.clone());
        let failures = Arc::<Mutex<Vec<String>>>::default();
        let failed = Arc::clone(&failures);
        let server = server.handle_error(move |_, error| failed.lock().unwrap().push(error.to_string()));
        Self { address, handle, thread: thread::spawn(move || server.serve_forever(service)), failures }
    }

    fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(self.address).unwrap();
        client.set_read_timeout(Some(LIMIT)).unwrap();
        client
    }

    #[track_caller]
    fn stop(self) {
        self.handle.shutdown();
        eventually("the server ends", || self.thread.is_finished());
        self.thread.join().unwrap().unwrap();
        let failures = self.failures.lock().unwrap();
        assert!(failures.iter().all(|failure| failure.ends_with("as was wished")), "{failures:?}");
    }
}

fn read_line(client: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    client.read_line(&mut line).unwrap();
    line
}

/// Writes at the same time as it reads: says "tick" again and again, and echoes lines, until a client says "end".
fn duplex(connection: &mut Connection<'_>) -> io::Result<()> {
    let mut ticks = connection.try_clone()?;
    let ticking = thread::spawn(move || {
        while ticks.write_all(b"tick\n").is_ok() {
            thread::sleep(Duration::from_millis(1));
        }
    });
    let (rfile, mut wfile) = connection.files();
    for line in rfile.lines() {
        match line? {
            line if line == "end" => break,
            line => writeln!(wfile, "{line}")?,
        }
    }
    connection.shutdown(Shutdown::Both)?;
    ticking.join().unwrap();
    Ok(())
}

#[test]
fn a_thread_writes_while_the_handler_reads() {
    for model in MODELS {
        let server = Running::start(model, duplex);
        let mut client = BufReader::new(server.connect());
        for _ in 0..3 {
            assert_eq!(read_line(&mut client), "tick\n", "{model}: it has said nothing yet");
        }
        client.get_mut().write_all(b"hello\n").unwrap();
        while read_line(&mut client) != "hello\n" {}
        client.get_mut().write_all(b"end\n").unwrap();
        assert!(client.lines().all(|line| line.unwrap() == "tick"), "{model}");
        server.stop();
    }
}

/// By coroutines alone, in one thread: if a wait held up the others, nothing would come.
#[test]
fn coroutines_read_and_write_one_connection_and_let_others_go_on() {
    const MANY: usize = 8 << 20;
    let server = Running::start(Model::Coroutine, |connection| {
        let stream = Rc::new(connection.try_clone()?);
        let (reading, writing) = (Rc::clone(&stream), stream);
        // more than the client takes before it is told by the other that it may
        let writer = coroutine::spawn(move || (&*writing).write_all(&vec![b'x'; MANY]));
        let reader = coroutine::spawn(move || {
            let mut told = [0; 2];
            (&*reading).read_exact(&mut told)?;
            Ok::<_, io::Error>(told)
        });
        let told = reader.join().unwrap()?;
        writer.join().unwrap()?;
        assert_eq!(&told, b"go");
        Ok(())
    });
    let mut first = server.connect();
    let mut second = server.connect();
    for client in [&mut second, &mut first] {
        client.write_all(b"go").unwrap();
        let mut all = Vec::new();
        client.read_to_end(&mut all).unwrap();
        assert_eq!(all.len(), MANY);
    }
    server.stop();
}

/// What a chat is made of: each handler has the clones of all others.
#[test]
fn a_handler_is_told_by_others_what_to_write() {
    for model in MODELS.into_iter().filter(|model| *model != Model::Iterative) {
        let all: Arc<Mutex<Vec<Stream>>> = Arc::default();
        let clients = Arc::clone(&all);
        let server = Running::start(model, move |connection| {
            let mine = connection.try_clone()?;
            clients.lock().unwrap().push(mine);
            let (rfile, _) = connection.files();
            for line in rfile.lines() {
                let line = line? + "\n";
                // those that have gone are left out
                clients.lock().unwrap().retain_mut(|client| client.write_all(line.as_bytes()).is_ok());
            }
            Ok(())
        });
        let mut clients: Vec<_> = (0..5).map(|_| BufReader::new(server.connect())).collect();
        eventually("all have come", || all.lock().unwrap().len() == 5);
        for speaker in 0..5 {
            clients[speaker].get_mut().write_all(b"hello all\n").unwrap();
            assert!(clients.iter_mut().all(|client| read_line(client) == "hello all\n"), "{model}");
        }
        let gone = clients.pop().unwrap();
        gone.get_ref().shutdown(Shutdown::Write).unwrap();
        assert!(gone.lines().next().is_none(), "{model}: its clone is kept, and it ends all the same");
        clients[0].get_mut().write_all(b"one fewer\n").unwrap();
        assert!(clients.iter_mut().all(|client| read_line(client) == "one fewer\n"), "{model}");
        assert_eq!(all.lock().unwrap().len(), 4, "{model}");
        drop(clients);
        server.stop();
    }
}

#[test]
fn a_clone_ends_with_its_connection_also_where_the_handler_panics() {
    for model in MODELS {
        let (give, kept) = mpsc::channel();
        let server = Running::start(model, move |connection| {
            give.send(connection.try_clone()?).unwrap();
            let mut wish = [0];
            connection.read_exact(&mut wish)?;
            if wish == *b"p" {
                std::panic::resume_unwind(Box::new("as was wished"));
            }
            Ok(())
        });
        for wish in ["p", "e"] {
            let mut client = server.connect();
            client.write_all(wish.as_bytes()).unwrap();
            assert_eq!(client.read(&mut [0]).unwrap(), 0, "{model} {wish}: the client sees the end");
            // else it would be waited for: it could still be sending
            drop(client);
            let mut stream: Stream = kept.recv().unwrap();
            assert_eq!(stream.read(&mut [0]).unwrap(), 0, "{model} {wish}");
            assert_eq!(stream.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe, "{model} {wish}");
        }
        server.stop();
    }
}

/// A wait of a clone ends when another thread shuts the connection down.
#[test]
fn a_shutdown_ends_the_waits_of_others() {
    for model in MODELS {
        let server = Running::start(model, |connection| {
            let mut clone = connection.try_clone()?;
            let waiting = thread::spawn(move || clone.read(&mut [0]));
            connection.write_all(b"x")?;
            connection.shutdown(Shutdown::Both)?;
            assert_eq!(waiting.join().unwrap()?, 0);
            Ok(())
        });
        let mut heard = Vec::new();
        server.connect().read_to_end(&mut heard).unwrap();
        assert_eq!(heard, b"x", "{model}");
        server.stop();
    }
}

/// What a read or a write fails with, as the client is told.
fn outcome(connection: &mut Connection<'_>, result: io::Result<usize>) -> io::Result<()> {
    match result {
        Ok(n) => writeln!(connection, "{n} bytes"),
        Err(error) => writeln!(connection, "{:?}", error.kind()),
    }
}

#[test]
fn waits_are_limited_as_the_handler_says() {
    let short = Some(Duration::from_millis(20));
    for model in MODELS {
        let (tell, told) = mpsc::channel();
        let server = Running::start(model, move |connection| {
            connection.set_read_timeout(short)?;
            let result = connection.read(&mut [0]);
            outcome(connection, result)?;
            let mut clone = connection.try_clone()?;
            let result = clone.read(&mut [0]);
            outcome(connection, result)?;
            // and for ever
            connection.set_read_timeout(None)?;
            clone.set_read_timeout(None)?;
            assert_eq!(
                connection.set_read_timeout(Some(Duration::ZERO)).unwrap_err().kind(),
                ErrorKind::InvalidInput
            );
            assert_eq!(
                clone.set_read_timeout(Some(Duration::ZERO)).unwrap_err().kind(),
                ErrorKind::InvalidInput
            );
            writeln!(connection, "speak")?;
            let result = clone.read(&mut [0]);
            outcome(connection, result)?;
            let result = connection.read(&mut [0]);
            outcome(connection, result)?;
            connection.set_write_timeout(short)?;
            clone.set_write_timeout(short)?;
            for result in [connection.write_all(&vec![0; 16 << 20]), clone.write_all(&vec![0; 16 << 20])] {
                tell.send(result.unwrap_err().kind()).unwrap();
            }
            Ok(())
        });
        let mut client = BufReader::new(server.connect());
        assert_eq!(read_line(&mut client), "WouldBlock\n", "{model}");
        assert_eq!(read_line(&mut client), "WouldBlock\n", "{model}: the clone has what the connection had");
        assert_eq!(read_line(&mut client), "speak\n", "{model}");
        // longer than it waited before
        thread::sleep(Duration::from_millis(60));
        client.get_mut().write_all(b"12").unwrap();
        assert_eq!([read_line(&mut client), read_line(&mut client)], ["1 bytes\n", "1 bytes\n"], "{model}");
        assert_eq!(told.recv_timeout(LIMIT).unwrap(), ErrorKind::WouldBlock, "{model}");
        assert_eq!(told.recv_timeout(LIMIT).unwrap(), ErrorKind::WouldBlock, "{model}: the clone");
        drop(client);
        server.stop();
    }
}

#[test]
fn a_clone_lasts_no_longer_than_its_connection_may() {
    for model in MODELS {
        let server =
            Server::bind("tcp://127.0.0.1:0").unwrap().model(model).max_lifetime(Duration::from_millis(40));
        let (tell, told) = mpsc::channel();
        let server = Running::of(server, move |connection| {
            let mut clone = connection.try_clone()?;
            tell.send(clone.read(&mut [0]).unwrap_err().kind()).unwrap();
            Ok(())
        });
        let _client = server.connect();
        assert_eq!(told.recv_timeout(LIMIT).unwrap(), ErrorKind::TimedOut, "{model}");
        server.stop();
    }
}

#[test]
fn options_addresses_and_what_there_is_none_of() {
    let tell = Arc::new(Mutex::new(String::new()));
    let told = Arc::clone(&tell);
    let handler = move |connection: &mut Connection<'_>| {
        connection.set_nodelay(false)?;
        connection.set_read_timeout(Some(LIMIT))?;
        let nodelay =
            connection.socket().map(|socket| rustix::net::sockopt::tcp_nodelay(socket).unwrap_or(true));
        let clone = connection.try_clone().map_err(|error| error.kind()).map(|_| ());
        let address =
            connection.local_addr().map_err(|error| error.kind()).map(|address| address.ip().to_string());
        connection.shutdown(Shutdown::Write)?;
        *told.lock().unwrap() = format!("{nodelay:?} {clone:?} {address:?}");
        Ok(())
    };
    let serve = |endpoint: &str, ask: &dyn Fn(&str)| {
        let server = Server::bind(endpoint).unwrap().model(Model::Iterative);
        let address = server.server_address().to_string();
        let handler = handler.clone();
        ask(address.split_once("://").unwrap().1);
        server.ready(Service::handler("options", move || handler.clone())).unwrap().handle_request().unwrap();
        std::mem::take(&mut *tell.lock().unwrap())
    };
    let tcp = serve("tcp://127.0.0.1:0", &|address| drop(TcpStream::connect(address).unwrap()));
    assert_eq!(tcp, "Some(false) Ok(()) Ok(\"127.0.0.1\")");
    let udp = serve("udp://127.0.0.1:0", &|address| {
        _ = UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"x", address).unwrap();
    });
    assert_eq!(udp, "None Err(Unsupported) Err(Unsupported)");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let unix = serve(&format!("unix://{}", path.display()), &|path| drop(UnixStream::connect(path).unwrap()));
    assert_eq!(unix, "Some(true) Ok(()) Err(Unsupported)");
}

/// A handler that is asked now and then whether the server stops.
struct Attentive(Arc<Barrier>);

impl Handler for Attentive {
    fn handle(&mut self, connection: &mut Connection<'_>) -> io::Result<()> {
        assert!(!connection.server().is_stopping());
        self.0.wait();
        connection.set_read_timeout(Some(Duration::from_millis(5)))?;
        while !connection.server().is_stopping() {
            match connection.read(&mut [0]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                other => panic!("{other:?}"),
            }
        }
        connection.write_all(b"the server stops\n")
    }
}

#[test]
fn a_handler_hears_of_the_stop() {
    for (model, threads) in MODELS
        .map(|model| (model, Threads::default()))
        .into_iter()
        .chain([(Model::Thread, Threads::Fixed(2))])
    {
        let server = Server::bind("tcp://127.0.0.1:0").unwrap().model(model);
        let server = if model == Model::Thread { server.threads(threads) } else { server };
        let address = server.server_address().to_string();
        let (handle, barrier) = (server.handle(), Arc::new(Barrier::new(2)));
        let shared = Arc::clone(&barrier);
        let service = Service::handler("attentive", move || Attentive(Arc::clone(&shared)));
        let serving = thread::spawn(move || server.serve_forever(service));
        let mut client = TcpStream::connect(&address["tcp://".len()..]).unwrap();
        client.set_read_timeout(Some(LIMIT)).unwrap();
        barrier.wait();
        handle.shutdown();
        let mut heard = String::new();
        client.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "the server stops\n", "{model}");
        serving.join().unwrap().unwrap();
    }
}
