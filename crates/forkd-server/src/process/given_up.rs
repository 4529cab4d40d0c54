//! What a master gives up for good, and its children with it.
//!
//! A child has it from its birth, at no cost of its own. So has a program that is executed: where there are programs to run,
//! the master gives up no more than those may have lost.

use crate::sandbox::{Level, refuse_what_no_server_does};
use crate::service::Service;
use crate::sys::oom::may_raise_children;
use crate::sys::sandbox::{hide_memory, refuse_new_privileges};
use crate::{Error, events};

/// What a master has given up.
#[derive(Debug, Default)]
pub(super) struct GivenUp {
    /// Programs gain no privileges.
    privileges: bool,
    /// System calls that no server makes, and capabilities.
    calls: bool,
    /// Its files in /proc are root's, and so would be those of a child.
    pub(super) hides_children: bool,
}

impl GivenUp {
    /// Gives up what none of these services needs, beside what is given up already.
    pub(super) fn for_services(&self, services: &[Service], level: Level) -> Result<Self, Error> {
        let confines = level.can_confine()?;
        if let Some(missing) = level.missing() {
            events::sandbox_lacks(missing);
        }
        if !confines {
            return Ok(Self { hides_children: false, ..*self });
        }
        let cannot = |cause| Error::os("cannot confine the master", cause);
        let mut hidden = Self { ..*self };
        hidden.hide(level)?;
        let hides_children = hidden.hides_children;
        let privileges = !services.iter().any(Service::keeps_privileges);
        if privileges {
            refuse_new_privileges().map_err(cannot)?;
        }
        let calls = !services.iter().any(Service::hands_over);
        // a second filter would cost time and forbid nothing more
        if calls && !self.calls {
            refuse_what_no_server_does().map_err(cannot)?;
        }
        Ok(Self { privileges: privileges || self.privileges, calls: calls || self.calls, hides_children })
    }

    /// Has other processes of its user see nothing of its memory: the one thing that another program undoes.
    pub(super) fn hide(&mut self, level: Level) -> Result<(), Error> {
        if level.can_confine()? {
            let has_raised = may_raise_children();
            hide_memory().map_err(|cause| Error::os("cannot confine the master", cause))?;
            self.hides_children |= has_raised && !may_raise_children();
        }
        Ok(())
    }

    /// What the program before this one has given up stays so, whatever program this process executes.
    pub(super) fn restored([privileges, calls]: [bool; 2]) -> Self {
        Self { privileges, calls, hides_children: false }
    }

    /// Writes that down.
    pub(super) fn save(&self) -> [bool; 2] {
        [self.privileges, self.calls]
    }

    /// Refuses a service whose programs would lack it.
    pub(super) fn suits(&self, service: &Service) -> Result<(), Error> {
        let lacks = match service.hands_over() {
            true if self.calls => "has given up what programs may need",
            true if self.privileges && service.keeps_privileges() => {
                "has given up the privileges of programs"
            }
            _ => return Ok(()),
        };
        Err(Error::Config(format!(
            "the service {} is new in this configuration, which needs a restart: forkd {lacks} (sandbox)",
            service.name()
        )))
    }
}
