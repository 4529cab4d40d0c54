//! Workers for `tests/application.rs`: `test-workers HOW ENDPOINT…`.
//!
//! They are programs of their own, because a server may not share a process with the threads of the test harness. Each
//! says on standard error what it has bound, and logs there.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::Duration;

use forkd::config::values::{LogFormat, LogLevel, LogSink};
use forkd_server::model::Model;
use forkd_server::{Error, Handle, Server, Worker, WorkerError};

type Outcome = Result<(), WorkerError>;

fn main() -> Result<(), Error> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (endpoints, words): (Vec<_>, Vec<_>) = args.into_iter().partition(|arg| arg.contains("://"));
    let how = words.first().map_or("obeys", String::as_str);
    if how != "has-no-logger" {
        forkd::log::init(LogSink::Stderr, LogLevel::Info, LogFormat::Text)?;
    }
    let [first, others @ ..] = endpoints.as_slice() else { panic!("HOW ENDPOINT…") };
    let server = others.iter().try_fold(Server::bind(first)?, |server, other| server.and(other))?;
    let server = server.workers(2).grace(Duration::from_secs(1));
    for endpoint in server.endpoints() {
        eprintln!("listening on {endpoint}");
    }
    let handle = server.handle();
    match how {
        "obeys" => server.run(move |worker| obey(&worker, &handle)),
        "has-no-logger" => server.run(|_| Err::<(), _>(io::Error::other("nothing works"))),
        "returns" => server.run(|_| ()),
        "fails" => server.run(|_| Err::<(), _>(io::Error::other("nothing works"))),
        "panics" => server.run(|_| -> () { panic!("at the start") }),
        "misses" => server.run(|worker| worker.unix_listener().map(drop)),
        "chooses" => server.run(|worker| worker.tcp_listener().map(drop)),
        "threads" => {
            thread::spawn(|| thread::sleep(Duration::from_secs(60)));
            server.run(|_| ())
        }
        "tokio" => tokio_main(server),
        "models" => server.model(Model::Thread).run(|_| ()),
        // from the second generation on
        "hangs" => server.ready_after(None).start_timeout(Duration::from_secs(1)).run(move |worker| {
            if worker.generation() > 1 {
                thread::sleep(Duration::from_secs(3600));
            }
            obey(&worker, &handle)
        }),
        "deaf" => server.run(|worker| {
            worker.ready();
            thread::sleep(Duration::from_secs(3600));
        }),
        "everything" => server.run(|worker| everything(&worker)),
        other => panic!("{other}"),
    }
}

/// The mistake that is made first.
#[tokio::main(flavor = "current_thread")]
async fn tokio_main(server: Server) -> Result<(), Error> {
    server.run(|_| ())
}

/// Serves one client after the other, and does what they say.
fn obey(worker: &Worker, handle: &Handle) -> Outcome {
    worker.ready();
    let mut leaked = Vec::new();
    while let Some((client, _)) = worker.accept_tcp()? {
        let _counted = worker.connection();
        let (mut answers, mut leaks) = (client.try_clone()?, false);
        for line in BufReader::new(client).lines() {
            let Ok(line) = line else { break };
            let answer = match line.as_str() {
                "who" => {
                    format!("{} {} {}", worker.number(), worker.generation(), std::process::id())
                }
                "panic" => panic!("as was wished"),
                "abort" => std::process::abort(),
                "exit" => std::process::exit(3),
                "segv" => {
                    nix::sys::signal::raise(nix::sys::signal::Signal::SIGSEGV)?;
                    String::new()
                }
                "fail" => return Err("as was wished".into()),
                "return" => return Ok(()),
                "leak" => {
                    leaks = true;
                    "leaking".into()
                }
                "threads" => {
                    (0..10).for_each(|_| _ = thread::spawn(|| thread::sleep(Duration::from_secs(3600))));
                    "10".into()
                }
                "child" => {
                    let ended = Command::new("echo").arg("a child").output()?;
                    format!("{} {:?}", String::from_utf8_lossy(&ended.stdout).trim(), ended.status.code())
                }
                "stop" => {
                    handle.shutdown();
                    "stopped".into()
                }
                other => other.into(),
            };
            if writeln!(answers, "{answer}").is_err() {
                break;
            }
        }
        drop(answers);
        while leaks && let Ok(file) = File::open("/dev/null") {
            leaked.push(file);
        }
    }
    Ok(())
}

/// Serves all kinds of sockets at once, each in threads.
fn everything(worker: &Worker) -> Outcome {
    let (udp, unixgram) = (worker.udp_socket()?, worker.unix_datagram()?);
    thread::spawn(move || {
        let mut datagram = [0; 2048];
        while let Ok((length, peer)) = udp.recv_from(&mut datagram) {
            let _ = udp.send_to(&datagram[..length], peer);
        }
    });
    thread::spawn(move || {
        let mut datagram = [0; 2048];
        while let Ok((length, sender)) = unixgram.recv_from(&mut datagram) {
            let _ = sender.as_pathname().map(|path| unixgram.send_to(&datagram[..length], path));
        }
    });
    worker.ready();
    thread::scope(|threads| {
        threads.spawn(|| {
            while let Ok(Some(mut client)) = worker.accept_unix() {
                let counted = worker.connection();
                threads.spawn(move || {
                    let _counted = counted;
                    io::copy(&mut client.try_clone()?, &mut client)
                });
            }
        });
        while let Some((client, _)) = worker.accept_tcp()? {
            let counted = worker.connection();
            threads.spawn(move || {
                let _counted = counted;
                echo(client)
            });
        }
        Ok(())
    })
}

fn echo(mut client: TcpStream) -> io::Result<u64> {
    io::copy(&mut client.try_clone()?, &mut client)
}
