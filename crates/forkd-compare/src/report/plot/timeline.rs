//! Processes and threads over time: a panel for each server whose number changes, all with the same axes.
//!
//! Each phase has the same width, however long it took: so phases of all servers stand below each other, and
//! one that is over in a moment is seen, too.

use super::scale::Scale;
use super::{Anchor, COLOURS, Chart, Drawing, WIDTH, numbered, shortened, tick, width_of};
use crate::record::{Entry, Moment, Record, Settings};
use forkd_load::Phase;
use forkd_load::text::{listed, thousands};

const TOP: f64 = 62.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 14.0;
/// The width of a phase: that of its name, if all of them have room on a page.
const COLUMN: f64 = 58.0;
const PAGE: f64 = 1100.0;
const PANEL: f64 = 78.0;
/// From one panel to the next.
const STEP: f64 = PANEL + 32.0;

/// A phase with one number of clients, or with one stream: what all servers went through, one after the other.
type Column = (Phase, Option<usize>);

/// A chart of all servers whose processes were seen over time; `None` if none of them changes.
pub(in crate::report) fn timeline(record: &Record, name: &str) -> Option<Chart> {
    let columns = columns(&record.settings);
    let seen: Vec<(usize, &Entry, Vec<Run>)> = numbered(record)
        .map(|(number, entry)| (number, entry, runs(&entry.timeline, &columns)))
        .filter(|(_, _, runs)| !runs.is_empty())
        .collect();
    let (still, moving): (Vec<_>, Vec<_>) =
        seen.into_iter().partition(|(_, _, runs)| counts(runs).len() == 1);
    let all = moving.iter().flat_map(|(_, _, runs)| counts(runs));
    let most = || all.clone().map(|(processes, threads)| f64::from(processes.max(threads)));
    most().next()?;
    let is_sweep = record.settings.clients.len() > 1;
    // the numbers of a sweep are far apart
    let scale = |values: &mut dyn Iterator<Item = f64>| match is_sweep {
        true => Scale::log(values.chain([1.0]), (PANEL, 4.0)),
        false => Scale::linear(values, (PANEL, 4.0)),
    };
    let count = scale(&mut most());
    let width = (LEFT + RIGHT + columns.len() as f64 * COLUMN).clamp(WIDTH, PAGE);
    let axes = Axes { count, column: (width - LEFT - RIGHT) / columns.len() as f64, columns: &columns };
    let title = "Processes and threads over time";
    let mut to = Drawing::default();
    to.heading(title, "area: processes; dashed: threads; every phase is as wide, however long it took");
    let top = if is_sweep { TOP + 36.0 } else { TOP + 20.0 };
    axes.heads(&mut to, is_sweep);
    let mut told = Vec::new();
    for (k, (number, entry, runs)) in moving.iter().enumerate() {
        let label = shortened(&entry.title());
        told.push(axes.panel(&mut to, top + 12.0 + k as f64 * STEP, (*number, &label), runs));
    }
    let notes = stills(&still);
    let bottom = top + moving.len() as f64 * STEP - 8.0;
    let height = to.notes(&notes, bottom, width).max(bottom + 8.0);
    let description = format!("Seen at most: {}.", [told, notes].concat().join("; "));
    Some(Chart { name: name.into(), title: title.into(), description, width, height, body: to.0 })
}

/// What servers went through, in its order.
fn columns(settings: &Settings) -> Vec<Column> {
    let most = settings.clients.iter().max().copied();
    let is_once = |phase: &Phase| matches!(phase, Phase::Bulk | Phase::Datagrams);
    let of = |clients: &usize| {
        let phases = settings.phases.iter().filter(|phase| Some(*clients) == most || !is_once(phase));
        phases.map(|phase| (*phase, (*phase != Phase::Bulk).then_some(*clients))).collect::<Vec<_>>()
    };
    settings.clients.iter().flat_map(of).collect()
}

/// What was seen of a server in a column.
struct Run {
    column: usize,
    moments: Vec<Moment>,
    /// When it was over.
    until: f64,
}

