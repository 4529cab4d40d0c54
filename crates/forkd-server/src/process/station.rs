//! One listening socket together with its children, whichever model they follow.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::context::Context;
use super::forking::Forking;
use super::pooling::Pooling;
use super::sockets::Bound;
use crate::Error;
use crate::model::Model;
use crate::model::listener_context::ListenerContext;
use crate::sandbox::Confinement;
use crate::spec::ListenerSpec;
use crate::sys::tcp::queue;
use crate::transport::listener::Kind;
use crate::transport::{Arrivals, Endpoint, Listener};

/// How many clients are served at a stop where the system doesn't say how many are queued: as many as
/// fit in a queue of the default length, of connections (somaxconn) or of datagrams (a receive
/// buffer, or max_dgram_qlen). Without an end, one client that floods could hold up the stop for as
/// long as it likes.
fn most_queued(kind: Kind) -> u32 {
    match kind {
        Kind::Stream => 4096,
        Kind::Datagram => 512,
    }
}

/// A listening socket and the processes that serve its clients.
#[derive(Debug)]
pub(super) struct Station {
    /// The endpoint as the configuration has it, which may stand for several addresses.
    pub(super) asked: Endpoint,
    pub(super) spec: Arc<ListenerSpec>,
    pub(super) life: Life,
    pub(super) acceptor: Acceptor,
    /// Workers accept there by themselves, or those of the program before this one do.
    pub(super) is_application: bool,
    /// What its processes are confined by.
    confinement: Arc<Confinement>,
    /// While it drains: when to stop that. The workers that could serve the queue may all be busy.
    close_at: Option<Instant>,
}

/// Where a station is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// Part of a configuration that is not in force yet: its first workers are started.
    Starting,
    /// It serves.
    Live,
    /// It takes no more clients, and is there until its children have gone.
    Leaving,
}

/// What accepts.
#[derive(Debug)]
pub(super) enum Acceptor {
    /// The master, and forks a child for each client.
    Forking(Forking),
    /// Workers.
    Pooling(Pooling),
    /// Workers of another station, which accept by themselves and have several sockets.
    Beside(ListenerContext),
    /// Nothing: the socket is closed, and its last children finish.
    Gone { number: usize, endpoint: Endpoint, arrivals: Arrivals },
}

impl Station {
    pub(super) fn new(
        asked: Endpoint,
        context: ListenerContext,
        spec: Arc<ListenerSpec>,
        is_beside: bool,
        cx: &Context,
    ) -> Result<Self, Error> {
        let confinement = Arc::new(confinement(&spec, &context.listener)?);
        let confined = Arc::clone(&confinement);
        let acceptor = match spec.model.model {
            _ if is_beside => Acceptor::Beside(context),
            Model::Fork => Acceptor::Forking(Forking::new(context, &spec.model, confined, cx)?),
            _ => Acceptor::Pooling(Pooling::new(context, &spec.model, confined, cx)),
        };
        cx.descriptors.add(confinement.descriptors());
        let is_application = spec.service.as_application().is_some();
        let life = Life::Starting;
        Ok(Self { asked, spec, life, acceptor, is_application, confinement, close_at: None })
    }

    /// One whose socket is closed, and whose last children finish.
    pub(super) fn gone(
        asked: Endpoint,
        spec: Arc<ListenerSpec>,
        number: usize,
        endpoint: Endpoint,
        arrivals: Arrivals,
    ) -> Self {
        let acceptor = Acceptor::Gone { number, endpoint, arrivals };
        Self {
            asked,
            spec,
            life: Life::Leaving,
            acceptor,
            is_application: false,
            confinement: Arc::default(),
            close_at: None,
        }
    }

    /// Its socket, while it has one.
    pub(super) fn context(&self) -> Option<&ListenerContext> {
        match &self.acceptor {
            Acceptor::Forking(forking) => Some(&forking.context),
            Acceptor::Pooling(pooling) => Some(&pooling.context),
            Acceptor::Beside(context) => Some(context),
            Acceptor::Gone { .. } => None,
        }
    }

    /// The socket that it serves, for a station of the next configuration.
    pub(super) fn bound(&self) -> Option<Bound> {
        let context = self.context().filter(|_| self.life != Life::Leaving)?;
        Some(Bound {
            asked: self.asked.clone(),
            spec: Arc::clone(&self.spec),
            listener: Arc::clone(&context.listener),
            number: Some(context.number),
            hooks: context.service_config.hooks.clone(),
        })
    }

    pub(super) fn listener(&self) -> Option<&Listener> {
        self.context().map(|context| &*context.listener)
    }

    /// The clients that are not served yet, and those that were lost.
    pub(super) fn arrivals(&self) -> Arrivals {
        match &self.acceptor {
            Acceptor::Forking(Forking { context, .. })
            | Acceptor::Pooling(Pooling { context, .. })
            | Acceptor::Beside(context) => context.listener.arrivals(),
            Acceptor::Gone { arrivals, .. } => *arrivals,
        }
    }

