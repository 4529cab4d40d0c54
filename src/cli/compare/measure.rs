//! Measures, tells meanwhile how it goes, and lets nothing be lost.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::plan::plan;
use crate::Error;
use crate::cli::args::RunArgs;
use crate::cli::interrupt::Interrupt;
use crate::cli::progress::Line;
use crate::cli::terminal::Terminal;
use forkd_compare::record::{Entry, Record};
use forkd_compare::report::table::live;
use forkd_compare::{Observer, Plan, Step, compare, lock};
use forkd_load::Live;
use forkd_load::text::{micros, thousands};

/// How long the rest may take, once the servers have been killed.
const LAST: Duration = Duration::from_secs(2);

/// Measures; `keep` gets what there is after each model. It returns what there is, also after a signal.
pub(super) fn measure(
    args: &RunArgs,
    keep: impl FnMut(&Record) -> Result<(), Error>,
) -> Result<(Record, Interrupt), Error> {
    let plan = plan(args)?;
    let live = Arc::new(Live::default());
    let interrupt = Interrupt::catch(&live, LAST)?;
    let view = Mutex::new(View { line: Line::default(), stage: None, table: None, begun: Instant::now() });
    if !plan.slo.is_empty() {
        lock(&view).line.tell(&announced(&plan));
    }
    let (over, is_over) = channel::<()>();
    let record = std::thread::scope(|scope| {
        let (view, live, plan) = (&view, &live, &plan);
        let teller = scope.spawn(move || tell(view, plan, live, &is_over));
        let mut told = Told { view, rounds: plan.rounds, keep, is_kept: true };
        let record = compare(plan, super::counters::ask, live, &mut told);
        drop(over);
        let _ = teller.join();
        record
    })?;
    Ok((record, interrupt))
}

/// How long a search takes, before it begins.
fn announced(plan: &Plan) -> String {
    let (runs, limit) = plan.search_limit();
    let count = plan.contestants.len();
    let limit = humantime::format_duration(Duration::from_secs((limit * count as u32).as_secs()));
    let servers = if count == 1 { "the server".to_owned() } else { format!("each of {count} servers") };
    let slo: Vec<String> = plan.slo.iter().map(ToString::to_string).collect();
    format!(
        "looking for the highest rate that keeps {}: at most {runs} runs of {} for {servers}, {limit} in all, and as \
         a rule half of that; then a few runs for each pool",
        slo.join(" and "),
        humantime::format_duration(plan.duration)
    )
}

/// What is shown meanwhile: on a terminal the figures so far and what it is at, elsewhere a line for each turn.
struct View {
    line: Line,
    /// What it is at, and since when.
    stage: Option<(Step, Instant)>,
    /// What there is so far.
    table: Option<Record>,
    begun: Instant,
}

impl View {
    fn show(&mut self, plan: &Plan, done: u64) {
        let Some((step, since)) = &self.stage else { return };
        let width = self.line.width().map(|width| width - 1);
        let table = self.table.as_ref().map(|record| live(record, step.name.as_deref(), width));
        let table = table.map(|table| table + "\n").unwrap_or_default();
        let left = left(step, plan, self.begun.elapsed());
        let progress = progress(step, plan, since.elapsed(), done) + &left;
        self.line.show(&Terminal::new().shown(&(table + &progress)));
    }
}

struct Told<'a, K> {
    view: &'a Mutex<View>,
    rounds: usize,
    keep: K,
    /// Whether all could be kept so far.
    is_kept: bool,
}

impl<K: FnMut(&Record) -> Result<(), Error>> Observer for Told<'_, K> {
    fn begins(&mut self, step: &Step) {
        lock(self.view).stage = Some((step.clone(), Instant::now()));
    }

    fn has(&mut self, name: &str, round: usize, record: &Record) {
        let mut view = lock(self.view);
        view.stage = None;
        let entry = record.models.iter().find(|entry| entry.name == name);
        match view.line.is_replaced() {
            true => view.table = Some(record.clone()),
            false => entry.into_iter().for_each(|entry| {
                let at = if entry.slo.is_some() {
                    format!("run {round}")
                } else {
                    format!("round {round} of {}", self.rounds)
                };
                view.line.show(&format!("{at}: {}", summary(entry)));
            }),
        }
        // what can't be written now is still measured, and shown in the end
        if record.models.iter().any(Entry::has_any)
            && let Err(error) = (self.keep)(record)
            && std::mem::take(&mut self.is_kept)
        {
            view.line.tell(&format!("forkd: {}; it goes on", error.sentence()));
        }
    }
}

/// Says how it goes, where that can be replaced, until it is over.
fn tell(view: &Mutex<View>, plan: &Plan, live: &Live, is_over: &Receiver<()>) {
    let (is_replaced, interval) = {
        let view = lock(view);
        (view.line.is_replaced(), view.line.interval())
    };
    while is_replaced && is_over.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
        lock(view).show(plan, live.done());
    }
}