/// Finds out to which column each moment belongs; a phase may be over before the first look.
fn runs(moments: &[Moment], columns: &[Column]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut last: Option<&Moment> = None;
    for moment in moments {
        // the count of what is done begins anew with each phase
        let goes_on = last.is_some_and(|last| last.phase == moment.phase && last.done <= moment.done);
        if let (Some(run), Some(last)) = (runs.last_mut(), last)
            && last.phase.is_some()
        {
            run.until = moment.t_s;
        }
        if let (Some(phase), false) = (moment.phase, goes_on) {
            let next = runs.last().map_or(0, |run| run.column + 1);
            let Some(more) = columns.iter().skip(next).position(|column| column.0 == phase) else { break };
            runs.push(Run { column: next + more, moments: Vec::new(), until: moment.t_s });
        }
        if let (Some(_), Some(run)) = (moment.phase, runs.last_mut()) {
            run.moments.push(*moment);
        }
        last = Some(moment);
    }
    runs
}

/// The numbers of processes and threads that were seen, each once.
fn counts(runs: &[Run]) -> Vec<(u32, u32)> {
    let moments = runs.iter().flat_map(|run| &run.moments);
    let mut counts: Vec<_> = moments.map(|moment| (moment.processes, moment.threads)).collect();
    counts.sort_unstable();
    counts.dedup();
    counts
}

/// Says of those that never change what they have.
fn stills(servers: &[(usize, &Entry, Vec<Run>)]) -> Vec<String> {
    let mut all: Vec<((u32, u32), Vec<String>)> = Vec::new();
    for (_, entry, runs) in servers {
        let (Some(count), title) = (counts(runs).first().copied(), shortened(&entry.title())) else {
            continue;
        };
        match all.iter_mut().find(|(other, _)| *other == count) {
            Some((_, titles)) => titles.push(title),
            None => all.push((count, vec![title])),
        }
    }
    all.sort();
    all.into_iter().map(|(count, titles)| format!("always {}: {}", told(count), listed(&titles))).collect()
}

fn told((processes, threads): (u32, u32)) -> String {
    let of = |count: u32, one: &str, many: &str| {
        format!("{} {}", thousands(count.into()), if count == 1 { one } else { many })
    };
    format!("{}, {}", of(processes, "process", "processes"), of(threads, "thread", "threads"))
}

/// What all panels share.
struct Axes<'a> {
    count: Scale,
    column: f64,
    columns: &'a [Column],
}

impl Axes<'_> {
    fn left(&self, column: usize) -> f64 {
        LEFT + column as f64 * self.column
    }

    /// Columns of one number of clients, as the first of them and how many there are.
    fn groups(&self) -> Vec<(usize, usize)> {
        let mut groups: Vec<(usize, usize)> = Vec::new();
        for (k, (_, clients)) in self.columns.iter().enumerate() {
            match groups.last_mut() {
                Some((first, count)) if self.columns[*first].1 == *clients => *count += 1,
                _ => groups.push((k, 1)),
            }
        }
        groups
    }

    /// Names phases, and in a sweep the numbers of clients.
    fn heads(&self, to: &mut Drawing, is_sweep: bool) {
        let top = if is_sweep { TOP + 16.0 } else { TOP };
        for (first, count) in self.groups().into_iter().filter(|_| is_sweep) {
            let Some(clients) = self.columns[first].1 else { continue };
            let clients = match clients {
                1 => "1 client".into(),
                _ if count == 1 => thousands(clients as f64),
                _ => format!("{} clients", thousands(clients as f64)),
            };
            let middle = self.left(first) + count as f64 * self.column / 2.0;
            to.text("head", (middle, TOP), Anchor::Middle, &clients);
        }
        let fits = |phase: Phase| width_of(phase.name()) * 0.9 < self.column;
        for (k, (phase, _)) in self.columns.iter().enumerate().filter(|(_, column)| fits(column.0)) {
            to.text("tick", (self.left(k) + self.column / 2.0, top), Anchor::Middle, phase.name());
        }
    }

    /// Draws a server; says how many processes and threads it had at most.
    fn panel(&self, to: &mut Drawing, top: f64, (number, label): (usize, &str), runs: &[Run]) -> String {
        let right = self.left(self.columns.len());
        let moments = || runs.iter().flat_map(|run| &run.moments);
        let most = |of: fn(&Moment) -> u32| moments().map(of).max().unwrap_or(0);
        // there may have been more between two looks
        let seen = told((most(|moment| moment.processes), most(|moment| moment.threads)));
        to.text("head", (LEFT, top - 6.0), Anchor::Start, label);
        to.text("tick", (right, top - 6.0), Anchor::End, &format!("seen: {seen}"));
        for column in 0..self.columns.len() {
            let class = format!("band b{}", column % 2);
            to.rect(&class, (self.left(column), top), (self.column, PANEL));
        }
        for value in &self.count.ticks {
            let y = top + self.count.at(*value);
            to.line("grid", (LEFT, y), (right, y));
            if value.fract() == 0.0 {
                to.text("tick", (LEFT - 6.0, y + 4.0), Anchor::End, &tick(*value));
            }
        }
        for (first, _) in self.groups().into_iter().skip(1) {
            to.line("edge", (self.left(first), top), (self.left(first), top + PANEL));
        }
        let place = |number: u32| top + self.count.at(f64::from(number));
        for chain in chains(runs) {
            let mut area = self.steps(chain, |moment| place(moment.processes));
            let ends = (area.first().map_or(LEFT, |p| p.0), area.last().map_or(LEFT, |p| p.0));
            area.extend([(ends.1, top + PANEL), (ends.0, top + PANEL)]);
            to.path(&format!("area s{}", number % COLOURS), &area);
            to.path("threads", &self.steps(chain, |moment| place(moment.threads)));
        }
        format!("{label} {seen}")
    }

    /// The corners of a line: what was seen lasts until something else is.
    fn steps(&self, runs: &[Run], y: impl Fn(&Moment) -> f64) -> Vec<(f64, f64)> {
        let mut points: Vec<(f64, f64)> = Vec::new();
        for run in runs {
            let from = run.moments.first().map_or(0.0, |moment| moment.t_s);
            let time = Scale::even(from, run.until, (self.left(run.column), self.left(run.column + 1)));
            let ends = run.moments.last().map(|last| (self.left(run.column + 1), y(last)));
            points.extend(run.moments.iter().map(|moment| (time.at(moment.t_s), y(moment))).chain(ends));
        }
        stepped(points.into_iter())
    }
}

