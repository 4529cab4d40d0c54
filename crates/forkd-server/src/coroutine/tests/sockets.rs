//! Sockets that let others go on.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::rc::Rc;
use std::time::Duration;

use super::super::*;
use super::{LONG, ms};

#[test]
fn a_reader_and_a_writer_share_a_socket() {
    const SIZE: usize = 4 << 20;
    run(|| {
        let (one, mut other) = UnixStream::pair().expect("pair");
        let echo = spawn(move || {
            let mut chunk = vec![0; 10_000];
            loop {
                let n = other.read(&mut chunk)?;
                if n == 0 {
                    return Ok::<_, io::Error>(());
                }
                other.write_all(&chunk[..n])?;
            }
        });
        let one = Rc::new(one);
        let writer = Rc::clone(&one);
        let write = spawn(move || {
            (&*writer).write_all(&vec![b'x'; SIZE])?;
            writer.shutdown(std::net::Shutdown::Write)
        });
        let mut back = Vec::new();
        (&*one).read_to_end(&mut back).expect("read");
        assert!(back.len() == SIZE && back.iter().all(|&byte| byte == b'x'));
        write.join().expect("no panic").expect("write");
        echo.join().expect("no panic").expect("echo");
    })
    .expect("run");
}

#[test]
fn the_end_is_seen_though_it_comes_with_the_last_bytes() {
    run(|| {
        for order in 0..3 {
            let (mut one, mut other) = UnixStream::pair().expect("pair");
            let reader = spawn(move || {
                let mut text = String::new();
                one.read_to_string(&mut text).map(|_| text)
            });
            // before it first looks, after, or in between
            if order > 0 {
                yield_now();
            }
            other.write_all(b"the last bytes").expect("write");
            if order > 1 {
                yield_now();
            }
            other.shutdown(std::net::Shutdown::Write).expect("shutdown");
            let joined = join_all([reader], Some(LONG / 60)).pop();
            assert!(matches!(joined, Some(Ok(Ok(Ok(text)))) if text == "the last bytes"), "order {order}");
        }
    })
    .expect("run");
}

#[test]
fn a_read_that_takes_too_long_fails_and_the_next_does_not() {
    run(|| {
        let (mut one, mut other) = UnixStream::pair().expect("pair");
        one.set_read_timeout(Some(ms(20))).expect("time-out");
        assert!(one.set_read_timeout(Some(Duration::ZERO)).is_err());
        assert_eq!(one.read(&mut [0; 9]).expect_err("silence").kind(), io::ErrorKind::WouldBlock);
        // where all stood still for a while, both would be due
        one.set_read_timeout(Some(LONG)).expect("time-out");
        let late = spawn(move || {
            sleep(ms(5));
            other.write_all(b"late")
        });
        assert_eq!(one.read(&mut [0; 9]).expect("read"), 4);
        late.join().expect("no panic").expect("write");
    })
    .expect("run");
}

#[test]
fn one_that_never_has_to_wait_does_not_starve_the_others() {
    run(|| {
        let done = Rc::new(Cell::new(false));
        let seen = Rc::clone(&done);
        let (mut one, mut other) = UnixStream::pair().expect("pair");
        let greedy = spawn(move || {
            let mut rounds = 0_u32;
            while !seen.get() {
                one.write_all(b"x").expect("write");
                other.read_exact(&mut [0]).expect("read");
                rounds += 1;
                assert!(rounds < 10_000_000, "no other coroutine has had a turn");
            }
        });
        spawn(move || done.set(true));
        greedy.join().expect("the other has had its turn");
    })
    .expect("run");
}

#[test]
fn no_listener_is_an_error_and_accepting_waits() {
    run(|| {
        let listener = TcpListener::bind("127.0.0.1:0".parse().expect("address")).expect("bind");
        let address = listener.local_addr().expect("address");
        let server = spawn(move || {
            let (client, peer) = listener.accept().expect("accept");
            assert_eq!(client.peer_addr().expect("peer"), peer);
        });
        yield_now();
        let client = TcpStream::connect_timeout(address, LONG).expect("connect");
        client.set_nodelay(true).expect("option");
        server.join().expect("no panic");
        let error = TcpStream::connect(address).expect_err("no listener");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    })
    .expect("run");
}

#[test]
fn a_socket_outlives_its_scheduler() {
    let (mut one, mut other) = UnixStream::pair().expect("pair");
    for _ in 0..2 {
        run(|| {
            one.set_read_timeout(Some(ms(1))).expect("time-out");
            assert!(one.read(&mut [0; 9]).is_err());
            other.write_all(b"hello").expect("write");
            assert_eq!(one.read(&mut [0; 9]).expect("read"), 5);
        })
        .expect("run");
    }
}

