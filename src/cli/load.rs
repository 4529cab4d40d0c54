//! `forkd load`: loads a server and tells how it did, or what several have told.
//!
//! Invariant: whatever has been measured is shown, also after Ctrl-C. Standard output has the result, and
//! standard error what goes on meanwhile.

mod during;
mod merge;

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use during::Meanwhile;

use super::args::LoadArgs;
use super::interrupt::Interrupt;
use super::progress::Line;
use super::terminal::{Terminal, print_json};
use crate::failed::Failed;
use crate::{Error, Failure};
use forkd_load::text::thousands;
use forkd_load::{During, Fault, Live, Load, Outcome, Phase, ProxyVersion, Report, Target, table};
use forkd_server::Endpoint;

/// Carries out the phases and prints what was measured.
///
/// # Errors
///
/// [`Error::Unavailable`] if there was nothing to measure in a phase, exit code 65 if the server sent
/// back something else than it was sent, 128 and its number if a signal ended it; all after the result has
/// been printed. Before that, what
/// [`Target::new`], [`Load::new`] and [`Load::run`] say.
pub fn run(args: &LoadArgs) -> Result<(), Failed> {
    match &args.endpoint {
        Some(endpoint) => measure(args, endpoint),
        None => merge::run(args),
    }
}

fn measure(args: &LoadArgs, endpoint: &Endpoint) -> Result<(), Failed> {
    let target = Target::new(endpoint, args.reach())?;
    let target = match args.proxy {
        Some(ProxyVersion::V1) if endpoint.is_datagram() => {
            return Err(Error::Usage("--proxy v1 has no datagrams; give --proxy v2".to_owned()).into());
        }
        Some(version) => target.behind_proxy(version),
        None => target,
    };
    let phases = phases(args, &target)?;
    let load = Load::new(target, args.plan())?;
    phases.iter().try_for_each(|phase| load.check(*phase))?;
    let file = create(args)?;
    let live = Arc::new(Live::default());
    let interrupt = Interrupt::catch(&live, Duration::ZERO)?;
    let (mut outcomes, mut failure, mut during) = (Vec::new(), Ok(()), None);
    for phase in phases {
        let result = match &args.during {
            None => watched(&load, phase, &live).map(|outcome| (outcome, None)),
            Some(command) => {
                // of a client that waits for its place, and then for its first echo
                let patience = load.plan().timeout * 2;
                beside(&load, phase, &live, &Meanwhile { command, around: args.around(), patience })
            }
        };
        match result {
            Ok((outcome, cost)) => {
                outcomes.push(outcome);
                during = cost;
            }
            Err(error) => failure = Err(error),
        }
        if live.is_stopped() || failure.is_err() {
            break;
        }
    }
    let mut report = Report::new(endpoint, load.plan(), &outcomes, live.is_stopped());
    if let (Some(_), [outcome]) = (&args.during, &outcomes[..]) {
        report.settings.duration_s = outcome.elapsed.as_secs_f64();
    }
    report.during = during;
    show(args, &report, &extent(args), file)?;
    interrupt.verdict(if has_any(&outcomes) { "early" } else { "before anything was measured" })?;
    failure?;
    verdict(args, endpoint, &outcomes)?;
    report.during.as_ref().map_or(Ok(()), nothing_lost)
}

/// What is to be done, one after the other.
fn phases(args: &LoadArgs, target: &Target) -> Result<Vec<Phase>, Error> {
    let usual = Phase::usual(target);
    match (&args.during, &args.phases[..]) {
        (None, []) => Ok(usual),
        (Some(_), []) => Ok(usual.into_iter().take(1).collect()),
        (Some(_), [Phase::Churn | Phase::PingPong | Phase::Datagrams]) | (None, _) => Ok(args.phases.clone()),
        (Some(_), _) => Err(Error::Usage(
            "--during has one phase, and one that has a rate: give --phases churn, pingpong or datagrams"
                .to_owned(),
        )),
    }
}

/// Carries out a phase while a command runs.
fn beside(
    load: &Load,
    phase: Phase,
    live: &Arc<Live>,
    meanwhile: &Meanwhile<'_>,
) -> Result<(Outcome, Option<During>), Error> {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let command = scope.spawn(|| meanwhile.run(live, &is_over));
        let outcome = watched(load, phase, live);
        is_over.store(true, Ordering::Relaxed);
        let ran = command.join().map_err(|_| Error::Internal("a thread panicked".to_owned()))??;
        let outcome = outcome?;
        let cost = ran.map(|ran| meanwhile.cost(&ran, &outcome));
        Ok((outcome, cost))
    })
}

/// For a script: whether the command is one that no client notices.
fn nothing_lost(During { command, exit_code, lost, .. }: &During) -> Result<(), Failed> {
    let why = match (lost, exit_code) {
        (0, Some(0)) => return Ok(()),
        (0, Some(code)) => format!("nothing was lost, but {command:?} ended with exit code {code}"),
        (0, None) => format!("nothing was lost, but a signal ended {command:?}"),
        _ => format!("operations lost with {command:?}: {}", thousands(*lost as f64)),
    };
    Err(Failed::new(1, why))
}

