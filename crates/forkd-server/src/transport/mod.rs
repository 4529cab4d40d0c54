//! Where requests come from: TCP, UDP, and Unix sockets of both kinds.
//!
//! An [`Endpoint`] is what the user names, a `Listener` a bound or inherited socket, a [`Connection`] what a
//! handler talks to. Nothing here knows what runs the handler.

mod atomic {
    pub(super) use std::sync::atomic::{AtomicU32, Ordering};
}

pub(crate) mod arrivals;
pub(crate) mod bind;
mod connection;
pub(crate) mod early;
mod file_part;
mod files;
pub(crate) mod inherited;
pub(crate) mod listener;
pub(crate) mod offence;
mod open_connections;
pub(crate) mod peer;
pub(crate) mod proxy;
mod pump;
pub(crate) mod refusal;
pub(crate) mod saved_socket;
mod server_info;
mod shutdown_handle;
mod socket_file;
pub(crate) mod timed_out;
pub(crate) mod traffic;
pub(crate) mod udp_filter;
mod writer;

pub(crate) use arrivals::Arrivals;
pub(crate) use connection::local_addr;
#[cfg(feature = "coroutine")]
pub(crate) use connection::{Attempt, Blocking, Wait, block};
pub(crate) use connection::{Awaited, LEFTOVER, LINGER, MORE, Ready, Watch};
pub use connection::{Connection, Stream};
pub use file_part::FilePart;
pub use forkd_net::{Endpoint, ParseEndpointError, resolve};
pub(crate) use inherited::Inherited;
pub(crate) use listener::Listener;
pub use offence::Offence;
pub(crate) use open_connections::OpenConnections;
pub use peer::Peer;
pub use proxy::ProxyVersion;
pub(crate) use pump::limit_unsent;
#[cfg(feature = "coroutine")]
pub(crate) use pump::limit_unsent_if_slow;
pub(crate) use refusal::Refusal;
pub use server_info::ServerInfo;
pub use shutdown_handle::Handle;
pub use timed_out::TimedOut;
pub(crate) use traffic::Traffic;
pub(crate) use writer::{Found, Hold, Outbox, Outboxes, Rouser, Wakeups, Wish};
pub use writer::{WriteError, Writer};

#[cfg(test)]
mod tests {
    mod early;
    mod model;
}
