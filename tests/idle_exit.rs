//! `--exit-idle`: the daemon ends when no client is there, and what has its sockets starts it again for the next one.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use common::*;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

/// After which the daemon ends: short, so that many clients come just then.
const IDLE: Duration = Duration::from_millis(20);

/// How often it ends under each of six models: more than 200 in all.
const ROUNDS: u32 = 34;

/// Sockets as systemd has them for a service.
struct Sockets {
    tcp: TcpListener,
    udp: UdpSocket,
    unix: UnixListener,
    dir: tempfile::TempDir,
}

impl Sockets {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            tcp: TcpListener::bind("127.0.0.1:0").unwrap(),
            udp: UdpSocket::bind("127.0.0.1:0").unwrap(),
            unix: UnixListener::bind(dir.path().join("s")).unwrap(),
            dir,
        }
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("s")
    }

    /// The service.
    fn forkd(&self, options: &str) -> Forkd {
        let forkd = Forkd::new(&format!("{options} systemd:*"));
        forkd.handed("a", &self.tcp).handed("b", &self.udp).handed("c", &self.unix)
    }

    /// Waits, for a while, until a client is there for whom the service is to be started.
    fn is_wanted(&self) -> bool {
        let fds = [self.tcp.as_fd(), self.udp.as_fd(), self.unix.as_fd()];
        let mut fds = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        poll(&mut fds, PollTimeout::from(50u8)).unwrap() > 0
    }
}

