//! Log lines of what makes the master a process of the system: where its log goes, its control socket, its metrics, its
//! service manager. What happens to clients and children is in `events`.

use std::fmt::Display;
use std::io;
use std::path::Path;

use forkd_net::unit;
use log::{debug, error, info, warn};
use nix::sys::signal::Signal;

use forkd_server::Endpoint;
use forkd_server::supervise::Rule;

/// Where standard error, which would say it, is the connection.
pub(crate) fn cannot_serve_stdin(why: &str) {
    error!("{why}");
}

/// The line that says that the daemon is ready, and how to try it out, or that it can't be asked how it is. In
/// JSON every line has the pid.
pub(crate) fn ready(hint: &str, has_control: bool) {
    let without =
        if has_control { "" } else { "; no control socket, so no `forkd status`: give --control PATH" };
    info!("ready pid={} (try: {hint}{without})", std::process::id());
}

pub(crate) fn log_goes_dark() {
    warn!("no standard error in the background: this is the last line (see --log syslog)");
}

/// Where the default has several places.
pub(crate) fn control_at(path: &Path) {
    let path = path.display();
    info!("RUNTIME_DIRECTORY names several directories; the control socket is {path}");
}

pub(crate) fn no_control(error: &dyn Display) {
    warn!(error:%; "no control socket, so no `forkd status`; give --control PATH");
}

pub(crate) fn control_failed(error: &dyn Display) {
    debug!(error:%; "control client lost");
}

pub(crate) fn pardoned(source: Rule) {
    info!(source:%; "pardoned a source");
}

pub(crate) fn metrics_at(endpoint: &Endpoint) {
    match endpoint {
        Endpoint::Tcp { .. } => {
            info!("metrics at {}/metrics", endpoint.to_string().replacen("tcp", "http", 1));
        }
        endpoint => info!("metrics at {endpoint}, /metrics"),
    }
}

pub(crate) fn manager_unreachable(address: &dyn Display, error: &io::Error) {
    let hint =
        unit::hint(unit::Attempt::ReachManager, error).map(|hint| format!("; {hint}")).unwrap_or_default();
    warn!(address:%, error:%; "cannot reach the service manager that NOTIFY_SOCKET names; it gets no notifications{hint}");
}

pub(crate) fn manager_lost(error: &dyn Display) {
    warn!(error:%; "cannot notify the service manager (logged once)");
}

pub(crate) fn no_metrics(error: &dyn Display) {
    error!(error:%; "serving without metrics until the next start");
}

pub(crate) fn stopped_early(signal: Signal) {
    info!(signal:%; "stopped before it was ready");
}
