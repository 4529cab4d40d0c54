//! Processes and threads over time: a small chart for each server, all with the same
//! scale for their number, and each with its own time.

use super::scale::Scale;
use super::{Anchor, COLOURS, Chart, Drawing, shortened, tick, width_of};
use crate::compare::record::{Entry, Moment, Record};
use crate::load::Phase;

const WIDTH: f64 = 520.0;
const TOP: f64 = 62.0;
const LEFT: f64 = 44.0;
const PANEL: (f64, f64) = (218.0, 84.0);
/// From one panel to the next.
const STEP: (f64, f64) = (238.0, 122.0);

/// A chart of all servers whose processes were seen over time.
pub(in crate::compare::report) fn timeline(record: &Record, name: &str) -> Option<Chart> {
    let seen: Vec<(usize, &Entry)> =
        record.models.iter().enumerate().filter(|(_, entry)| entry.timeline.len() > 1).collect();
    let moments = || seen.iter().flat_map(|(_, entry)| &entry.timeline);
    moments().next()?;
    let most = moments().map(|moment| f64::from(moment.processes.max(moment.threads)));
    // above the highest there is room for the names of phases
    let count = Scale::linear(most, (PANEL.1, 13.0));
    let title = "Processes and threads over time";
    let mut to = Drawing::default();
    to.heading(title, "area: processes; dashed line: threads; seconds since the server was ready");
    let mut told = Vec::new();
    for (k, (number, entry)) in seen.iter().enumerate() {
        let corner = (LEFT + (k % 2) as f64 * STEP.0, TOP + 18.0 + (k / 2) as f64 * STEP.1);
        told.push(panel(&mut to, corner, (*number, entry), &count));
        let is_left = k % 2 == 0;
        for value in [count.ticks.first(), count.ticks.last()].into_iter().flatten().filter(|_| is_left) {
            to.text("tick", (corner.0 - 5.0, corner.1 + count.at(*value) + 4.0), Anchor::End, &tick(*value));
        }
    }
    let description = format!("At most: {}.", told.join("; "));
    let height = TOP + seen.len().div_ceil(2) as f64 * STEP.1;
    Some(Chart { name: name.into(), title: title.into(), description, width: WIDTH, height, body: to.0 })
}

/// Draws a server; says how many processes and threads it had at most.
fn panel(
    to: &mut Drawing,
    (left, top): (f64, f64),
    (number, entry): (usize, &Entry),
    count: &Scale,
) -> String {
    let most = |of: fn(&Moment) -> u32| entry.timeline.iter().map(of).max().unwrap_or(0);
    let (processes, threads) = (most(|moment| moment.processes), most(|moment| moment.threads));
    let label = shortened(&entry.title());
    to.text("label", (left, top - 6.0), Anchor::Start, &label);
    to.text(
        "tick",
        (left + PANEL.0, top - 6.0),
        Anchor::End,
        &format!("≤ {processes} proc., {threads} thr."),
    );
    // who lets clients wait takes longer, and must not make the others' charts too narrow to be read
    let seconds = Scale::linear(entry.timeline.iter().map(|moment| moment.t_s), (0.0, PANEL.0));
    bands(to, (left, top), &entry.timeline, &seconds);
    for value in &count.ticks {
        to.line("grid", (left, top + count.at(*value)), (left + PANEL.0, top + count.at(*value)));
    }
    for value in &seconds.ticks {
        to.text("tick", (left + seconds.at(*value), top + PANEL.1 + 14.0), Anchor::Middle, &tick(*value));
    }
    let at =
        |moment: &Moment, number: u32| (left + seconds.at(moment.t_s), top + count.at(f64::from(number)));
    let floor = top + PANEL.1;
    let mut area: Vec<_> = stepped(entry.timeline.iter().map(|moment| at(moment, moment.processes)));
    let (first, last) =
        (area.first().map_or(left, |point| point.0), area.last().map_or(left, |point| point.0));
    area.push((last, floor));
    area.push((first, floor));
    to.path(&format!("area s{}", number % COLOURS), &area);
    let line = stepped(entry.timeline.iter().map(|moment| at(moment, moment.threads)));
    to.path("threads", &line);
    format!("{label} {processes} processes and {threads} threads")
}

/// Shades each phase in turn, and names those that have room for their names.
fn bands(to: &mut Drawing, (left, top): (f64, f64), moments: &[Moment], seconds: &Scale) {
    let mut runs: Vec<(Phase, f64, f64)> = Vec::new();
    for pair in moments.windows(2) {
        let Some(phase) = pair[0].phase else { continue };
        let (from, until) = (seconds.at(pair[0].t_s), seconds.at(pair[1].t_s));
        match runs.last_mut() {
            Some((last, _, end)) if *last == phase && (*end - from).abs() < 0.5 => *end = until,
            _ => runs.push((phase, from, until)),
        }
    }
    for (k, (phase, from, until)) in runs.into_iter().enumerate() {
        let width = (until - from).max(0.0);
        to.rect(&format!("band b{}", k % 2), (left + from, top), (width, PANEL.1));
        if width_of(phase.name()) * 0.75 < width {
            to.text("tiny", (left + from + width / 2.0, top + 9.0), Anchor::Middle, phase.name());
        }
    }
}

/// What was seen lasts until something else is.
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

    #[test]
    fn steps_have_corners() {
        let steps = stepped([(0.0, 1.0), (1.0, 1.0), (2.0, 5.0)].into_iter());
        assert_eq!(steps, [(0.0, 1.0), (1.0, 1.0), (2.0, 1.0), (2.0, 5.0)]);
    }
}
