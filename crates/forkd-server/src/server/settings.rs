//! How a server serves: the model, and its limits.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::Server;
use crate::model::{MAX_CHILDREN, MAX_SPARE, WorkerRange, Workers};
use crate::model::{Model, Threads};
use crate::sandbox::Sandbox;
use crate::spec::MAX_LIFETIME;
use crate::transport::bind::KEEP_ALIVE_RANGE;

impl Server {
    /// Confines the processes that serve clients; the default is not to. It says what handlers may do besides reading
    /// and writing their connection: see [`sandbox`](crate::sandbox).
    ///
    /// It is for children and workers, and an error where this process itself serves. As their master this process gives
    /// up for good what no server does, as mounts, another user, or a debugger; not so with [`Exec`](crate::service::Exec).
    ///
    /// ```
    /// use forkd_server::{Echo, Error, Server, model::Model, sandbox::Level};
    /// let server = Server::bind("tcp://127.0.0.1:0")?.model(Model::Thread).sandbox(Level::On);
    /// assert!(matches!(server.serve_forever(Echo), Err(Error::Usage(_))), "without workers");
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn sandbox(self, sandbox: impl Into<Sandbox>) -> Self {
        Self { sandbox: sandbox.into(), ..self }
    }

    /// Chooses what runs the handler; the default is [`Model::Fork`].
    ///
    /// ```
    /// use forkd_server::{Server, model::Model};
    /// let server = Server::bind("tcp://127.0.0.1:0")?.model(Model::Iterative);
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    #[must_use]
    pub fn model(mut self, model: Model) -> Self {
        self.model.model = model;
        self
    }

    /// Serves by a pool of so many forked workers, whichever the model but [`Model::Fork`]; 0 counts as 1.
    ///
    /// Without this, [`Model::Prefork`] has [as many as it has by default](Model::default_workers), for datagrams of a
    /// [`Protocol`](crate::Protocol) no more than there are processors, and the others do not fork.
    ///
    /// ```
    /// use forkd_server::{Server, model::Model};
    /// // four processes, each with a thread for each of its connections
    /// let server = Server::bind("tcp://127.0.0.1:0")?.model(Model::Thread).workers(4);
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    #[must_use]
    pub fn workers(self, workers: u32) -> Self {
        self.elastic_workers(workers..=workers)
    }

    /// The same, by a pool that grows with its clients and shrinks when they have gone, from the fewest to the
    /// most workers. For [`Model::Prefork`] and [`Model::Iterative`], whose workers serve one client at a time:
    /// others are never known to be idle, so they are refused before the first client is served.
    ///
    /// ```
    /// use forkd_server::{Server, model::Model};
    /// let server = Server::bind("tcp://127.0.0.1:0")?.model(Model::Prefork).elastic_workers(2..=64);
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    #[must_use]
    pub fn elastic_workers(mut self, workers: RangeInclusive<u32>) -> Self {
        let min = (*workers.start()).clamp(1, MAX_CHILDREN);
        let max = (*workers.end()).clamp(min, MAX_CHILDREN);
        self.model.workers = Some(Workers::Range(WorkerRange { min, max }));
        self
    }

    /// How many idle workers an [elastic](Self::elastic_workers) pool keeps for the next clients: with fewer it
    /// grows, with more it shrinks. The default is `2..=8`; the most is more than the fewest, and that at least 1.
    ///
    /// ```
    /// use forkd_server::{Server, model::Model};
    /// let pool = Server::bind("tcp://127.0.0.1:0")?.model(Model::Prefork).elastic_workers(2..=64);
    /// let server = pool.spare_workers(4..=16);
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    #[must_use]
    pub fn spare_workers(mut self, idle: RangeInclusive<u32>) -> Self {
        self.model.min_spare = (*idle.start()).clamp(1, MAX_CHILDREN);
        self.model.max_spare = (*idle.end()).max(self.model.min_spare + 1);
        self
    }

    /// The threads of [`Model::Thread`], in each process that serves; the default is one for each connection, at
    /// most 1024 at once. Less than 1 counts as 1.
    ///
    /// ```
    /// use forkd_server::{Server, model::{Model, Threads}};
    /// let server = Server::bind("tcp://127.0.0.1:0")?.model(Model::Thread).threads(Threads::Fixed(8));
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    #[must_use]
    pub fn threads(mut self, threads: Threads) -> Self {
        let in_range = |count: u32| count.clamp(1, Threads::MOST);
        self.model.threads = match threads {
            Threads::Each(most) => Threads::Each(in_range(most)),
            Threads::Fixed(count) => Threads::Fixed(in_range(count)),
        };
        self
    }

