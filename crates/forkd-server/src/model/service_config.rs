//! How the clients of one socket are served, by whichever process and model.

use std::io;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use super::Model;
use super::hooks::Hooks;
use crate::events;
use crate::limit::SharedLimit;
use crate::scoreboard::Cause;
use crate::service::Service;
use crate::transport::{Connection, Endpoint, Offence, Peer, ServerInfo, TimedOut};

/// How clients of one socket are served.
#[derive(Debug, Clone)]
pub(crate) struct ServiceConfig {
    pub(crate) service: Service,
    pub(crate) idle_timeout: Option<Duration>,
    /// How long a connection may last.
    pub(crate) max_lifetime: Option<Duration>,
    pub(crate) hooks: Hooks,
    /// What handlers see of all this.
    pub(crate) server_info: ServerInfo,
    /// So that no client can fill the log, whichever processes it is served by.
    failures: &'static SharedLimit,
}

impl ServiceConfig {
    pub(crate) fn new(
        endpoint: &Endpoint,
        service: Service,
        model: Model,
        hooks: Hooks,
        failures: &'static SharedLimit,
    ) -> Self {
        let server_info =
            ServerInfo::new(endpoint.clone(), service.name(), model.name(), hooks.handle.clone());
        let idle_timeout = service.patience();
        Self { service, idle_timeout, max_lifetime: None, hooks, server_info, failures }
    }

    /// With the limits of time that were asked for, if any were; the service has an idle time-out of its own.
    pub(crate) fn with_limits(self, idle_timeout: Option<Duration>, max_lifetime: Option<Duration>) -> Self {
        Self { idle_timeout: idle_timeout.or(self.idle_timeout), max_lifetime, ..self }
    }

    /// With a master, which says here when its children are to finish.
    pub(crate) fn stopped_by(self, stopping: &'static AtomicU32) -> Self {
        Self { server_info: self.server_info.stopped_by(stopping), ..self }
    }

    /// Serves one connection until it ends; it is still to be closed.
    // a function of its own would be one more window of text for each child to fault in
    #[inline(always)]
    pub(crate) fn serve(&self, connection: &mut Connection<'_>) -> End {
        connection.limit_time(self.idle_timeout, self.max_lifetime);
        let result = self.service.serve(connection);
        let end = self.outcome(connection, &result);
        if end == End::Failed {
            connection.has_failed();
        }
        end
    }

    /// How a connection ended whose handler has returned this.
    #[inline(always)]
    fn outcome(&self, connection: &Connection<'_>, result: &io::Result<()>) -> End {
        match result {
            Err(error) if !is_the_client_s(error, connection) => {
                self.failed(connection.peer(), error);
                End::Failed
            }
            _ => End::of(connection.peer(), result),
        }
    }

    /// A handler has returned an error that is no client's doing.
    pub(crate) fn failed(&self, peer: Peer, error: &io::Error) {
        if let Some(suppressed) = self.failures.admit() {
            events::handler_failed(peer, error, suppressed);
            if self.hooks.failed.is_none() {
                events::handler_failed_unheard(peer, error, suppressed);
            }
        }
        self.hooks.failed(peer, error);
    }
}

/// How a connection has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// By the client or the service.
    Done,
    /// By a limit of time.
    TimedOut(TimedOut),
    /// By an error of the handler.
    Failed,
}

impl End {
    /// Logs and tells how a connection has ended that no handler has failed to serve.
    #[inline(always)]
    pub(crate) fn of(peer: Peer, result: &io::Result<()>) -> Self {
        match result {
            Ok(()) => {
                log::debug!(peer:%; "connection closed");
                Self::Done
            }
            Err(error) => {
                log::debug!(peer:%, error:%; "connection ended");
                TimedOut::of(error).map_or(Self::Done, Self::TimedOut)
            }
        }
    }

    /// What the client has done wrong, as far as the end tells.
    pub(crate) fn offence(self) -> Option<Offence> {
        match self {
            Self::TimedOut(TimedOut::Unread) => Some(Offence::Unread),
            Self::TimedOut(TimedOut::Idle | TimedOut::Lifetime) => Some(Offence::Timeout),
            Self::Done | Self::Failed => None,
        }
    }

    /// What it means to the child that had this connection alone.
    pub(crate) fn cause(self) -> Cause {
        if self == Self::Failed { Cause::Failed } else { Cause::Done }
    }
}

/// An end that is the client's doing, or that of a limit of time, and no fault of the handler.
fn is_the_client_s(error: &io::Error, connection: &Connection<'_>) -> bool {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof, WouldBlock,
    };
    match error.kind() {
        BrokenPipe | ConnectionAborted | ConnectionReset | TimedOut | WouldBlock => true,
        // by a handler that wants more of a message
        UnexpectedEof => connection.has_ended(),
        _ => false,
    }
}