/// One client: it must have its echo, whenever it comes.
fn client_comes(n: u32, tcp: &TcpListener, udp: &UdpSocket, unix: &Path) {
    let message = format!("client {n}\n");
    let visits = |stream: &mut dyn ReadWrite| {
        echo(stream, &message);
        if n.is_multiple_of(4) {
            // one that stays for longer than the daemon is idle
            thread::sleep(IDLE * 2);
            echo(stream, &message);
        }
    };
    match n % 3 {
        0 => {
            let mut stream = TcpStream::connect(tcp.local_addr().unwrap()).unwrap();
            stream.set_read_timeout(Some(LIMIT)).unwrap();
            visits(&mut stream);
        }
        1 => {
            let mut stream = UnixStream::connect(unix).unwrap();
            stream.set_read_timeout(Some(LIMIT)).unwrap();
            visits(&mut stream);
        }
        _ => {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_read_timeout(Some(LIMIT)).unwrap();
            socket.connect(udp.local_addr().unwrap()).unwrap();
            socket.send(message.as_bytes()).unwrap();
            let mut answer = [0; 64];
            let length = socket.recv(&mut answer).expect("an answer to a datagram");
            assert_eq!(&answer[..length], message.as_bytes());
        }
    }
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

#[track_caller]
fn echo(stream: &mut dyn ReadWrite, message: &str) {
    stream.write_all(message.as_bytes()).expect("send");
    let mut answer = vec![0; message.len()];
    stream.read_exact(&mut answer).expect("receive");
    assert_eq!(answer, message.as_bytes());
}

under_models! { [fork spare prefork thread event coroutine]
    fn no_client_around_an_end_is_lost(model) {
        let sockets = Sockets::new();
        let is_over = AtomicBool::new(false);
        let (tcp, udp, unix) = (&sockets.tcp, &sockets.udp, sockets.path());
        thread::scope(|scope| {
            let clients = scope.spawn(|| {
                let mut random = 0x2545_f491_u32;
                for n in 0.. {
                    client_comes(n, tcp, udp, &unix);
                    if is_over.load(Ordering::Relaxed) {
                        return n + 1;
                    }
                    // xorshift; between half and twice the time after which the daemon ends
                    random ^= random << 13;
                    random ^= random >> 17;
                    random ^= random << 5;
                    thread::sleep(IDLE / 2 + IDLE.mul_f64(f64::from(random % 1024) / 1024.0 * 1.5));
                }
                0
            });
            let mut served = 0;
            let mut rounds = 0;
            while !clients.is_finished() {
                if !sockets.is_wanted() {
                    continue;
                }
                let daemon = sockets.forkd(&format!("{model} --exit-idle 20ms")).start();
                assert_eq!(daemon.wait().code(), Some(0), "{:?}", daemon.log());
                let stopped = daemon.wait_for_line("stopped connections=");
                assert!(stopped.ends_with(" cut=0"), "{stopped}");
                let count = stopped.split(['=', ' ']).rev().nth(2).unwrap();
                served += count.parse::<u32>().unwrap();
                rounds += 1;
                is_over.store(rounds >= ROUNDS, Ordering::Relaxed);
            }
            assert_eq!(served, clients.join().expect("all clients are served"));
            assert!(rounds >= ROUNDS, "{rounds} rounds");
        });
    }
}

both_ways! {
    fn it_ends_when_no_client_has_been_there_for_so_long(way: Way) {
        let sockets = Sockets::new();
        let daemon = sockets.forkd("-m prefork -w 3 --exit-idle 100ms").way(way).start();
        assert_eq!(daemon.wait().code(), Some(0));
        daemon.wait_for_line("no client has been here for 100ms: ending until one comes to the sockets");
        daemon.wait_for_line("stopping signal=idle children=0");
        eventually("no process is left", || daemon.is_gone());
    }

    fn a_client_that_is_silent_is_there(way: Way) {
        for model in ["-m fork", "-m prefork -w 2", "-m event"] {
            let (sockets, mut client, daemon) = with_client(&format!("{model} --exit-idle 50ms"), way);
            holds_for(Duration::from_millis(400), "it serves", || daemon.ended().is_none());
            echoes(&mut client, b"still here?");
            drop((client, sockets));
            assert_eq!(daemon.wait().code(), Some(0));
        }
    }

    fn a_worker_that_does_not_leave_keeps_it_and_is_replaced(way: Way) {
        let (_sockets, client, daemon) = with_client("-m prefork -w 2 --exit-idle 500ms", way);
        let worker = stopped_worker(&daemon, &client);
        drop(client);
        // it could have a client: the others have left, and the daemon goes on, with one more for the socket
        eventually("the others leave", || daemon.children() == [worker]);
        eventually("others come", || daemon.children().len() == 7);
        echoes(&mut daemon.served(), b"hello");
        assert_eq!(daemon.ended(), None);
        signal(worker, Signal::SIGCONT);
        assert_eq!(daemon.wait().code(), Some(0));
    }

    fn a_signal_while_workers_leave_ends_it_as_ever(way: Way) {
        let (_sockets, client, daemon) = with_client("-m prefork -w 2 --exit-idle 50ms", way);
        let worker = stopped_worker(&daemon, &client);
        drop(client);
        eventually("the others leave", || daemon.children() == [worker]);
        daemon.signal(Signal::SIGTERM);
        daemon.wait_for_line("stopping signal=SIGTERM");
        signal(worker, Signal::SIGCONT);
        assert_eq!(daemon.wait().code(), Some(0));
    }
}

/// A daemon that can't end yet: a client is there, for whom it was started.
#[track_caller]
fn with_client(options: &str, way: Way) -> (Sockets, Client, Daemon) {
    let sockets = Sockets::new();
    let mut client = common::connect(sockets.tcp.local_addr().unwrap()).unwrap();
    let daemon = sockets.forkd(options).way(way).start();
    echoes(&mut client, b"hello");
    (sockets, client, daemon)
}

/// Stops a worker that has no client.
fn stopped_worker(daemon: &Daemon, client: &Client) -> i32 {
    let server = daemon.server_of(client);
    let idle = daemon.children().into_iter().find(|pid| *pid != server).unwrap();
    stopped(idle);
    idle
}

#[test]
fn sockets_that_would_go_with_it_are_refused() {
    let own = "--exit-idle ends forkd until a client comes to a socket that systemd keeps, and tcp://127.0.0.1:0 would be \
               closed with forkd; serve systemd:NAME from a socket unit, or leave it out";
    let ended = Forkd::new("--exit-idle 10m tcp://127.0.0.1:0").run();
    assert!(ended.code == Some(64) && ended.stderr.contains(own), "{ended:?}");
    let ended = Sockets::new().forkd("--exit-idle 10m tcp://127.0.0.1:0").run();
    assert!(ended.code == Some(64) && ended.stderr.contains(own), "{ended:?}");
    let ended = Sockets::new().forkd("--exit-idle 0s").run();
    assert!(ended.code == Some(64) && ended.stderr.contains("--exit-idle is below 1ms"), "{ended:?}");
    let file = Forkd::new("--config {dir}/f.toml");
    std::fs::write(file.dir.path().join("f.toml"), "[daemon]\nexit-idle = '10m'\n").unwrap();
    let ended = file.run();
    assert!(ended.code == Some(78) && ended.stderr.contains("exit-idle ends forkd until"), "{ended:?}");
}
