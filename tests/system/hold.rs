//! Clients that stay: each is connected from the beginning to the end, and sends a line again and again.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

/// How long an echo may take for a client that has had one.
const LIMIT: Duration = Duration::from_secs(20);
/// Between an echo and the next line of the same client.
const PAUSE: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(50);

struct Client {
    stream: TcpStream,
    line: Vec<u8>,
    /// How much of the line's echo has come.
    back: usize,
    sent: Instant,
    /// How many echoes it has had.
    echoes: u32,
    end: Option<String>,
}

impl Client {
    fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nonblocking(true)?;
        let mut client =
            Self { stream, line: Vec::new(), back: 0, sent: Instant::now(), echoes: 0, end: None };
        client.send();
        Ok(client)
    }

    fn send(&mut self) {
        (self.line, self.back, self.sent) = (format!("line {}\n", self.echoes).into(), 0, Instant::now());
        if let Err(error) = self.stream.write_all(&self.line) {
            self.end = Some(error.to_string());
        }
    }

    fn turn(&mut self) {
        if self.end.is_some() {
            return;
        }
        let mut buffer = [0; 64];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.end = Some("end of file".into()),
            Ok(count) if self.line[self.back..].starts_with(&buffer[..count]) => {
                self.back += count;
                self.echoes += u32::from(self.back == self.line.len());
            }
            Ok(count) => self.end = Some(format!("{:?} for {:?}", &buffer[..count], self.line)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => self.end = Some(error.to_string()),
        }
        let is_echoed = self.back == self.line.len();
        if self.end.is_none() && is_echoed && self.sent.elapsed() > PAUSE {
            self.send();
        }
        if self.echoes > 0 && !is_echoed && self.sent.elapsed() > LIMIT {
            self.end = Some("no echo".into());
        }
    }
}

/// Holds so many clients for as long as the file exists; a line for each change: how many have been served, how many
/// wait for their first echo, and how many have lost their connection. The exit code is 1 if one has.
pub(crate) fn run(file: &Path, address: SocketAddr, count: usize) -> ExitCode {
    let mut clients: Vec<Client> = Vec::new();
    let (mut last, mut told) = (String::new(), 0);
    while file.exists() {
        let missing = count - clients.len();
        clients.extend((0..missing.min(100)).map(|_| Client::connect(address).expect("a connection")));
        clients.iter_mut().for_each(Client::turn);
        let ended: Vec<&Client> = clients.iter().filter(|client| client.end.is_some()).collect();
        for client in ended.iter().skip(told).take(5) {
            println!("after {} echoes: {}", client.echoes, client.end.as_deref().unwrap_or_default());
        }
        let served = clients.iter().filter(|client| client.end.is_none() && client.echoes > 0).count();
        let waiting = count - served - ended.len();
        let line = format!("served={served} waiting={waiting} cut={}", ended.len());
        told = ended.len();
        if line != last {
            println!("{line}");
            last = line;
        }
        if clients.len() == count {
            thread::sleep(TICK);
        }
    }
    ExitCode::from(u8::from(told > 0))
}
