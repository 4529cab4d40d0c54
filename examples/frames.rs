//! Messages with their length in front, which is how most binary protocols begin: each comes back reversed.
//!
//! It shows a handler that is a function, and what it takes to read messages from a stranger: a limit, and an end in the
//! middle of one, which is the client's doing and no failure.
//!
//!     cargo run --example frames                          # tcp://127.0.0.1:7007
//!
//! Then try it: `printf '\0\0\0\005hello' | nc -N 127.0.0.1 7007 | xxd`. Ctrl-C ends it.

use std::io::{self, ErrorKind, Read, Write};

use forkd_server::{Connection, Error, Model, Server, Service};

/// The longest message that is taken: a client could have us reserve 4 GiB by four bytes.
const LONGEST: usize = 1 << 20;

/// The next message; `None` at the end of the client's input.
fn next(input: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match input.read(&mut length[..1])? {
        0 => return Ok(None),
        _ => input.read_exact(&mut length[1..])?,
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > LONGEST {
        return Err(io::Error::new(ErrorKind::InvalidData, format!("a message of {length} bytes")));
    }
    let mut message = vec![0; length];
    input.read_exact(&mut message)?;
    Ok(Some(message))
}

fn answer(connection: &mut Connection<'_>) -> io::Result<()> {
    // few system calls for many short messages
    let (mut reader, mut writer) = connection.files();
    while let Some(mut message) = next(&mut reader)? {
        message.reverse();
        let length = u32::try_from(message.len()).map_err(io::Error::other)?;
        // in one piece
        writer.write_all(&[&length.to_be_bytes(), &message[..]].concat())?;
    }
    Ok(())
}

fn main() -> Result<(), Error> {
    let endpoint = std::env::args().nth(1).unwrap_or_else(|| "tcp://127.0.0.1:7007".into());
    let server = Server::bind(&endpoint)?.model(Model::Thread);
    eprintln!("listening on {}", server.server_address());
    server.serve_forever(Service::handler("frames", || answer))
}
