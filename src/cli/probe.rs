//! `forkd probe`: the health check of a container, which has no shell and no other client, or of a balancer.
//!
//! Invariant: it prints one line, and exits with 0 only if the server has done what was asked.

use std::time::Instant;

use super::args::{ProbeArgs, Probed};
use super::terminal::Terminal;
use crate::failed::Failed;
use crate::{Error, Failure};
use forkd_load::text::span;
use forkd_load::{Absent, Fault, Reach, Sign, Target, probe};

/// Asks the server once.
///
/// # Errors
///
/// [`Error::Unavailable`] if it does not answer, or says that it is not ready; exit code 65 if it answers something else
/// than an echo; [`Error::Usage`] for what can't be asked.
pub fn run(args: &ProbeArgs) -> Result<(), Failed> {
    let Probed { endpoint, path } = &args.server;
    let (sign, done) = match path {
        _ if args.connect_only && (endpoint.is_datagram() || path.is_some()) => {
            let why = "--connect-only is for tcp://HOST:PORT and unix:///PATH: what else there is has no connection, or is \
                       to be answered";
            return Err(Error::Usage(why.to_owned()).into());
        }
        _ if args.connect_only => (Sign::Connection, "listens"),
        None => (Sign::Echo, "echoes"),
        Some(path) => (Sign::Http { host: host_field(endpoint), path: path.clone() }, "answers"),
    };
    let begun = Instant::now();
    // one request is no load
    let target = Target::new(endpoint, Reach::OwnHost)?;
    let what = match path {
        Some(path) => format!("http://{}{path}", host_field(endpoint)),
        None => endpoint.to_string(),
    };
    match probe(&target, &sign, args.timeout.0) {
        Ok(()) => Ok(Terminal::new().print(&format!("{what} {done} ({})", span(begun.elapsed())))?),
        Err(absent) => Err(failed(&what, done, absent)),
    }
}

/// The host and port, as RFC 9110 has them in the field Host.
fn host_field(endpoint: &forkd_server::Endpoint) -> String {
    endpoint.to_string().trim_start_matches("tcp://").to_owned()
}

fn failed(what: &str, done: &str, absent: Absent) -> Failed {
    let unavailable =
        |why: &str| Error::Unavailable(Failure::from(format!("{what} is not healthy: {why}"))).into();
    match absent {
        Absent::Status(status) => unavailable(status.trim_end()),
        Absent::Fault(Fault::WrongBytes) => {
            Failed::data(format!("{what} answers, but not as a server that {done}"))
        }
        Absent::Fault(Fault::System(errno)) => {
            Error::from_io(format!("cannot probe {what}"), std::io::Error::from_raw_os_error(errno)).into()
        }
        Absent::Fault(fault) => unavailable(&fault.to_string()),
    }
}
