//! Which capabilities a process keeps: a server of root has all of them otherwise.

use std::io;

use super::calls::Needs;
#[cfg(target_os = "linux")]
use crate::sys::calls::is_forbidden;

/// Keeps those that such needs are worth; the others are gone for good.
#[cfg(target_os = "linux")]
pub(super) fn keep(needs: Needs) -> io::Result<()> {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

    let mut kept = CapabilitySet::empty();
    kept.set(CapabilitySet::DAC_READ_SEARCH, needs.reads);
    kept.set(CapabilitySet::DAC_OVERRIDE | CapabilitySet::CHOWN | CapabilitySet::FOWNER, needs.writes);
    // at a stop new connections are kept out by a filter on the socket
    kept.set(CapabilitySet::NET_BIND_SERVICE | CapabilitySet::NET_ADMIN, needs.connects);
    let had = capabilities(None)?;
    let mut have = had;
    have.effective &= kept;
    have.permitted &= kept;
    have.inheritable &= kept;
    if have.permitted == had.permitted && have.inheritable == had.inheritable {
        return Ok(());
    }
    match set_capabilities(None, have) {
        // by the filter of a unit, which then has given it few
        Err(errno) if is_forbidden(errno) => Ok(()),
        outcome => Ok(outcome?),
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn keep(_: Needs) -> io::Result<()> {
    Ok(())
}