/// Runs that have no gap between them.
fn chains(runs: &[Run]) -> impl Iterator<Item = &[Run]> {
    runs.chunk_by(|one, next| one.column + 1 == next.column)
}

fn stepped(points: impl Iterator<Item = (f64, f64)>) -> Vec<(f64, f64)> {
    let mut steps: Vec<(f64, f64)> = Vec::new();
    for (x, y) in points {
        if let Some((_, last)) = steps.last().copied()
            && last != y
        {
            steps.push((x, last));
        }
        steps.push((x, y));
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn steps_have_corners() {
        let steps = stepped([(0.0, 1.0), (1.0, 1.0), (2.0, 5.0)].into_iter());
        assert_eq!(steps, [(0.0, 1.0), (1.0, 1.0), (2.0, 1.0), (2.0, 5.0)]);
    }

    #[test]
    fn each_moment_belongs_to_a_phase() {
        let settings = Settings {
            phases: vec![Phase::Hold, Phase::Churn, Phase::Bulk],
            clients: vec![1, 10],
            ..Settings::default()
        };
        let columns = columns(&settings);
        assert_eq!(columns.len(), 5, "there is one stream, with the most clients: {columns:?}");
        let moment = |t_s, phase, done| Moment { t_s, phase: Some(phase), processes: 2, threads: 2, done };
        // there was no look while ten were held
        let moments = [
            moment(0.0, Phase::Hold, 0),
            moment(1.0, Phase::Churn, 3),
            moment(2.0, Phase::Churn, 9),
            moment(3.0, Phase::Churn, 4),
            moment(4.0, Phase::Bulk, 1),
        ];
        let found: Vec<_> =
            runs(&moments, &columns).iter().map(|run| (run.column, run.moments.len(), run.until)).collect();
        assert_eq!(found, [(0, 1, 1.0), (1, 2, 3.0), (3, 1, 4.0), (4, 1, 4.0)]);
    }

    #[test]
    fn who_never_changes_is_named() {
        let mut record = sample::record();
        for entry in &mut record.models {
            entry.timeline.iter_mut().for_each(|moment| moment.phase = Some(Phase::Hold));
        }
        let drawn = timeline(&record, "it").unwrap().svg(None);
        assert!(drawn.contains("always 2 processes, 2 threads: iterative and event<"), "{drawn}");
        assert!(drawn.contains("seen: 101 processes, 101 threads"), "{drawn}");
    }
}
