//! A pool whose workers run code of the application's own.

use std::sync::Arc;
use std::time::Duration;

use super::Server;
use crate::Error;
use crate::process::lifecycle::StopTimes;
use crate::process::reload::{Generation, Source};
use crate::service::Service;
use crate::service::application::{Application, Worker, WorkerOutcome};
use crate::spec::ListenerSpec;
use crate::sys::fork::require_single_thread;

impl Server {
    /// Has workers run this function, each in a process of its own: an event loop of any kind, a runtime of tokio with
    /// axum, hyper or tonic inside, or a loop that accepts. Returns when the server has ended.
    ///
    /// The function is called after the fork, so what it builds (threads, a runtime, connections to databases) is its
    /// worker's own. It gets the sockets, and what tells it to leave: see [`Worker`].
    ///
    /// This process is the master. It has no other work, and
    ///
    /// - replaces a worker that panics, crashes, or returns although it was not told to leave; one that fails at its start
    ///   again and again is tried less and less often, and then given up, which ends the server with an error;
    /// - has new workers in place of all at SIGHUP: first they come up ([`Worker::ready`]), then the old ones are told to
    ///   leave, while the sockets stay open, so that no client is lost;
    /// - ends at SIGTERM or SIGINT, or by the [`handle`](Self::handle): workers are told to leave, and those that have not
    ///   within [`grace`](Self::grace) are killed.
    ///
    /// There are as many workers as processors, unless [`workers`](Self::workers) says something else. What is for the
    /// handlers of this crate has no effect here and is refused.
    ///
    /// # Fork safety
    ///
    /// This process must have one thread when it is called: build a runtime in the function, and not before. What the
    /// function captures is copied into each worker.
    ///
    /// # Examples
    ///
    /// axum, in a runtime of each worker's own. `Shutdown::requested` takes the feature `tokio`. Of a busy server a reload ends a
    /// connection now and then whose first request hyper has not read yet; the example `axum_prefork` has what is to be done
    /// about that.
    ///
    /// ```no_run
    /// # mod axum {
    /// #     pub struct Router;
    /// #     impl Router {
    /// #         pub fn new() -> Self { Self }
    /// #         pub fn route(self, _: &str, _: fn()) -> Self { self }
    /// #     }
    /// #     pub mod routing { pub fn get<F>(_: F) -> fn() { || () } }
    /// #     pub struct Serving;
    /// #     impl Serving {
    /// #         pub async fn with_graceful_shutdown<F>(self, _: F) -> std::io::Result<()> { Ok(()) }
    /// #     }
    /// #     pub fn serve(_: tokio::net::TcpListener, _: Router) -> Serving { Serving }
    /// # }
    /// use axum::{Router, routing::get};
    /// use forkd_server::{Server, Worker};
    /// use tokio::{net::TcpListener, runtime::Builder};
    ///
    /// fn main() -> Result<(), forkd_server::Error> {
    ///     Server::bind("tcp://127.0.0.1:7007")?.workers(4).run(|worker| {
    ///         Builder::new_current_thread().enable_all().build()?.block_on(serve(worker))
    ///     })
    /// }
    ///
    /// async fn serve(worker: Worker) -> std::io::Result<()> {
    ///     let listener = worker.tcp_listener()?;
    ///     listener.set_nonblocking(true)?;
    ///     let listener = TcpListener::from_std(listener)?;
    ///     let app = Router::new().route("/", get(|| async { "hello" }));
    ///     worker.ready();
    ///     # #[cfg(feature = "tokio")]
    ///     let leaves = async move { worker.shutdown().requested().await };
    ///     # #[cfg(not(feature = "tokio"))]
    ///     # let leaves = async {};
    ///     axum::serve(listener, app).with_graceful_shutdown(leaves).await
    /// }
    /// ```
    ///
    /// Any other loop is told by [`Worker::shutdown`], by a wait or a descriptor:
    ///
    /// ```no_run
    /// use forkd_server::{Server, Worker};
    ///
    /// Server::bind("tcp://127.0.0.1:7007")?.workers(4).run(|worker: Worker| {
    ///     let listener = worker.tcp_listener()?;
    ///     // start what serves the listener, and then:
    ///     # drop(listener);
    ///     worker.ready();
    ///     worker.shutdown().wait();
    ///     Ok::<(), forkd_server::Error>(())
    /// })?;
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if an option has no effect here, if this process has several threads, or (feature `tokio`) if it is
    /// called within a runtime of tokio; [`Error::Os`] if the system refuses something, or if workers return an error at
    /// their start again and again; [`Error::Internal`] if they end there in another way.
    pub fn run<O: WorkerOutcome>(
        self,
        function: impl Fn(Worker) -> O + Send + Sync + 'static,
    ) -> Result<(), Error> {
        require_no_runtime()?;
        let function = Arc::new(move |worker| function(worker).into_result());
        self.ready(Service::application("application", Application::Function(function)))?.serve_forever()
    }
}