/// Prints the result, and writes it to the file, if there is one.
fn show(args: &LoadArgs, report: &Report, extent: &str, file: Option<File>) -> Result<(), Error> {
    let json =
        serde_json::to_string_pretty(report).map_err(|error| Error::Internal(error.to_string()))? + "\n";
    // a table of nothing tells nothing
    let has_any = report.phases.iter().any(|figures| figures.done > 0);
    let text = if has_any { headline(report, extent) + &table(&report.phases) } else { String::new() };
    let text = report.during.iter().fold(text, |text, during| text + "\n" + &during.text());
    match (&args.json, file) {
        (Some(_), None) => print_json(&json),
        (Some(path), Some(mut file)) => {
            let written = file.write_all(json.as_bytes());
            Terminal::new().print(&text)?;
            written.map_err(|cause| {
                Error::CannotCreate(Failure::new(format!("cannot write to {}", path.display()), cause))
            })
        }
        (None, _) => Terminal::new().print(&text),
    }
}

fn has_any(outcomes: &[Outcome]) -> bool {
    outcomes.iter().any(|outcome| outcome.done > 0)
}

/// The file for the figures, if there is to be one. Before anything is measured: it would be a pity if they could not be kept.
fn create(args: &LoadArgs) -> Result<Option<File>, Error> {
    let create = |path: &Path| {
        File::create(path).map_err(|cause| {
            Error::CannotCreate(Failure::new(format!("cannot create {}", path.display()), cause))
        })
    };
    args.json.as_deref().filter(|path| *path != Path::new("-")).map(create).transpose()
}

/// Carries out a phase and tells meanwhile how it goes.
fn watched(load: &Load, phase: Phase, live: &Arc<Live>) -> Result<Outcome, Error> {
    let (over, is_over) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || tell(phase, live, &is_over));
        let outcome = load.run(phase, live);
        drop(over);
        outcome
    })
}

/// Says how the phase goes, until it is over.
fn tell(phase: Phase, live: &Live, is_over: &Receiver<()>) {
    let (mut line, begun) = (Line::default(), Instant::now());
    let (mut before, mut then) = (0, begun);
    while is_over.recv_timeout(line.interval()) == Err(RecvTimeoutError::Timeout) {
        let (done, now) = (live.done(), Instant::now());
        let rate = done.saturating_sub(before) as f64 / (now - then).as_secs_f64();
        (before, then) = (done, now);
        line.show(&progress(phase, now - begun, done, rate, live.faults()));
    }
}

fn progress(phase: Phase, elapsed: Duration, done: u64, rate: f64, faults: u64) -> String {
    let (name, unit, seconds) = (phase.name(), phase.unit(), elapsed.as_secs_f64());
    let (done, rate, faults) = (thousands(done as f64), thousands(rate), thousands(faults as f64));
    format!("{name}: {seconds:.1} s, {done} {unit}, {rate} {unit}/s, {faults} errors")
}

/// How long it was to last.
fn extent(args: &LoadArgs) -> String {
    let plan = args.plan();
    match (&args.during, plan.operations) {
        (Some(_), _) => format!("{} before and after the command", humantime::format_duration(args.around())),
        (None, Some(operations)) => format!("{} operations per phase", thousands(operations as f64)),
        (None, None) => format!("{} per phase", humantime::format_duration(plan.duration)),
    }
}

fn headline(report: &Report, extent: &str) -> String {
    let Report { endpoint, settings, generators, .. } = report;
    let generators = match generators {
        1 => String::new(),
        several => format!("{} generators, ", thousands(*several as f64)),
    };
    let (clients, size) = (thousands(settings.clients as f64), thousands(settings.size as f64));
    let rate = settings.rate.map(|rate| format!(", {rate}/s asked for")).unwrap_or_default();
    format!("{endpoint}: {generators}{clients} clients, {size} bytes, {extent}{rate}\n\n")
}

/// Whether a script can go on with these figures.
fn verdict(args: &LoadArgs, endpoint: &Endpoint, outcomes: &[Outcome]) -> Result<(), Failed> {
    let wrong: u64 = outcomes.iter().map(|outcome| outcome.faults.of(Fault::WrongBytes)).sum();
    if wrong > 0 {
        let wrong = thousands(wrong as f64);
        return Err(Failed::data(format!(
            "{endpoint} sent back something else than it was sent ({wrong} times): is it an echo server?"
        )));
    }
    match outcomes.iter().find(|outcome| outcome.done == 0) {
        Some(empty) => {
            let why = empty.faults.chief().map(|fault| format!(" ({fault})")).unwrap_or_default();
            let phase = empty.phase.name();
            let so = args.during.as_ref().map(|command| format!(", so {command:?} was not run"));
            let what = format!("no echo came from {endpoint} in {phase}{why}{}", so.unwrap_or_default());
            Err(Error::Unavailable(Failure::from(what)).into())
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_how_it_goes() {
        let line = progress(Phase::Churn, Duration::from_millis(2_340), 12_345, 6_789.0, 3);
        assert_eq!(line, "churn: 2.3 s, 12,345 conn, 6,789 conn/s, 3 errors");
    }
}
