use super::serve::Work;
use super::worker::Terms;
use crate::scoreboard::Cause;
use crate::sys::fd::Gate;

pub(crate) fn run(_work: &Work<'_>, _gate: &Gate, _terms: &Terms) -> Cause {
    Cause::Failed
}