#[test]
fn what_is_left_of_a_socket_says_nothing_of_the_one_that_has_its_place() {
    use std::os::fd::AsFd;

    use rustix::net::{AddressFamily, SocketType, bind, connect, getsockname, listen, socket};

    // no client gets in any more
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let tcp = || socket(AddressFamily::INET, SocketType::STREAM, None).expect("socket");
    let full = tcp();
    bind(&full, &any).and_then(|()| listen(&full, 0)).expect("listen");
    let address = getsockname(&full).expect("address").try_into().expect("IPv4");
    let first = tcp();
    connect(&first, &address).expect("the queue has one place");

    run(|| {
        let (mut one, mut other) = UnixStream::pair().expect("pair");
        one.set_read_timeout(Some(ms(1))).expect("time-out");
        assert!(one.read(&mut [0]).is_err());
        // as a program may have one: what the poller looks after is open still
        let _copy = one.as_fd().try_clone_to_owned().expect("dup");
        drop(one);
        spawn(move || {
            sleep(ms(20));
            other.write_all(b"ready").expect("write");
        });
        let connected = TcpStream::connect_timeout(address, ms(200));
        assert_eq!(connected.expect_err("it waits").kind(), io::ErrorKind::TimedOut);
    })
    .expect("run");
}

fn udp_pair() -> (UdpSocket, UdpSocket) {
    let socket = || UdpSocket::bind("127.0.0.1:0".parse().expect("an address")).expect("bind");
    let (one, other) = (socket(), socket());
    one.connect(other.local_addr().expect("address")).expect("connect");
    (one, other)
}

/// A short read of a stream means that no more is there; one datagram says nothing of the next.
#[test]
fn queued_datagrams_are_all_read_before_a_wait() {
    run(|| {
        let (one, other) = udp_pair();
        let log = super::Log::default();
        let heard = log.clone();
        let reader = spawn(move || {
            for _ in 0..2 {
                let mut buffer = [0; 100];
                let lengths: Vec<usize> =
                    (0..4).map(|_| other.recv_from(&mut buffer).expect("a datagram").0).collect();
                assert_eq!(lengths, [3, 0, 5, 1]);
                heard.add("all four");
            }
        });
        for _ in 0..2 {
            // it waits already
            yield_now();
            assert_eq!(log.take(), [""; 0]);
            for payload in [&b"one"[..], b"", b"three", b"4"] {
                assert_eq!(one.send(payload).expect("send"), payload.len());
            }
            // neither is there a further one that would wake it again
            for _ in 0..10_000 {
                sleep(ms(1));
                if !log.0.borrow().is_empty() {
                    break;
                }
            }
            assert_eq!(log.take(), ["all four"]);
        }
        reader.join().expect("no panic");
    })
    .expect("run");
}

#[test]
fn many_ask_by_datagram_at_once_and_each_hears_its_own_answer() {
    run(|| {
        let server = UdpSocket::bind("127.0.0.1:0".parse().expect("an address")).expect("bind");
        let address = server.local_addr().expect("address");
        let serving = spawn(move || {
            let mut buffer = [0; 100];
            for _ in 0..50 {
                let (n, from) = server.recv_from(&mut buffer).expect("a datagram");
                server.send_to(&buffer[..n], from).expect("send");
            }
        });
        let clients = (0..50).map(|number| {
            spawn(move || {
                let client = UdpSocket::bind("127.0.0.1:0".parse().expect("an address")).expect("bind");
                client.connect(address).expect("connect");
                client.set_read_timeout(Some(LONG)).expect("a time-out");
                let text = format!("number {number}");
                client.send(text.as_bytes()).expect("send");
                let mut answer = [0; 100];
                let n = client.recv(&mut answer).expect("an answer");
                assert_eq!(&answer[..n], text.as_bytes());
            })
        });
        let clients: Vec<_> = clients.collect();
        for client in join_all(clients, Some(LONG)) {
            client.expect("in time").expect("no panic");
        }
        serving.join().expect("no panic");
    })
    .expect("run");
}

#[test]
fn a_datagram_is_waited_for_no_longer_than_was_said_and_no_peer_is_an_error() {
    let waits = || {
        let (one, other) = udp_pair();
        other.set_read_timeout(Some(ms(10))).expect("a time-out");
        let error = other.recv(&mut [0; 9]).expect_err("nothing was sent");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(other.set_read_timeout(Some(Duration::ZERO)).is_err());
        drop(other);
        one.send(b"hello?").expect("send");
        let error = one.recv(&mut [0; 9]).expect_err("no socket is there");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    };
    run(waits).expect("run");
    // and where no coroutines run
    waits();
}
