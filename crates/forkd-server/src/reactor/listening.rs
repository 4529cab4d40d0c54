//! Sockets that a program listens on.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Instant;

use super::Reactor;
use super::channel::Session;
use crate::admission::{Admission, Next, REST, Room, Round};
use crate::service::{Protocol, Reply};
use crate::slab::Key;
use crate::sys::datagram::{Batch, Patience};
use crate::transport::bind::{BindOptions, bind_all};
use crate::transport::early::Early;
use crate::transport::listener::Kind;
use crate::transport::udp_filter::UdpFilter;
use crate::transport::{Endpoint, Inherited, Listener, Peer};
use crate::{Error, events};

/// How many clients one socket lets in, in one turn: the others have theirs, too.
const AT_ONCE: u32 = 16;

/// As much as fits in any datagram.
const LARGEST: usize = 256 * 1024;

/// What [`Reactor::listen`] has bound.
///
/// ```
/// use forkd_server::{Echo, reactor::Reactor};
///
/// let mut reactor = Reactor::new()?;
/// let listening = reactor.listen("tcp://127.0.0.1:0", |_| Echo)?;
/// assert!(listening.endpoints().all(|endpoint| endpoint.to_string() != "tcp://127.0.0.1:0"));
/// reactor.unlisten(listening);
/// // nothing is left to wait for
/// reactor.run()?;
/// # Ok::<(), forkd_server::Error>(())
/// ```
#[derive(Debug)]
pub struct Listening {
    endpoints: Vec<Endpoint>,
    acceptors: Vec<Weak<Acceptor>>,
}

impl Listening {
    /// What is bound, with the ports that the kernel chose: a name may stand for several addresses.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.iter()
    }
}

/// One socket.
#[derive(Debug)]
struct Acceptor {
    listener: Arc<Listener>,
    /// Its watch, while it has one.
    watch: Cell<Option<Key>>,
    admission: RefCell<Admission<u32>>,
}

impl AsFd for Acceptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// A connection that came in.
struct Accepted<P>(P);

impl<'a, P: Protocol> Session<'a> for Accepted<P> {
    fn protocol(&mut self) -> &mut dyn Protocol {
        &mut self.0
    }

    fn closed(self: Box<Self>, _: &mut Reactor<'a>, _: Peer, outcome: io::Result<()>) {
        if let Err(error) = outcome {
            log::debug!(error:%; "connection ended");
        }
    }
}

