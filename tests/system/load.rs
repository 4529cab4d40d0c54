//! `test-load FILE ENDPOINT...`: clients of an echo server, one connection or datagram after another each,
//! for as long as the file exists; then a line with what became of them.
//!
//! `test-load hold FILE IP:PORT COUNT`: so many clients that stay (hold.rs).
//!
//! Four clients for each endpoint, which is `tcp://IP:PORT` or `udp://IP:PORT`. The exit code is 1 if
//! anything but an echo came of any connection or datagram, or if there was none; each failure has a line.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "hold.rs"]
mod hold;

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const CLIENTS: usize = 4;
/// Longer than any restart may take.
const LIMIT: Duration = Duration::from_secs(20);
/// Between two connections of a client: this is to find what gets lost, and not the limit of the machine.
const PAUSE: Duration = Duration::from_millis(2);

static ECHOED: AtomicU64 = AtomicU64::new(0);
static FAILED: AtomicU64 = AtomicU64::new(0);

fn stream(address: SocketAddr, text: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(text)?;
    stream.shutdown(Shutdown::Write)?;
    let mut back = Vec::new();
    stream.read_to_end(&mut back)?;
    Ok(back)
}

fn datagram(address: SocketAddr, text: &[u8]) -> io::Result<Vec<u8>> {
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.send(text)?;
    let mut back = vec![0; text.len() + 1];
    let length = socket.recv(&mut back)?;
    back.truncate(length);
    Ok(back)
}

fn client(file: &Path, endpoint: &str, number: usize) {
    let (scheme, address) = endpoint.split_once("://").expect("tcp:// or udp://");
    let address = address.parse().expect("an address with a port");
    let talk = if scheme == "udp" { datagram } else { stream };
    for count in 0.. {
        if !file.exists() {
            return;
        }
        let (text, start) = (format!("client {number}, line {count}\n"), Instant::now());
        let counter = match talk(address, text.as_bytes()) {
            Ok(back) if back == text.as_bytes() => &ECHOED,
            wrong => {
                let wrong = wrong.map(|back| String::from_utf8_lossy(&back).into_owned());
                println!("{endpoint}: after {:?}: {wrong:?} for {text:?}", start.elapsed());
                &FAILED
            }
        };
        counter.fetch_add(1, Ordering::Relaxed);
        thread::sleep(PAUSE);
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, file, address, count] = &arguments[..]
        && mode == "hold"
    {
        let address = address.parse().expect("an address with a port");
        return hold::run(file.as_ref(), address, count.parse().expect("a number"));
    }
    let (file, endpoints) = arguments.split_first().expect("a file");
    thread::scope(|scope| {
        for endpoint in endpoints {
            (0..CLIENTS).for_each(|number| _ = scope.spawn(move || client(file.as_ref(), endpoint, number)));
        }
    });
    let (echoed, failed) = (ECHOED.load(Ordering::Relaxed), FAILED.load(Ordering::Relaxed));
    println!("echoed={echoed} failed={failed}");
    if failed == 0 && echoed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