/// What a runtime or a thread of this process would be in a worker.
const BUILD_LATER: &str = "of which a worker would have a copy that does not run; build the runtime and start threads in the \
                           function that Server::run is given, and call that from a main without #[tokio::main]";

/// Finds out early what would make each worker hang or fail.
fn require_no_runtime() -> Result<(), Error> {
    let what = match require_single_thread() {
        Err(_) => "this process has several threads",
        #[cfg(feature = "tokio")]
        Ok(()) if tokio::runtime::Handle::try_current().is_ok() => "this thread is in a runtime of tokio",
        Ok(()) => return Ok(()),
    };
    Err(Error::Usage(format!("cannot run workers here: {what}, {BUILD_LATER}")))
}

/// How workers are kept that accept by themselves: those of [`run`](Server::run), and of a
/// [`WorkerProgram`](crate::service::WorkerProgram).
impl Server {
    /// After what time a worker counts as ready that doesn't say so, by [`Worker::ready`](crate::Worker::ready) or
    /// `READY=1`; the default is a second. `None`: it has to say so.
    ///
    /// ```
    /// use forkd_server::{Server, Worker};
    /// let server = Server::bind("tcp://127.0.0.1:0")?.ready_after(None);
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    #[must_use]
    pub fn ready_after(mut self, time: Option<Duration>) -> Self {
        self.model.upkeep.ready_after = time;
        self
    }

    /// How long a worker may take to become ready until it is killed; the default is a minute.
    ///
    /// ```
    /// use std::time::Duration;
    /// let server = forkd_server::Server::bind("tcp://127.0.0.1:0")?.start_timeout(Duration::from_secs(5));
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    #[must_use]
    pub fn start_timeout(mut self, limit: Duration) -> Self {
        self.model.upkeep.start_timeout = limit;
        self
    }

    /// How many new workers start at once at SIGHUP; when they are ready, as many of the old ones are told to leave. The
    /// default is 1.
    ///
    /// ```
    /// let server = forkd_server::Server::bind("tcp://127.0.0.1:0")?.workers(8).rolling(4);
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    #[must_use]
    pub fn rolling(mut self, workers: u32) -> Self {
        self.model.upkeep.rolling = workers.max(1);
        self
    }

    /// Replaces a worker after this time, less up to an eighth, so that not all are replaced together; the default is never.
    ///
    /// ```
    /// use std::time::Duration;
    /// let server = forkd_server::Server::bind("tcp://127.0.0.1:0")?.max_worker_age(Duration::from_secs(86_400));
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    #[must_use]
    pub fn max_worker_age(mut self, limit: Duration) -> Self {
        self.model.upkeep.max_age = Some(limit);
        self
    }

    /// Replaces a worker that has more bytes of memory in use (its resident set), which is looked at every five seconds; the
    /// default is no limit.
    ///
    /// ```
    /// let server = forkd_server::Server::bind("tcp://127.0.0.1:0")?.max_worker_memory(512 << 20);
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    #[must_use]
    pub fn max_worker_memory(mut self, bytes: u64) -> Self {
        self.model.upkeep.max_memory = Some(bytes);
        self
    }
}

/// The same again, in new workers.
pub(super) struct Again {
    stop_times: StopTimes,
    listeners: Vec<ListenerSpec>,
}

impl Again {
    pub(super) fn new(stop_times: StopTimes, spec: &Arc<ListenerSpec>) -> Self {
        Self { stop_times, listeners: vec![ListenerSpec::clone(spec)] }
    }
}

impl Source for Again {
    fn prepare(&mut self) -> Result<Generation, Error> {
        let Self { stop_times, listeners } = self;
        Ok(Generation { stop_times: *stop_times, max_generations: 0, listeners: listeners.clone() })
    }

    fn put_in_force(&mut self) {}

    fn roll_back(&mut self) {}
}
