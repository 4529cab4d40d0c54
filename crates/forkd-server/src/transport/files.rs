//! A connection as a pair of files, as in socketserver's `StreamRequestHandler`.

use std::io::BufReader;

use super::Connection;

impl Connection<'_> {
    /// A buffered reader and a writer: `rfile` and `wfile` of socketserver.
    ///
    /// As there, the writer has no buffer: what is written is on its way at once, so no client waits
    /// for an answer in a buffer, and [`write!`] sends all that it formats in one piece. For many small
    /// pieces, put a [`BufWriter`](std::io::BufWriter) around it, and flush that.
    ///
    /// The reader may have taken more than was asked of it: make it once, and read by it alone.
    /// A client may send a line without end; [`Read::take`](std::io::Read::take) limits how much of it is kept.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::{BufRead, Write};
    /// use forkd_server::{Connection, Handler};
    ///
    /// /// Answers each line with its length, until an empty one.
    /// struct Lengths;
    /// impl Handler for Lengths {
    ///     fn handle(&mut self, connection: &mut Connection<'_>) -> std::io::Result<()> {
    ///         let (rfile, mut wfile) = connection.files();
    ///         for line in rfile.lines() {
    ///             match line?.len() {
    ///                 0 => break,
    ///                 length => writeln!(wfile, "{length} bytes, {}", connection.peer())?,
    ///             }
    ///         }
    ///         Ok(())
    ///     }
    /// }
    /// # use forkd_server::{Server, Service, model::Model};
    /// # let server = Server::bind("tcp://127.0.0.1:0")?.model(Model::Iterative);
    /// # let endpoint = server.server_address().to_string();
    /// # let mut client = std::net::TcpStream::connect(&endpoint["tcp://".len()..]).unwrap();
    /// # let me = client.local_addr().unwrap();
    /// # client.write_all(b"hello\nworld!\n\nignored\n").unwrap();
    /// # server.ready(Service::handler("lengths", || Lengths))?.handle_request()?;
    /// # let mut heard = String::new();
    /// # let _ = std::io::Read::read_to_string(&mut client, &mut heard);
    /// # assert_eq!(heard, format!("5 bytes, {me}\n6 bytes, {me}\n"));
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    #[must_use]
    pub fn files(&self) -> (BufReader<&Self>, &Self) {
        (BufReader::new(self), self)
    }
}
