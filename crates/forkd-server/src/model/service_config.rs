//! How the clients of one socket are served, by whichever process and model.

use std::io;
use std::time::Duration;

use super::Model;
use super::hooks::Hooks;
use crate::events;
use crate::limit::SharedLimit;
use crate::scoreboard::Cause;
use crate::service::Service;
use crate::transport::{Connection, Endpoint, Peer, ServerInfo};

/// How clients of one socket are served.
#[derive(Debug, Clone)]
pub(crate) struct ServiceConfig {
    pub(crate) service: Service,
    pub(crate) idle_timeout: Option<Duration>,
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
        Self { idle_timeout: service.patience(), service, hooks, server_info, failures }
    }

    /// With the time-out that was asked for, if one was; the service has its own.
    pub(crate) fn with_idle_timeout(self, asked: Option<Duration>) -> Self {
        Self { idle_timeout: asked.or(self.idle_timeout), ..self }
    }

    /// Serves one connection until it ends; it is still to be closed.
    // a function of its own would be one more window of text for each child to fault in
    #[inline(always)]
    pub(crate) fn serve(&self, connection: &mut Connection<'_>) -> Cause {
        let result = match self.idle_timeout {
            Some(limit) => connection.set_idle_timeout(limit).and_then(|()| self.service.serve(connection)),
            None => self.service.serve(connection),
        };
        let cause = self.outcome(connection.peer(), result);
        if cause == Cause::Failed {
            connection.has_failed();
        }
        cause
    }

    /// What has become of a connection that ended like this.
    #[inline(always)]
    pub(crate) fn outcome(&self, peer: Peer, result: io::Result<()>) -> Cause {
        match result {
            Ok(()) => {
                log::debug!(peer:% = peer; "connection closed");
                Cause::Done
            }
            Err(error) if is_the_client_s(&error) => {
                log::debug!(peer:% = peer, error:% = error; "connection ended");
                Cause::Done
            }
            Err(error) => {
                self.failed(peer, &error);
                Cause::Failed
            }
        }
    }

    /// A handler has returned an error that is no client's doing.
    pub(crate) fn failed(&self, peer: Peer, error: &io::Error) {
        if let Some(suppressed) = self.failures.admit() {
            events::handler_failed(peer, error, suppressed);
        }
        self.hooks.failed(peer, error);
    }
}

/// An end that is the client's doing, or the idle time-out's, and no fault of the handler.
fn is_the_client_s(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, WouldBlock};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | TimedOut | WouldBlock)
}
