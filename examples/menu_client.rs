//! Talks to a menu server: shows what it says, and sends what you type, line by line.
//!
//!     cargo run --example menu_server
//!     cargo run --example menu_client                      # in another terminal; 127.0.0.1:7010
//!
//! `0` is answered, `exit` ends the dialogue, anything else is asked again.

use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7010".into());
    let server = TcpStream::connect(address)?;
    let (mut answers, mut entries) = (BufReader::new(&server), &server);
    let mut answer = String::new();
    answers.read_line(&mut answer)?;
    print!("{answer}");
    for entry in io::stdin().lock().lines() {
        writeln!(entries, "{}", entry?)?;
        answer.clear();
        if answers.read_line(&mut answer)? == 0 {
            break;
        }
        print!("{answer}");
        io::stdout().flush()?;
    }
    println!("Goodbye");
    Ok(())
}
