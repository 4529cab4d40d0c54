//! The discard service (RFC 863): takes what comes, and says nothing.

use super::{Protocol, Reply, Service};

/// Throws away what it gets, until the client ends.
///
/// ```
/// use forkd_server::{Protocol, Reply, service::Discard};
/// assert_eq!(Discard.received(b"hello"), Reply::Wait);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Discard;

impl Protocol for Discard {
    fn received<'a>(&'a mut self, _: &'a [u8]) -> Reply<'a> {
        Reply::Wait
    }
}

impl From<Discard> for Service {
    fn from(discard: Discard) -> Self {
        Self::protocol("discard", move || discard).silent()
    }
}
