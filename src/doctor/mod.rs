//! `forkd doctor`: what on this system limits forkd, and the command that mends it.
//!
//! Invariant: the system is asked once ([`Facts`]); what that means is a pure function of the facts and of what is asked
//! ([`Need`]). A limit is of interest only if forkd depends on it. Nothing is changed.

mod confinement;
pub mod facts;
mod files;
pub mod finding;
mod group;
mod kernel;
mod memory;
pub mod need;
mod network;
mod processes;
mod show;
#[cfg(test)]
mod tests;

use facts::Facts;
use finding::Verdict;
use forkd_server::Model;
use need::{Demand, Need};
pub use show::Diagnosis;
use show::amount;

/// Judges the facts by what is asked; the worst comes first.
#[must_use]
pub fn diagnose(facts: &Facts, need: &Need) -> Diagnosis {
    let all = [
        network::findings(facts, need),
        processes::findings(facts, need),
        files::findings(facts, need),
        memory::findings(facts, need),
        confinement::findings(facts, need),
    ];
    let mut findings = all.concat();
    findings.sort_by_key(|finding| finding.verdict);
    let limiting = findings.iter().filter(|finding| finding.verdict == Verdict::Limits).count();
    Diagnosis { system: facts.system.clone(), asked: asked(need), limiting, findings }
}

/// Which limit leaves no room for so many connections at once, each served by a process, by a thread or by an event loop,
/// with what it is and what raises it; `None` if there is room.
pub fn lacks(facts: &Facts, connections: u64) -> Option<String> {
    let ways =
        [(Model::Fork, connections, 1), (Model::Thread, 1, connections), (Model::Event, 1, connections)];
    let found = ways.into_iter().flat_map(|(model, processes, each)| {
        let group = Demand { model, sockets: 1, queues: 1, processes, each: Some(each) };
        let need =
            Need { is_asked: true, connections: Some(connections), groups: vec![group], ..Need::default() };
        diagnose(facts, &need).findings
    });
    let limit = found.into_iter().find(|finding| finding.verdict == Verdict::Limits)?;
    let now = limit.mend.map(|mend| format!(" (raise it: {})", mend.now)).unwrap_or_default();
    Some(format!("{} is {}{now}", limit.limit, limit.value))
}

/// What is asked, in words.
fn asked(need: &Need) -> String {
    let mut models: Vec<&str> = need.groups.iter().map(|group| group.model.name()).collect();
    models.dedup();
    let model = format!("model {}", models.join(" and "));
    let connections = need.connections.map(|n| format!("{} connections at once", amount(n)));
    let arrivals = need.arrivals.map(|n| format!("{} new ones per second", amount(n)));
    match need.is_asked {
        false => format!("nothing in particular ({model})"),
        true => connections.into_iter().chain(arrivals).chain([model]).collect::<Vec<_>>().join(", "),
    }
}
