//! What the kernel has to do for an answer: counted and not timed.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;

use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};

use super::common::*;
use super::{LARGE, forkd_http};

/// The segments that bring an answer and the end of its connection, in the best of several attempts: a server that is kept
/// from the processor between the two for long has the kernel send the first alone.
fn segments_of_the_end(daemon: &Daemon, says: &str) -> u32 {
    let idle = daemon.children().len();
    let one = || {
        daemon.settles_at(idle);
        let mut client = daemon.connect();
        let (most, last) = says.split_at(says.len() - 1);
        client.write_all(most.as_bytes()).unwrap();
        eventually("it has a server", || !daemon.children().is_empty());
        let servers = daemon.children();
        servers.iter().for_each(|server| stopped(*server));
        client.write_all(last.as_bytes()).unwrap();
        // so that an acknowledgement of the request is no part of what is counted
        eventually("the request is acknowledged", || unacknowledged(&client) == 0);
        let before = segments(&client);
        servers.iter().for_each(|server| signal(*server, Signal::SIGCONT));
        let mut heard = String::new();
        client.read_to_string(&mut heard).unwrap();
        assert!(heard.starts_with("HTTP/1.1 200 ") && heard.ends_with("Hello"), "{heard:?}");
        segments(&client) - before
    };
    (0..5).map(|_| one()).find(|count| *count == 1).unwrap_or_else(one)
}

/// How many bytes that a client has sent are not acknowledged (tcp(7), SIOCOUTQ).
fn unacknowledged(client: &Client) -> libc::c_int {
    let mut bytes = 0;
    // SAFETY: the kernel writes an int.
    let done = unsafe { libc::ioctl(client.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    bytes
}

under_models! { [fork prefork thread event coroutine]
    /// So the client is woken once.
    fn an_answer_and_the_end_of_its_connection_come_in_one_segment(model) {
        let daemon = forkd_http(model).start();
        assert_eq!(segments_of_the_end(&daemon, "GET /hello HTTP/1.0\r\n\r\n"), 1);
    }

    /// What waits in the kernel for long is memory, and has left the processor's cache when the client reads it.
    fn little_of_a_large_file_is_kept_for_a_client_that_does_not_read(model) {
        let daemon = forkd_http(model).start();
        let mut client = daemon.connect();
        setsockopt(&client, sockopt::RcvBuf, &16_384).unwrap();
        client.write_all(b"GET /large.bin HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        let mut kept = Vec::new();
        eventually("no more of it comes", || {
            kept.push(kept_for(&client));
            matches!(kept[..], [.., a, b, c, d] if a > 0 && [b, c, d] == [a; 3])
        });
        let most = kept.iter().max().unwrap();
        // without a limit it is more than a megabyte
        assert!(*most <= 512 * 1024, "{most} bytes are kept");
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).unwrap();
        assert!(heard.len() > LARGE);
    }
}
