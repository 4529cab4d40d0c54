//! The clients that are not served yet: what the kernel says of a listening socket.

use super::{Endpoint, Listener};
use crate::sys::drops::dropped;
use crate::sys::tcp::queue;

/// What waits at a listening socket, and what the kernel has given up there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Arrivals {
    /// Connections that wait to be accepted (TCP), where the system says so.
    pub queued: Option<u32>,
    /// How many may.
    pub queue_limit: Option<u32>,
    /// What the kernel has dropped since the socket was made: datagrams that had no room in its receive buffer
    /// (UDP), or packets of new connections that had none in its queue, with each time that a client tried again
    /// (TCP).
    pub dropped: Option<u32>,
}

impl Listener {
    /// Whether the kernel may say anything of it.
    pub(crate) fn tells_of_arrivals(&self) -> bool {
        cfg!(target_os = "linux") && matches!(self.endpoint(), Endpoint::Tcp { .. } | Endpoint::Udp { .. })
    }

    /// Two system calls at most.
    pub fn arrivals(&self) -> Arrivals {
        if !self.tells_of_arrivals() {
            return Arrivals::default();
        }
        let queue = queue(self);
        Arrivals {
            queued: queue.map(|queue| queue.length),
            queue_limit: queue.map(|queue| queue.limit),
            dropped: dropped(self),
        }
    }
}