    /// The most connections that each process of [`Model::Event`] or [`Model::Coroutine`] serves at once; others
    /// wait. The default is as many as it has descriptors for, and 0 counts as 1.
    ///
    /// ```
    /// use forkd_server::{Server, model::Model};
    /// let server = Server::bind("tcp://127.0.0.1:0")?.model(Model::Event).max_connections(5000);
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    #[must_use]
    pub fn max_connections(mut self, connections: u32) -> Self {
        self.model.max_connections = Some(connections.max(1));
        self
    }

    /// The most children of [`Model::Fork`] alive at once; the default is 1024, and 0 counts as 1. More
    /// clients wait, and the server goes on meanwhile.
    ///
    /// ```
    /// let server = forkd_server::Server::bind("tcp://127.0.0.1:0")?.max_children(40);
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    #[must_use]
    pub fn max_children(mut self, max_children: u32) -> Self {
        self.model.max_children = max_children.clamp(1, MAX_CHILDREN);
        self
    }

    /// How many children of [`Model::Fork`] wait for their client, which then seldom waits for a fork; each still serves
    /// one connection and ends. The default is 0; the most is 1024, and no more than
    /// [`max_children`](Self::max_children). Datagrams, and [`handle_request`](super::Serving::handle_request), have none.
    /// Such a child asks [`verify_request`](Self::verify_request) by itself: what that remembers ends with it.
    ///
    /// ```
    /// let server = forkd_server::Server::bind("tcp://127.0.0.1:0")?.spare_children(16);
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    #[must_use]
    pub fn spare_children(mut self, spare: u32) -> Self {
        self.model.spare = spare.min(MAX_SPARE);
        self
    }

    /// After how many connections a worker of a pool is replaced, to be on the safe side of leaks; 0, the
    /// default, means never.
    ///
    /// ```
    /// use forkd_server::{Server, model::Model};
    /// let server = Server::bind("tcp://127.0.0.1:0")?.model(Model::Prefork).max_connections_per_child(10_000);
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    #[must_use]
    pub fn max_connections_per_child(mut self, connections: u64) -> Self {
        self.model.max_connections_per_child = connections;
        self
    }

    /// How long a connection may be silent; the default is for ever.
    ///
    /// ```
    /// use std::time::Duration;
    /// let server = forkd_server::Server::bind("tcp://127.0.0.1:0")?.idle_timeout(Duration::from_secs(60));
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    #[must_use]
    pub fn idle_timeout(mut self, limit: Duration) -> Self {
        self.model.idle_timeout = Some(limit.max(Duration::from_millis(1)));
        self
    }

    /// How long a connection may last, whatever its client does; the default is for ever. When that is over, its reads and
    /// writes fail with [`TimedOut`](std::io::ErrorKind::TimedOut): a handler that computes, or waits elsewhere, goes on
    /// until it comes to one. A program of [`Exec`](crate::service::Exec) is ended, as if its client had gone. At least
    /// 1 ms, at most 30 days.
    ///
    /// ```
    /// use std::io::Read;
    /// use std::net::TcpStream;
    /// use std::time::Duration;
    ///
    /// use forkd_server::{Echo, Server, model::Model};
    ///
    /// let limit = Duration::from_millis(20);
    /// let server = Server::bind("tcp://127.0.0.1:0")?.model(Model::Iterative).max_lifetime(limit);
    /// let address = server.server_address().to_string();
    /// let mut client = TcpStream::connect(address.strip_prefix("tcp://").unwrap()).unwrap();
    /// server.ready(Echo)?.handle_request()?;
    /// // the client has said nothing, and is still there
    /// assert_eq!(client.read(&mut [0]).unwrap(), 0);
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    #[must_use]
    pub fn max_lifetime(mut self, limit: Duration) -> Self {
        self.model.max_lifetime = Some(limit.clamp(Duration::from_millis(1), MAX_LIFETIME));
        self
    }

