//! Draws a [`Model`]. What does not fit is left out, the least important first.

mod charts;
mod fit;
mod tables;

use std::collections::BTreeMap;
use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Wrap};

use super::model::Model;
use crate::daemon::rates::Rate;
use crate::daemon::status::short;

/// Smaller terminals have no charts.
const LINES_FOR_CHARTS: u16 = 20;
const COLUMNS_FOR_CHARTS: u16 = 20;
const LINES_OF_CHARTS: u16 = 8;
/// Terminals with fewer lines have no table of listeners.
const LINES_FOR_LISTENERS: u16 = 8;

const KEYS: [(&str, &str); 9] = [
    ("q, Ctrl-C, Ctrl-D", "quit"),
    ("p, space", "pause, and go on"),
    ("left, right", "sort by another column"),
    ("r", "sort the other way round"),
    ("/", "filter: a pid, state, peer, listener, status"),
    ("Esc", "show all children again"),
    ("up, down, k, j", "scroll by a line"),
    ("PgUp, PgDn, Home, End", "scroll by a page, or to an end"),
    ("?, h", "this help; any key ends it"),
];
/// The column of keys.
const KEY: usize = 22;

/// Draws all; returns how many children fit.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model) -> usize {
    let area = frame.area();
    let has_charts = area.height >= LINES_FOR_CHARTS && area.width >= COLUMNS_FOR_CHARTS;
    let charts = if has_charts { LINES_OF_CHARTS } else { 0 };
    // a quarter of the terminal at most: it is the children that there are many of
    let most = if area.height >= LINES_FOR_LISTENERS { area.height / 4 + 1 } else { 0 };
    let listeners = model.status.as_ref().map_or(0, tables::height_of_listeners);
    let heights = [1, charts, (listeners as u16).min(most)].map(Constraint::Length);
    let rest = [Constraint::Fill(1), Constraint::Length(1)];
    let [head, middle, table, children, foot] = Layout::vertical(heights.into_iter().chain(rest)).areas(area);
    frame.render_widget(fit::pieces(headline(model), area.width.into()), head);
    if has_charts {
        charts::draw(frame, model, middle);
    }
    if let Some(status) = &model.status {
        if table.height > 0 {
            tables::draw_listeners(frame, model, status, table);
        }
        tables::draw_children(frame, model, status, children);
        if model.silence().is_some() {
            for area in [table, children] {
                frame.buffer_mut().set_style(area, Style::new().dim());
            }
        }
    }
    let page = usize::from(children.height.saturating_sub(1));
    draw_foot(frame, model, page, foot);
    if model.shows_help {
        draw_help(frame, area);
    }
    page
}

fn headline(model: &Model) -> Vec<Span<'static>> {
    let Some(status) = &model.status else { return Vec::new() };
    let Rate { connections, forks, bytes_in, bytes_out, .. } =
        model.rates.as_ref().map(|rates| rates.total()).unwrap_or_default();
    let mut states: BTreeMap<&str, u32> = BTreeMap::new();
    status.children.iter().for_each(|child| *states.entry(&child.state).or_default() += 1);
    let mut spans = vec![Span::from(format!("forkd {}  ", status.pid)).bold()];
    // what is shown was so, and may be no more
    let silence = model.silence();
    let flags = [
        silence.map(|seconds| format!("NO ANSWER for {}", uptime(seconds as f64))),
        model.is_paused.then(|| "PAUSED".into()),
        // of an older daemon it is not known
        (!["", "running"].contains(&&*status.phase)).then(|| status.phase.to_uppercase()),
    ];
    for flag in flags.into_iter().flatten() {
        spans.extend([Span::from(flag).reversed(), Span::from("  ")]);
    }
    let had = if silence.is_some() { "had " } else { "" };
    spans.push(Span::from(format!("{had}{} children", status.children.len())));
    let separators = [": "].into_iter().chain(std::iter::repeat(", "));
    spans.extend(
        states.iter().zip(separators).map(|((state, n), before)| format!("{before}{n} {state}").into()),
    );
    if silence.is_some() {
        return spans;
    }
    let knows_clients = status.listeners.iter().any(|listener| listener.knows_clients);
    let figures = [
        Some(format!("  up {}", uptime(status.uptime_s))),
        knows_clients.then(|| format!("  {connections:.1} conn/s")),
        Some(format!("  {forks:.1} forks/s")),
        knows_clients.then(|| format!("  {}B/s in", short(bytes_in))),
        knows_clients.then(|| format!("  {}B/s out", short(bytes_out))),
    ];
    spans.extend(figures.into_iter().flatten().map(Span::from));
    spans
}

