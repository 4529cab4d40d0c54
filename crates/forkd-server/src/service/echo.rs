//! The echo service (RFC 862): all that comes goes back, as it came.

use super::{Protocol, Reply, Service};

/// Sends back what it gets, over streams until the client ends, and each datagram by itself.
///
/// ```
/// use forkd_server::{Echo, Protocol, Reply};
/// assert_eq!(Echo.received(b"hello"), Reply::Send(b"hello"));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Echo;

impl Protocol for Echo {
    fn received<'a>(&'a mut self, input: &'a [u8]) -> Reply<'a> {
        Reply::Send(input)
    }

    fn echoes() -> bool {
        true
    }
}

impl From<Echo> for Service {
    fn from(echo: Echo) -> Self {
        Self::protocol("echo", move || echo)
    }
}