    /// How long a TCP client may leave this system without an answer until its connection ends with an error; the
    /// default is two minutes, and `None` means for ever. What is out of the range from 2 s to 12 h becomes its end.
    ///
    /// That finds clients that have vanished without a word, and those that take nothing of what they are sent
    /// (tcp(7), SO_KEEPALIVE and TCP_USER_TIMEOUT). A client that is silent and still there may stay, if there is
    /// no [`idle_timeout`](Self::idle_timeout).
    ///
    /// ```
    /// use std::time::Duration;
    /// let server = forkd_server::Server::bind("tcp://127.0.0.1:0")?.keepalive(Some(Duration::from_secs(30)));
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    #[must_use]
    pub fn keepalive(self, limit: Option<Duration>) -> Self {
        let limit = limit.map(|limit| limit.clamp(*KEEP_ALIVE_RANGE.start(), *KEEP_ALIVE_RANGE.end()));
        self.listeners.iter().for_each(|listener| listener.keep_alive(limit));
        self
    }

    /// How long connections may go on at a stop; the default is 10 s. Then those that are left are cut, and
    /// [`serve_forever`](Self::serve_forever) returns:
    ///
    /// | where | what is cut |
    /// |---|---|
    /// | in children | the process, by a signal |
    /// | in this process, [`Event`](Model::Event), [`Coroutine`](Model::Coroutine) | the connection; coroutines are unwound where they wait |
    /// | [`Thread`](Model::Thread) | the connection: reads find the end, writes fail, and so handlers end. A thread that waits for something else is left alone after a second |
    /// | [`Iterative`](Model::Iterative) | the same; but a handler that waits for something else has the thread that would return |
    ///
    /// Handlers hear of the stop by [`ServerInfo::is_stopping`](crate::ServerInfo::is_stopping).
    ///
    /// ```
    /// use std::io::{Read, Write};
    /// use std::net::TcpStream;
    /// use std::time::Duration;
    /// use forkd_server::{Echo, Server, model::Model};
    ///
    /// let server = Server::bind("tcp://127.0.0.1:0")?.model(Model::Thread).grace(Duration::from_millis(20));
    /// let (address, handle) = (server.server_address().to_string(), server.handle());
    /// let serving = std::thread::spawn(move || server.serve_forever(Echo));
    /// let mut client = TcpStream::connect(address.strip_prefix("tcp://").unwrap()).unwrap();
    /// client.write_all(b"x").unwrap();
    /// client.read_exact(&mut [0]).unwrap();
    /// handle.shutdown();
    /// assert_eq!(client.read(&mut [0]).unwrap(), 0, "it says nothing more, and is cut");
    /// serving.join().unwrap()?;
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Whether a stop waits for the connections that are being served, as long as [`grace`](Self::grace) says; the default is
    /// yes, as in socketserver.
    ///
    /// Where it doesn't, [`serve_forever`](Self::serve_forever) returns at once, and those connections
    ///
    /// | model | |
    /// |---|---|
    /// | [`Thread`](Model::Thread) | go on in their threads, as long as the process does: socketserver's `daemon_threads`. They keep a UDP or Unix address occupied |
    /// | [`Event`](Model::Event), [`Coroutine`](Model::Coroutine) | are cut: there is no thread left to serve them |
    /// | [`Iterative`](Model::Iterative) | are finished, within [`grace`](Self::grace): there is one at most, and it has the thread that would return |
    /// | those that fork | are cut, by a signal to the child: as by a [`grace`](Self::grace) of nothing, and by forkd's `--grace 0s` or SIGQUIT |
    ///
    /// [`Serving::handle_request`](crate::Serving::handle_request) serves its client to the end all the same.
    ///
    /// ```
    /// use forkd_server::{Echo, Server, model::Model};
    ///
    /// let server = Server::bind("tcp://127.0.0.1:0")?.model(Model::Thread).block_on_close(false);
    /// let address = server.server_address().to_string();
    /// let handle = server.handle();
    /// let serving = std::thread::spawn(move || server.serve_forever(Echo));
    /// let client = std::net::TcpStream::connect(address.strip_prefix("tcp://").unwrap()).unwrap();
    /// handle.shutdown();
    /// serving.join().unwrap()?;
    /// drop(client);
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    #[must_use]
    pub fn block_on_close(mut self, wait: bool) -> Self {
        self.block_on_close = wait;
        self
    }
}