fn progress(step: &Step, plan: &Plan, elapsed: Duration, done: u64) -> String {
    let Step { round, turn, name, phase, clients, rate } = step;
    let at = match name {
        Some(name) if let Some(rate) = rate => {
            format!("{name}: run {round}, {} connections per second", thousands(*rate))
        }
        Some(name) => format!("turn {turn} of {}: {name}", turns(plan)),
        None => format!("round {round} of {}: calibration", plan.rounds),
    };
    let (seconds, done, clients) =
        (elapsed.as_secs_f64(), thousands(done as f64), thousands(*clients as f64));
    let (phase, unit) = (phase.name(), phase.unit());
    format!("{at}: {phase}, {clients} clients: {seconds:.1} s, {done} {unit}")
}

/// How long the rest will take, if its turns take as long as those that are over.
fn left(step: &Step, plan: &Plan, elapsed: Duration) -> String {
    // a search is over when it has found
    if step.rate.is_some() {
        return String::new();
    }
    let over = step.turn - 1;
    let rest = elapsed.as_secs_f64() * (turns(plan).saturating_sub(over)) as f64 / over.max(1) as f64;
    if over == 0 { String::new() } else { format!("; about {rest:.0} s left") }
}

fn turns(plan: &Plan) -> usize {
    plan.rounds * plan.contestants.len()
}

/// As in "fork: hold 100 of 100, churn 6,123 conn/s".
fn summary(entry: &Entry) -> String {
    if let Some(why) = &entry.failure {
        return format!("{}: {why}", entry.title());
    }
    if let Some(trial) = entry.slo.as_ref().and_then(|sought| sought.trials.last()) {
        let latencies: Vec<String> =
            trial.latency_us.iter().map(|(name, us)| format!("{name} {}", micros(*us))).collect();
        if let Some(check) = entry.slo.as_ref().and_then(|sought| sought.checks.last()) {
            let verb = if check.kept { "kept it" } else { "did not" };
            let plural = if check.workers == 1 { "" } else { "s" };
            return format!("{}: {} worker{plural} {verb} at its highest rate", entry.title(), check.workers);
        }
        let verb = if trial.kept { "kept" } else { "too high" };
        return format!("{}: {}/s {verb}, {}", entry.title(), thousands(trial.rate), latencies.join(", "));
    }
    let rate =
        |phase: &str, rate: Option<f64>, unit: &str| Some(format!("{phase} {} {unit}", thousands(rate?)));
    let held = entry.hold.as_ref().and_then(|hold| {
        let hold = hold.rounds.last()?;
        Some(format!("hold {} of {}", thousands(hold.served?), thousands(hold.clients?)))
    });
    let parts = [
        held,
        entry.churn.as_ref().and_then(|churn| rate("churn", churn.rounds.last()?.conn_per_s, "conn/s")),
        entry.pingpong.as_ref().and_then(|some| rate("pingpong", some.rounds.last()?.req_per_s, "req/s")),
        entry.bulk.as_ref().and_then(|bulk| rate("bulk", bulk.rounds.last()?.mb_per_s, "MB/s")),
        entry
            .datagrams
            .as_ref()
            .and_then(|some| rate("datagrams", some.rounds.last()?.datagrams_per_s, "datagrams/s")),
    ];
    format!("{}: {}", entry.title(), parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use forkd_compare::record::{Check, Churn, Hold, Measured, Sought, Trial};
    use forkd_load::Phase;

    #[test]
    fn a_line_tells_how_it_goes() {
        let step = Step {
            round: 2,
            turn: 12,
            name: Some("fork".into()),
            phase: Phase::Churn,
            clients: 1000,
            rate: None,
        };
        let line = |step: &Step| progress(step, &Plan::default(), Duration::from_millis(240), 12_345);
        assert_eq!(left(&step, &Plan::default(), Duration::from_secs(11)), "; about 21 s left");
        assert_eq!(left(&Step { turn: 1, ..step.clone() }, &Plan::default(), Duration::from_secs(1)), "");
        assert_eq!(line(&step), "turn 12 of 32: fork: churn, 1,000 clients: 0.2 s, 12,345 conn");
        let step = Step { name: None, ..step };
        assert!(line(&step).starts_with("round 2 of 4: calibration: churn, "), "{}", line(&step));
    }

    #[test]
    fn a_turn_comes_to_a_line() {
        let hold = Hold { served: Some(8.0), clients: Some(100.0), ..Hold::default() };
        let churn = Churn { conn_per_s: Some(6123.4), ..Churn::default() };
        let mut entry = Entry {
            name: "prefork".into(),
            workers: Some(8),
            hold: Measured::of(vec![hold], Vec::new()),
            churn: Measured::of(vec![churn], Vec::new()),
            ..Entry::default()
        };
        assert_eq!(summary(&entry), "prefork ×8: hold 8 of 100, churn 6,123 conn/s");
        let trial = Trial {
            rate: 4000.0,
            latency_us: [("p99".into(), 1230.0)].into(),
            kept: true,
            ..Trial::default()
        };
        let check = Check { workers: 4, kept: false, trials: Vec::new() };
        let mut sought = Sought { trials: vec![trial], ..Sought::default() };
        entry.slo = Some(sought.clone());
        assert_eq!(summary(&entry), "prefork ×8: 4,000/s kept, p99 1.23 ms");
        sought.checks.push(check);
        entry.slo = Some(sought);
        assert_eq!(summary(&entry), "prefork ×8: 4 workers did not at its highest rate");
        entry.failure = Some("it has ended".into());
        assert_eq!(summary(&entry), "prefork ×8: it has ended");
    }
}