    /// What it is, or was, bound to.
    pub(super) fn endpoint(&self) -> &Endpoint {
        match &self.acceptor {
            Acceptor::Forking(Forking { context, .. })
            | Acceptor::Pooling(Pooling { context, .. })
            | Acceptor::Beside(context) => context.listener.endpoint(),
            Acceptor::Gone { endpoint, .. } => endpoint,
        }
    }

    /// Its number on the scoreboard.
    pub(super) fn number(&self) -> usize {
        match &self.acceptor {
            Acceptor::Forking(Forking { context, .. })
            | Acceptor::Pooling(Pooling { context, .. })
            | Acceptor::Beside(context) => context.number,
            Acceptor::Gone { number, .. } => *number,
        }
    }

    /// What accepts, in the words of the configuration.
    pub(super) fn model(&self) -> Model {
        self.spec.model.model
    }

    /// The error of fork(2), while the pool has not all its workers for want of them.
    pub(super) fn cannot_fork_workers(&self) -> Option<i32> {
        match &self.acceptor {
            Acceptor::Pooling(pooling) => pooling.fork_failing(),
            Acceptor::Forking(_) | Acceptor::Beside(_) | Acceptor::Gone { .. } => None,
        }
    }

    /// How many children its listener has.
    pub(super) fn alive(&self, cx: &Context) -> u32 {
        cx.board.totals(self.number()).alive.load(Ordering::Relaxed)
    }

    /// When it wants a turn, at the latest.
    pub(super) fn deadline(&self, cx: &Context) -> Option<Instant> {
        let own = match &self.acceptor {
            Acceptor::Forking(forking) => forking.deadline(cx),
            Acceptor::Pooling(pooling) => pooling.deadline(),
            Acceptor::Beside(_) | Acceptor::Gone { .. } => None,
        };
        own.into_iter().chain(self.close_at).min()
    }

    /// Does what there is to do, now that the loop has turned.
    pub(super) fn on_turn(&mut self, cx: &mut Context) -> Result<(), Error> {
        if self.close_at.is_some_and(|then| then <= cx.now) {
            self.close(cx);
        }
        match &mut self.acceptor {
            Acceptor::Forking(forking) => forking.on_turn(cx),
            Acceptor::Pooling(pooling) => pooling.on_turn(cx)?,
            Acceptor::Beside(_) | Acceptor::Gone { .. } => {}
        }
        Ok(())
    }

    /// Whether its first workers are up.
    pub(super) fn is_ready(&self, cx: &Context) -> bool {
        match &self.acceptor {
            Acceptor::Pooling(pooling) => pooling.is_ready(cx),
            Acceptor::Forking(_) | Acceptor::Beside(_) | Acceptor::Gone { .. } => true,
        }
    }

    /// How long the next of its workers may take to come up, if that is its own affair.
    pub(super) fn start_timeout(&self) -> Option<Duration> {
        match &self.acceptor {
            Acceptor::Pooling(pooling) => pooling.start_timeout(),
            Acceptor::Forking(_) | Acceptor::Beside(_) | Acceptor::Gone { .. } => None,
        }
    }

    /// How many workers are up.
    pub(super) fn up(&self, cx: &Context) -> usize {
        match &self.acceptor {
            Acceptor::Pooling(pooling) => pooling.up(cx),
            Acceptor::Forking(_) | Acceptor::Beside(_) | Acceptor::Gone { .. } => 0,
        }
    }

    /// Whether it serves clients, or could at once.
    pub(super) fn serves(&self, cx: &Context) -> bool {
        match &self.acceptor {
            Acceptor::Pooling(pooling) => pooling.up(cx) > 0,
            Acceptor::Forking(forking) => forking.has_children(cx),
            Acceptor::Beside(_) | Acceptor::Gone { .. } => false,
        }
    }

    /// Why it is not.
    pub(super) fn not_ready(&self) -> Option<Error> {
        match &self.acceptor {
            Acceptor::Pooling(pooling) => Some(pooling.not_ready()),
            Acceptor::Forking(_) | Acceptor::Beside(_) | Acceptor::Gone { .. } => None,
        }
    }

    /// Whether clients wait for one of its children to end.
    pub(super) fn is_full(&self, cx: &Context) -> bool {
        matches!(&self.acceptor, Acceptor::Forking(forking) if !forking.has_room(cx))
    }

    /// From here on it serves clients.
    pub(super) fn go_live(&mut self, cx: &Context) {
        self.life = Life::Live;
        if let Some(listener) = self.listener() {
            listener.defer_accept(self.spec.service.clients_begin());
        }
        match &mut self.acceptor {
            Acceptor::Forking(forking) => forking.go_live(cx),
            Acceptor::Pooling(pooling) => pooling.go_live(cx),
            Acceptor::Beside(_) | Acceptor::Gone { .. } => {}
        }
    }

