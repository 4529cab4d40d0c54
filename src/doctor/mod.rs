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
use need::Need;
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
