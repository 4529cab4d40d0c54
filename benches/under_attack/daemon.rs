//! A forkd of its own, on ports that were free a moment ago.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::page::forkd;
use crate::probe::fresh_connection;

/// What the daemon offers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    Echo,
    /// Echo by datagrams, too, on the same port.
    EchoBoth,
    Http,
}

pub(crate) struct Daemon {
    process: Child,
    pub(crate) address: SocketAddr,
    pub(crate) service: Service,
}

impl Daemon {
    pub(crate) fn start(options: &[String], service: Service) -> io::Result<Self> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut command = Command::new(forkd());
        command.arg("serve").args(options).arg(format!("tcp://{address}")).stderr(Stdio::null());
        match service {
            Service::Echo => {}
            Service::EchoBoth => _ = command.arg(format!("udp://{address}")),
            Service::Http => _ = command.args(["--service", "http", "--route", "/=hello"]),
        }
        let daemon = Self { process: command.spawn()?, address, service };
        daemon.settle(Duration::from_secs(5));
        Ok(daemon)
    }

    /// Waits until fresh connections are quick again.
    pub(crate) fn settle(&self, limit: Duration) {
        let give_up = Instant::now() + limit;
        let mut quick = 0;
        while quick < 20 && Instant::now() < give_up {
            let begin = Instant::now();
            let is_quick = fresh_connection(self).is_ok() && begin.elapsed() < Duration::from_millis(20);
            quick = if is_quick { quick + 1 } else { 0 };
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // SIGTERM would wait for clients; without its master every child ends
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
