//! Sockets that let others go on.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::rc::Rc;
use std::time::Duration;

use super::super::*;
use super::{LONG, ms};

#[test]
fn one_who_reads_and_one_who_writes_share_a_socket() {
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
fn one_who_never_has_to_wait_does_not_starve_the_others() {
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
                assert!(rounds < 10_000_000, "nobody else has had a turn");
            }
        });
        spawn(move || done.set(true));
        greedy.join().expect("the other has had its turn");
    })
    .expect("run");
}

#[test]
fn nobody_listening_is_an_error_and_who_accepts_waits() {
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
        let error = TcpStream::connect(address).expect_err("nobody listens");
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