/// What is to be said or done, and which children are shown where not all are.
fn draw_foot(frame: &mut Frame<'_>, model: &Model, page: usize, area: Rect) {
    let (first, shown) = model.shown(page);
    let (last, all) = (first + shown.len(), model.rows.len());
    let place = match shown.len() {
        n if n == all || model.problem.is_some() => String::new(),
        0 => format!(" 0 of {all} "),
        _ => format!(" {}-{last} of {all} ", first + 1),
    };
    let [left, right] =
        Layout::horizontal([Constraint::Fill(1), Constraint::Length(place.len() as u16)]).areas(area);
    frame.render_widget(footline(model, left.width.into()), left);
    frame.render_widget(Line::from(place).reversed(), right);
}

fn footline(model: &Model, room: usize) -> Line<'static> {
    if let Some(problem) = &model.problem {
        let text = fit::cut(&format!("{problem}; asking again"), room);
        return Line::from(text).style(Style::new().fg(Color::Red)).bold();
    }
    if model.is_typing {
        // it is the end of it that is being typed
        let hidden = (model.filter.chars().count() + 2).saturating_sub(room);
        let filter: String = model.filter.chars().skip(hidden).collect();
        return Line::from(vec!["/".into(), Span::from(filter), Span::from(" ").reversed()]);
    }
    let filter = (!model.filter.is_empty()).then(|| format!("filter: {}  ", model.filter));
    let filter = filter.map(|text| Span::from(fit::cut(&text, room)).bold());
    let room = room - filter.as_ref().map_or(0, |filter| filter.content.chars().count());
    let rest = match model.news() {
        Some(news) => Line::from(fit::cut(news, room)).style(Style::new().fg(Color::Yellow)).bold(),
        None => {
            let keys = ["q quit  ", "? help  ", "/ filter  ", "p pause  ", "left/right sort  ", "r reverse"];
            fit::pieces(keys.map(Span::from), room).dim()
        }
    };
    let style = rest.style;
    filter.into_iter().chain(rest.spans.into_iter().map(|span| span.patch_style(style))).collect()
}

fn draw_help(frame: &mut Frame<'_>, area: Rect) {
    let lines: Vec<String> = KEYS.iter().map(|(key, what)| format!("{key:KEY$}{what}")).collect();
    let longest = lines.iter().map(String::len).max().unwrap_or(0) as u16;
    let width = area.width.min(longest + 2);
    // words that move to the next line may fill one line more
    let inner = usize::from(width.saturating_sub(2)).max(1);
    let height: usize =
        lines.iter().map(|line| if line.len() <= inner { 1 } else { line.len().div_ceil(inner) + 1 }).sum();
    let height = area.height.min(height as u16 + 2);
    let middle =
        Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    let text = Paragraph::new(lines.into_iter().map(Line::from).collect::<Vec<_>>());
    frame.render_widget(Clear, middle);
    frame.render_widget(text.wrap(Wrap { trim: false }).block(Block::bordered().title("Keys")), middle);
}

/// Its two largest units: `3s`, `1m 1s`, `12days 3h`.
fn uptime(seconds: f64) -> String {
    let text = humantime::format_duration(Duration::from_secs(seconds as u64)).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// Seconds in a few characters: `1.5s`, `1000s`, `12d`.
fn age(seconds: f64) -> String {
    match seconds {
        s if s < 999.95 => format!("{s:.1}s"),
        s if s < 999_999.5 => format!("{s:.0}s"),
        s => format!("{:.0}d", s / 86_400.0),
    }
}

/// A number of things, or of events per second: `2000`, `1.5`.
fn count(n: f64) -> String {
    if n.fract() == 0.0 || n >= 99.95 { format!("{n:.0}") } else { format!("{n:.1}") }
}

#[cfg(test)]
mod tests;
