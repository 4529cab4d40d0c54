//! A child for each connection, and never a zombie: the textbook's `ForkingTCPServer` with SIGCHLD ignored.
//!
//!     cargo run --example fork_echo                        # tcp://127.0.0.1:7007
//!
//! Then `nc -N 127.0.0.1 7007` in two other terminals, and `ps -C fork_echo -o pid,ppid,stat,args`: one parent,
//! and a child for each netcat that is connected. The kernel reaps them, because the parent ignores
//! SIGCHLD (wait(2)). Ctrl-C ends it.

use std::io::{self, Read, Write};

use forkd_server::{Connection, Handler, Server, Service};

struct Echo;

impl Handler for Echo {
    fn setup(&mut self, connection: &mut Connection<'_>) -> io::Result<()> {
        eprintln!("process {} serves {}", std::process::id(), connection.peer());
        Ok(())
    }

    fn handle(&mut self, connection: &mut Connection<'_>) -> io::Result<()> {
        let mut chunk = [0; 4096];
        loop {
            match connection.read(&mut chunk)? {
                0 => return Ok(()),
                n => connection.write_all(&chunk[..n])?,
            }
        }
    }

    fn finish(&mut self, connection: &mut Connection<'_>) -> io::Result<()> {
        eprintln!("process {} has served {}", std::process::id(), connection.peer());
        Ok(())
    }
}

fn main() -> Result<(), forkd_server::Error> {
    let endpoint = std::env::args().nth(1).unwrap_or_else(|| "tcp://127.0.0.1:7007".into());
    let server = Server::bind(&endpoint)?;
    server.endpoints().for_each(|endpoint| eprintln!("listening on {endpoint}"));
    server.serve_forever(Service::handler("echo", || Echo))
}
