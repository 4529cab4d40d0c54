//! What several kinds of forked processes do first.

use std::fs::File;

use crate::service::Service;
use crate::sys::signal::restore_sigchld;

/// A handler may run programs and wait for them; the built-in services don't.
#[inline(always)]
pub(super) fn expect_children(service: &Service) {
    if !service.echoes() {
        restore_sigchld();
    }
}

/// Puts `null`, if there is one, in the place of the standard streams.
pub(super) fn silence(null: Option<&File>) {
    if let Some(null) = null {
        let _ = nix::unistd::dup2_stdout(null).and_then(|()| nix::unistd::dup2_stderr(null));
    }
}
