//! Why a client or a datagram was turned away.

use std::fmt;

/// Why a client or a datagram was turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// As many children as allowed were alive (`--overflow reject`).
    Limit,
    /// No child could be forked for it before the stop was over.
    Fork,
    /// No thread could be started for it before the stop was over.
    Thread,
    /// A datagram from one of this daemon's own ports.
    OwnPort,
    /// A datagram from port 0, to which nothing can be sent.
    PortZero,
    /// A datagram from another small service's port, which may answer back for ever.
    ServicePort,
    /// A datagram from or to a broadcast or multicast address.
    Broadcast,
    /// A datagram that has bounced until its hop limit was used up.
    HopLimit,
    /// A datagram from a Unix socket without an address.
    Unnamed,
    /// A datagram longer than the buffer.
    Oversize,
    /// An answer that the kernel would not send.
    Unsendable,
    /// One that the application does not want (`Server::verify_request`).
    Application,
    /// A source that is not allowed to come in (`--allow`, `--deny`).
    Denied,
    /// As many clients of its source as allowed were alive (`--max-per-source`).
    SourceLimit,
    /// One without a header that says whose it is, or from a source that is no proxy (`--proxy`).
    Proxy,
    /// Clients of its source come too often (`--rate-per-source`).
    SourceRate,
    /// Clients come too often (`--rate` with `--overflow reject`).
    Rate,
    /// Too many connections have not completed their first exchange (`--early-drop`).
    EarlyDrop,
    /// Clients of its source have done what is penalised (`--penalty`).
    Penalty,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::Limit,
        Self::Fork,
        Self::Thread,
        Self::OwnPort,
        Self::PortZero,
        Self::ServicePort,
        Self::Broadcast,
        Self::HopLimit,
        Self::Unnamed,
        Self::Oversize,
        Self::Unsendable,
        Self::Application,
        Self::Denied,
        Self::SourceLimit,
        Self::Proxy,
        Self::SourceRate,
        Self::Rate,
        Self::EarlyDrop,
        Self::Penalty,
    ];
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Limit => "limit",
            Self::Fork => "fork",
            Self::Thread => "thread",
            Self::OwnPort => "own-port",
            Self::PortZero => "port-zero",
            Self::ServicePort => "service-port",
            Self::Broadcast => "broadcast",
            Self::HopLimit => "hop-limit",
            Self::Unnamed => "unnamed",
            Self::Oversize => "oversize",
            Self::Unsendable => "unsendable",
            Self::Application => "application",
            Self::Denied => "denied",
            Self::SourceLimit => "source-limit",
            Self::Proxy => "proxy",
            Self::SourceRate => "source-rate",
            Self::Rate => "rate",
            Self::EarlyDrop => "early-drop",
            Self::Penalty => "penalty",
        })
    }
}