    /// Has its idle processes end, and others after the client that they have. The socket stays as it is.
    pub(super) fn rest(&mut self, cx: &Context) {
        match &mut self.acceptor {
            Acceptor::Forking(forking) => forking.rest(cx),
            Acceptor::Pooling(pooling) => pooling.hand_over(cx),
            Acceptor::Beside(_) | Acceptor::Gone { .. } => {}
        }
    }

    /// Has such processes again.
    pub(super) fn reopen(&mut self) {
        match &mut self.acceptor {
            Acceptor::Forking(forking) => forking.reopen(),
            Acceptor::Pooling(pooling) => pooling.reopen(),
            Acceptor::Beside(_) | Acceptor::Gone { .. } => {}
        }
    }

    /// Leaves its listener to a successor.
    pub(super) fn hand_over(&mut self, cx: &Context) {
        self.life = Life::Leaving;
        match &mut self.acceptor {
            Acceptor::Forking(forking) => forking.hand_over(cx),
            Acceptor::Pooling(pooling) => pooling.hand_over(cx),
            Acceptor::Beside(_) | Acceptor::Gone { .. } => {}
        }
    }

    /// Gives its listener back to the station that had it: workers that accept by themselves go as that has its own again.
    pub(super) fn give_back(&mut self, cx: &Context) {
        match &mut self.acceptor {
            Acceptor::Pooling(pooling) if self.is_application => {
                self.life = Life::Leaving;
                pooling.stand_in(cx);
            }
            _ => self.hand_over(cx),
        }
    }

    /// Serves those that are queued, and no other.
    pub(super) fn drain(&mut self, cx: &mut Context) {
        // its clients are its successor's
        if matches!(&self.acceptor, Acceptor::Forking(forking) if forking.is_restored()) {
            return self.hand_over(cx);
        }
        self.life = Life::Leaving;
        let is_application = self.is_application;
        self.close_at = Some(cx.now + cx.stop_times.grace);
        let (queued, is_all_held) =
            self.listener().map_or((0, false), |listener| match listener.is_inherited() || is_application {
                // they are left to the socket's next server, or are the affair of workers that accept by themselves
                true => (0, false),
                false => match listener.hold_queued() {
                    (held, true) => (held, true),
                    (held, false) => {
                        let rest = queue(listener)
                            .map_or_else(|| most_queued(listener.kind()), |queue| queue.length);
                        (held + rest, false)
                    }
                },
            });
        cx.descriptors.add(self.listener().into_iter().flat_map(Listener::descriptors));
        cx.board.tally(self.number()).stopping.store(1, Ordering::Relaxed);
        match &mut self.acceptor {
            Acceptor::Forking(forking) => forking.drain(cx, queued),
            Acceptor::Pooling(pooling) => pooling.drain(cx, queued),
            Acceptor::Beside(_) | Acceptor::Gone { .. } => {}
        }
        // Not before the workers know of the queue: one that finds the socket shut would leave at once.
        if let Some(listener) = self.listener().filter(|_| is_all_held) {
            listener.refuse();
        }
    }

    /// Takes no more clients, queued or not.
    pub(super) fn close(&mut self, cx: &mut Context) {
        self.life = Life::Leaving;
        self.close_at = None;
        match &mut self.acceptor {
            Acceptor::Forking(forking) => forking.close(cx),
            Acceptor::Pooling(pooling) => pooling.close(cx),
            Acceptor::Beside(_) | Acceptor::Gone { .. } => {}
        }
    }

    /// It forks no more.
    pub(super) fn confines_no_more(&self, cx: &Context) {
        self.confinement.descriptors().for_each(|fd| cx.descriptors.remove(fd));
    }

    /// Closes its socket, unless another station has it, and remembers its name.
    pub(super) fn become_gone(&mut self) {
        self.confinement = Arc::default();
        let (number, endpoint) = (self.number(), self.endpoint().clone());
        // no client waits where nothing is
        let arrivals = Arrivals { dropped: self.arrivals().dropped, ..Arrivals::default() };
        self.acceptor = Acceptor::Gone { number, endpoint, arrivals };
    }

    /// Whether no more clients will come from it.
    pub(super) fn is_closed(&self) -> bool {
        match &self.acceptor {
            Acceptor::Forking(forking) => forking.is_closed(),
            Acceptor::Pooling(pooling) => pooling.is_closed(),
            Acceptor::Beside(_) | Acceptor::Gone { .. } => true,
        }
    }
}

/// What the processes of such a listener are confined by. Programs, and code that accepts by itself, get nothing of it.
fn confinement(spec: &ListenerSpec, listener: &Listener) -> Result<Confinement, Error> {
    if spec.service.hands_over() || spec.service.as_application().is_some() {
        return Ok(Confinement::default());
    }
    let answers_abstract = listener.is_unix() && listener.kind() == Kind::Datagram;
    spec.sandbox.prepare(spec.service.directories(spec.sandbox.is_strict()), answers_abstract)
}
