//! The services that come with forkd, by name.

use std::path::Path;
use std::time::SystemTime;

use super::RouteText;
use super::choice::{Choice, choices};
use super::options::ListenOptions;
use super::values::{ExecPrivileges, Span, WorkerLog};
use crate::Error;
use forkd_server::service::{Ack, Chargen, Clock, Discard, Echo, Exec, Http, Service, WorkerProgram};

choices! {
    /// A service that comes with forkd, by name.
    ///
    /// ```
    /// use forkd::config::service::Builtin;
    /// assert!(!Builtin::Http.takes_datagrams());
    /// ```
    pub enum Builtin {
        /// Sends back what it gets (RFC 862)
        Echo = "echo",
        /// Throws away what it gets (RFC 863)
        Discard = "discard",
        /// Sends lines of characters without end (RFC 864)
        Chargen = "chargen",
        /// Sends the date and time as a line of text, in UTC (RFC 867)
        Daytime = "daytime",
        /// Sends the time as four bytes (RFC 868)
        Time = "time",
        /// Answers each message with a fixed reply (--reply, --framing)
        Ack = "ack",
        /// Serves files and texts by HTTP/1.1 (--root, --route)
        Http = "http",
        /// Runs a program, whose standard input and output is the connection (--exec)
        Exec = "exec",
        /// Has each worker become a program, which accepts by itself (--worker-exec)
        Program = "program",
    }
}

impl std::fmt::Display for Builtin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Builtin {
    /// Whether it answers a datagram at all: what needs a connection has no place in one.
    #[must_use]
    pub const fn takes_datagrams(self) -> bool {
        !matches!(self, Self::Http | Self::Exec)
    }

    /// Whether it answers a datagram with more bytes than that has, if it is not kept from that.
    #[must_use]
    pub const fn amplifies(self) -> bool {
        matches!(self, Self::Chargen | Self::Daytime | Self::Time)
    }

    /// Whether its workers accept by themselves, so that forkd does not see their clients.
    #[must_use]
    pub const fn accepts_by_itself(self) -> bool {
        matches!(self, Self::Program)
    }

    /// Whether it waits for its client, and so can't share a thread with others.
    #[must_use]
    pub const fn waits_for_client(self) -> bool {
        matches!(self, Self::Exec)
    }
}

impl ListenOptions {
    /// Makes the service. `chroot` will be the root directory of the process when requests come, if another: what http
    /// serves is looked up again below it.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if it needs something that can't be opened.
    pub fn make_service(&self, chroot: Option<&Path>) -> Result<Service, Error> {
        Ok(match self.service() {
            Builtin::Echo => Echo.into(),
            Builtin::Discard => Discard.into(),
            Builtin::Chargen => Chargen::default().into(),
            Builtin::Daytime => Clock::daytime().into(),
            Builtin::Time => Clock::time().into(),
            Builtin::Ack => {
                let ack = Ack::new(&self.reply(), self.framing());
                if self.allow_amplification() { ack.amplifying().into() } else { ack.into() }
            }
            Builtin::Http => http(self, chroot)?.into(),
            Builtin::Exec => {
                let exec = Exec::new(&self.exec);
                match self.exec_privileges() {
                    ExecPrivileges::Drop => exec.into(),
                    ExecPrivileges::Keep => exec.keep_privileges().into(),
                }
            }
            Builtin::Program => self.worker_program().into(),
        })
    }

    /// What each worker becomes.
    fn worker_program(&self) -> WorkerProgram {
        let mut program = WorkerProgram::new(&self.worker_exec).stop_signal(self.stop_signal().0 as i32);
        if let Some(Span(limit)) = self.worker_watchdog {
            program = program.watchdog(limit);
        }
        if self.exec_privileges() == ExecPrivileges::Keep {
            program = program.keep_privileges();
        }
        match self.worker_log() {
            WorkerLog::Lines => program,
            WorkerLog::Inherit => program.leave_output(),
        }
    }

    /// Whether [`make_service`](Self::make_service) makes the same of both.
    pub(crate) fn has_service_of(&self, other: &Self) -> bool {
        let parts = |of: &Self| {
            let flags = (of.service(), of.framing(), of.allow_amplification());
            let program = (of.worker_exec.clone(), of.worker_watchdog, of.stop_signal(), of.worker_log());
            let exec = (of.exec.clone(), of.exec_privileges());
            (flags, of.reply(), of.root.clone(), of.route.clone(), exec, program)
        };
        parts(self) == parts(other)
    }
}

/// The time is always to be had.
fn http(options: &ListenOptions, chroot: Option<&Path>) -> Result<Http, Error> {
    // it panics before 1970, which a board without a battery may believe it is
    let now = || SystemTime::now().max(SystemTime::UNIX_EPOCH);
    let mut http =
        Http::new().route("/time", move || format!("{}\n", humantime::format_rfc3339_seconds(now())));
    for RouteText { path, text } in &options.route {
        let text = text.clone();
        http = http.route(path, move || text.clone());
    }
    match &options.root {
        Some(root) => http.root_below(root, chroot),
        None => Ok(http),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forkd_server::model::Model;

    #[test]
    fn what_is_said_of_a_kind_is_true_of_the_service() {
        for &kind in Builtin::ALL {
            let options = ListenOptions {
                service: Some(kind),
                exec: vec!["cat".into()],
                worker_exec: vec!["cat".into()],
                ..Default::default()
            };
            let service = options.make_service(None).unwrap();
            assert_eq!(service.name(), kind.name());
            assert_eq!(service.amplifies(), kind.amplifies(), "{kind}");
            assert_eq!(service.is_handler(), kind.waits_for_client(), "{kind}");
        }
        assert!(Model::Event.require("exec", Builtin::Exec.waits_for_client()).is_err());
    }
}
