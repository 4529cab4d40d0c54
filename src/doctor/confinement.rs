//! What the kernel lets forkd do: system calls that have another way, and the sandbox.

use super::facts::Facts;
use super::finding::{Finding, Mend, Verdict};
use super::kernel::instead_of;
use super::need::Need;
use forkd_server::sandbox::Level;

/// What the kernel leaves.
pub(super) fn findings(facts: &Facts, need: &Need) -> Vec<Finding> {
    vec![calls(facts), sandbox(facts, need)]
}

fn calls(facts: &Facts) -> Finding {
    const LIMIT: &str = "system calls";
    let kernel = &facts.kernel;
    if kernel.is_portable {
        let meaning = "This program takes the path of other systems: it forks by fork(2), follows workers by pipes, and has \
                       no pidfd and no close_range(2). It is a build for another C library or system than glibc on Linux, \
                       or FORKD_PORTABLE=1 asks for it.";
        return Finding::ok(LIMIT, "the portable ones", meaning);
    }
    if kernel.missing.is_empty() {
        return Finding::ok(
            LIMIT,
            "all",
            "forkd has each call that it has another way for, such as clone3(2).",
        );
    }
    let names: Vec<&str> = kernel.missing.iter().map(|(name, _)| *name).collect();
    let sentences: Vec<String> = kernel
        .missing
        .iter()
        .map(|(name, error)| format!("{name}: {error}; forkd {}", instead_of(name)))
        .collect();
    let mend = Mend::option(
        "see SystemCallFilter= of the unit, or the seccomp profile of the container",
        "a profile that allows them, or a newer kernel",
    );
    Finding::ok(LIMIT, format!("without {}", names.join(", ")), sentences.join(". ") + ".")
        .but(Verdict::Tight, mend)
}

fn sandbox(facts: &Facts, need: &Need) -> Finding {
    const LIMIT: &str = "sandbox";
    let kernel = &facts.kernel;
    let value = match kernel.landlock {
        Some(version) => format!("Landlock {version}"),
        None => "no Landlock".into(),
    };
    match kernel.gap {
        None => Finding::ok(LIMIT, value + ", seccomp", "--sandbox strict can be had."),
        Some(gap) => {
            let meaning =
                format!("--sandbox on leaves out what there is not, and strict refuses to start: no {gap}.");
            let found = Finding::ok(LIMIT, value, meaning);
            match need.sandbox {
                Level::Strict => found.but(
                    Verdict::Limits,
                    Mend::option(
                        "forkd serve --sandbox on",
                        "sandbox = \"on\" in forkd's configuration file, or a newer kernel",
                    ),
                ),
                Level::On | Level::Off => found,
            }
        }
    }
}
