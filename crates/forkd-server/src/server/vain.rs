//! Options that would have no effect: what was given is expected to have one, so it is refused, as on forkd's command line.

use crate::Error;
use crate::access::AccessSpec;
use crate::model::hooks::Hooks;
use crate::model::{Model, Workers};
use crate::sandbox::Sandbox;
use crate::service::Service;
use crate::spec::ModelSpec;

/// Refuses what has no effect with this model, with this service, or on such a socket.
///
/// # Errors
///
/// [`Error::Usage`], which says what to do.
pub(super) fn refuse(
    spec: &ModelSpec,
    service: &Service,
    in_process: bool,
    has_connections: bool,
) -> Result<(), Error> {
    let (usual, model) = (ModelSpec::default(), spec.model);
    if service.as_application().is_none() && spec.upkeep != usual.upkeep {
        let what = "ready_after, start_timeout, rolling, max_worker_age and max_worker_memory";
        return Err(Error::Usage(format!(
            "{what} have no effect here: leave them out; they need workers that accept by themselves, as Server::run has"
        )));
    }
    let forks_each = model == Model::Fork;
    let is_elastic = spec.workers.is_some_and(Workers::is_elastic);
    // its name, whether it was given, whether it has an effect, and what it needs
    let options = [
        (
            "workers",
            spec.workers.is_some(),
            !forks_each,
            "any model but fork, which has a child for each client",
        ),
        (
            "spare_workers",
            (spec.min_spare, spec.max_spare) != (usual.min_spare, usual.max_spare),
            is_elastic,
            "an elastic pool: give elastic_workers",
        ),
        (
            "max_connections_per_child",
            spec.max_connections_per_child > 0,
            !in_process && !forks_each,
            "a pool: give workers, or the model prefork",
        ),
        ("threads", spec.threads != usual.threads, model == Model::Thread, "the model thread"),
        (
            "max_connections",
            spec.max_connections.is_some(),
            model.polls(),
            "workers that serve many at once without threads: the model event or coroutine",
        ),
        ("max_children", spec.max_children != usual.max_children, forks_each, "the model fork"),
        (
            "spare_children",
            spec.spare > 0,
            forks_each && has_connections,
            "a child for each connection: the model fork, and a tcp or unix endpoint",
        ),
        (
            "idle_timeout",
            spec.idle_timeout.is_some(),
            !service.hands_over(),
            "another service: the program of this one reads its connection itself",
        ),
        ("max_lifetime", spec.max_lifetime.is_some(), has_connections, "connections: a tcp or unix endpoint"),
    ];
    match options.iter().find(|(_, is_given, has_effect, _)| *is_given && !has_effect) {
        None => Ok(()),
        Some((name, .., needs)) => Err(Error::Usage(format!(
            "{name} has no effect here, with the model {model}: leave it out; it needs {needs}"
        ))),
    }
}

/// Refuses what is for connections that this crate accepts, where workers accept by themselves.
///
/// # Errors
///
/// [`Error::Usage`], as above.
pub(super) fn refuse_for_clients(
    spec: &ModelSpec,
    access: &AccessSpec,
    sandbox: &Sandbox,
    hooks: &Hooks,
) -> Result<(), Error> {
    let usual = ModelSpec::default();
    let options = [
        (&*format!("the model {}", spec.model), !matches!(spec.model, Model::Fork | Model::Prefork)),
        ("idle_timeout", spec.idle_timeout.is_some()),
        ("max_lifetime", spec.max_lifetime.is_some()),
        ("max_connections", spec.max_connections.is_some()),
        ("max_connections_per_child", spec.max_connections_per_child > 0),
        ("max_children", spec.max_children != usual.max_children),
        ("spare_children", spec.spare > 0),
        ("spare_workers", (spec.min_spare, spec.max_spare) != (usual.min_spare, usual.max_spare)),
        ("threads", spec.threads != usual.threads),
        ("sandbox", sandbox.is_on()),
        ("verify_request", hooks.verify.is_some()),
        ("handle_error", hooks.failed.is_some()),
        ("a limit for sources (allow, rate, max_per_source and their kin)", !access.is_open()),
    ];
    match options.iter().find(|(_, is_given)| *is_given) {
        None => Ok(()),
        Some((name, _)) => Err(Error::Usage(format!(
            "{name} has no effect on workers that accept by themselves: leave it out"
        ))),
    }
}