impl<'a> Reactor<'a> {
    /// Listens on an endpoint such as `tcp://127.0.0.1:0`, `unix:///run/echo.sock` or `udp://[::1]:7007`. Each
    /// connection, and each datagram, is served by a protocol of its own, from `make`, which gets the reactor: a protocol
    /// may need another connection, or a timer.
    ///
    /// The sockets are closed with the reactor, or by [`unlisten`](Self::unlisten).
    ///
    /// # Errors
    ///
    /// As [`Server::bind`](crate::Server::bind).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// let mut reactor = forkd_server::reactor::Reactor::new()?;
    /// reactor.listen("tcp://127.0.0.1:7007", |_| forkd_server::Echo)?;
    /// reactor.run()?;
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    pub fn listen<P: Protocol + 'a>(
        &mut self,
        endpoint: &str,
        make: impl FnMut(&mut Self) -> P + 'a,
    ) -> Result<Listening, Error> {
        let endpoint: Endpoint = endpoint.parse().map_err(|error| Error::Usage(format!("{error}")))?;
        let make = Rc::new(RefCell::new(make));
        let mut listening = Listening { endpoints: Vec::new(), acceptors: Vec::new() };
        for listener in bind_all(&endpoint, BindOptions::default(), &[], &Inherited::default())? {
            let cannot = |cause| Error::os(format!("cannot listen on {endpoint}"), cause);
            listener.set_nonblocking(true).map_err(cannot)?;
            self.listen_at(Arc::new(listener), &make, &mut listening).map_err(cannot)?;
        }
        Ok(listening)
    }

    /// Listens on sockets that are bound, and don't block.
    pub(crate) fn listen_on<P: Protocol + 'a>(
        &mut self,
        listeners: impl IntoIterator<Item = Arc<Listener>>,
        mut make: impl FnMut() -> P + 'a,
    ) -> io::Result<Listening> {
        let make = Rc::new(RefCell::new(move |_: &mut Self| make()));
        let mut listening = Listening { endpoints: Vec::new(), acceptors: Vec::new() };
        for listener in listeners {
            self.listen_at(listener, &make, &mut listening)?;
        }
        Ok(listening)
    }

    fn listen_at<P: Protocol + 'a>(
        &mut self,
        listener: Arc<Listener>,
        make: &Rc<RefCell<impl FnMut(&mut Self) -> P + 'a>>,
        listening: &mut Listening,
    ) -> io::Result<()> {
        listening.endpoints.push(listener.endpoint().clone());
        let admission = RefCell::new(Admission::new(false));
        let acceptor = Rc::new(Acceptor { listener, watch: Cell::new(None), admission });
        self.open(&acceptor, make)?;
        listening.acceptors.push(Rc::downgrade(&acceptor));
        Ok(())
    }

    /// Closes what was listened on; its connections go on.
    ///
    /// ```
    /// let mut reactor = forkd_server::reactor::Reactor::new()?;
    /// let server = reactor.listen("tcp://127.0.0.1:0", |_| forkd_server::Echo)?;
    /// reactor.call_later(std::time::Duration::ZERO, |reactor| reactor.unlisten(server));
    /// // ends, as there is nothing left to wait for
    /// reactor.run()?;
    /// # Ok::<(), forkd_server::Error>(())
    /// ```
    pub fn unlisten(&mut self, listening: Listening) {
        for acceptor in listening.acceptors.iter().filter_map(Weak::upgrade) {
            acceptor.admission.borrow_mut().close();
            acceptor.watch.take().into_iter().for_each(|watch| self.unwatch(watch));
        }
    }

    fn open<P: Protocol + 'a>(
        &mut self,
        acceptor: &Rc<Acceptor>,
        make: &Rc<RefCell<impl FnMut(&mut Self) -> P + 'a>>,
    ) -> io::Result<()> {
        let (socket, ours, make) = (Rc::clone(acceptor), Rc::clone(acceptor), Rc::clone(make));
        let key = match acceptor.listener.kind() {
            Kind::Stream => self.watch(socket, move |reactor| reactor.admit(&ours, &make)),
            Kind::Datagram => {
                let (mut batch, udp_filter) =
                    (Batch::new(1, LARGEST), UdpFilter::new(ours.listener.udp_port()));
                self.watch(socket, move |reactor| {
                    answer(reactor, &ours.listener, &mut batch, &udp_filter, &make);
                })
            }
        }?;
        acceptor.watch.set(Some(key));
        Ok(())
    }

    fn admit<P: Protocol + 'a>(
        &mut self,
        acceptor: &Rc<Acceptor>,
        make: &Rc<RefCell<impl FnMut(&mut Self) -> P + 'a>>,
    ) {
        let mut round = Round::of(AT_ONCE, AT_ONCE);
        loop {
            let mut admission = acceptor.admission.borrow_mut();
            match admission.next(&round, Room::Free) {
                Next::Accept => {}
                Next::Rest(_) => return self.rest(acceptor, make),
                _ => return,
            }
            let accepted = acceptor.listener.accept_nonblocking(&*acceptor.listener);
            let news = match &accepted {
                Ok(_) => admission.accepted(&mut round),
                Err(error) => admission.failed(&mut round, *error, Instant::now()),
            };
            drop(admission);
            events::accepting(acceptor.listener.endpoint(), news);
            if let Ok((socket, peer)) = accepted {
                let protocol = (make.borrow_mut())(self);
                self.adopt(socket, peer, Early::default(), Box::new(Accepted(protocol)));
            }
        }
    }

    /// Lets no client in for a while.
    fn rest<P: Protocol + 'a>(
        &mut self,
        acceptor: &Rc<Acceptor>,
        make: &Rc<RefCell<impl FnMut(&mut Self) -> P + 'a>>,
    ) {
        acceptor.watch.take().into_iter().for_each(|watch| self.unwatch(watch));
        let (acceptor, make) = (Rc::clone(acceptor), Rc::clone(make));
        self.call_later(REST, move |reactor| {
            acceptor.admission.borrow_mut().rested();
            if !acceptor.admission.borrow().is_closed() && reactor.open(&acceptor, &make).is_err() {
                reactor.rest(&acceptor, &make);
            }
        });
    }
}

/// Answers the datagrams that have come.
fn answer<'a, P: Protocol + 'a>(
    reactor: &mut Reactor<'a>,
    listener: &Listener,
    batch: &mut Batch,
    udp_filter: &UdpFilter,
    make: &RefCell<impl FnMut(&mut Reactor<'a>) -> P>,
) {
    for _ in 0..AT_ONCE {
        if batch.receive_one(listener, Patience::DontWait).is_err() {
            return;
        }
        let datagram = batch.datagram(0);
        let Ok(hops) = udp_filter.admit(&datagram) else { continue };
        let mut protocol = (make.borrow_mut())(reactor);
        match protocol.datagram(datagram.payload) {
            Reply::Wait | Reply::WaitFor(_) | Reply::File(_) => {}
            Reply::Send(answer) | Reply::More(answer) | Reply::Finish(answer) => {
                // a client that does not take it has gone, or does not read
                let _ = batch.answer(0, listener, answer, hops, Patience::DontWait);
            }
        }
    }
}
