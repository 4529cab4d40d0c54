//! Draws a [`Model`]. What does not fit is left out, the least important first.

use std::collections::BTreeMap;
use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Block, Cell, Chart, Clear, Dataset, GraphType, Paragraph, Row, Table};

use super::model::{Column, Model, Point, REMEMBERED};
use crate::daemon::rates::Rate;
use crate::daemon::status::{ChildStatus, ListenerStatus, Status};

/// Terminals with fewer lines have no charts.
const LINES_FOR_CHARTS: u16 = 20;
const LINES_OF_CHARTS: u16 = 8;

const KEYS: [(&str, &str); 9] = [
    ("q, Ctrl-C, Ctrl-D", "quit"),
    ("p, space", "pause, and go on"),
    ("left, right", "sort by another column"),
    ("r", "sort the other way round"),
    ("/", "show only children with this text: a pid, state, peer or listener"),
    ("Esc", "show all children again"),
    ("up, down, k, j", "scroll by a line"),
    ("PgUp, PgDn, Home, End", "scroll by a page, to the first, to the last"),
    ("?, h", "this help; any key ends it"),
];

/// Draws all; returns how many children fit.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model) -> usize {
    let area = frame.area();
    let charts = if area.height >= LINES_FOR_CHARTS { LINES_OF_CHARTS } else { 0 };
    let lines = |l: &ListenerStatus| 1 + usize::from(losses(l).is_some());
    let listeners: usize = model.status.iter().flat_map(|status| &status.listeners).map(lines).sum();
    // a quarter of the terminal at most: it is the children that there are many of
    let listeners = (listeners as u16).min((area.height / 4).max(1)) + 1;
    let heights = [1, charts, listeners].map(Constraint::Length);
    let rest = [Constraint::Fill(1), Constraint::Length(1)];
    let [head, middle, table, children, foot] = Layout::vertical(heights.into_iter().chain(rest)).areas(area);
    frame.render_widget(headline(model), head);
    if charts > 0 {
        draw_charts(frame, model, middle);
    }
    if let Some(status) = &model.status {
        draw_listeners(frame, model, status, table);
        draw_children(frame, model, status, children);
    }
    frame.render_widget(footline(model), foot);
    if model.shows_help {
        draw_help(frame, area);
    }
    usize::from(children.height.saturating_sub(1))
}

fn headline(model: &Model) -> Line<'_> {
    let Some(status) = &model.status else { return Line::default() };
    let uptime = humantime::format_duration(Duration::from_secs(status.uptime_s as u64));
    let Rate { connections, forks, bytes_in, bytes_out } =
        model.rates.as_ref().map(|rates| rates.total()).unwrap_or_default();
    let mut states: BTreeMap<&str, u32> = BTreeMap::new();
    status.children.iter().for_each(|child| *states.entry(&child.state).or_default() += 1);
    let states: Vec<String> = states.iter().map(|(state, n)| format!("{n} {state}")).collect();
    let mut spans = vec![
        Span::from(format!("forkd {} ", status.pid)).bold(),
        Span::from(format!("up {uptime}  ")),
        Span::from(format!(
            "{connections:.1} conn/s  {forks:.1} forks/s  {}B/s in  {}B/s out  ",
            short(bytes_in),
            short(bytes_out)
        )),
        Span::from(format!("{} children: {}", status.children.len(), states.join(", "))),
    ];
    if model.is_paused {
        spans.insert(1, Span::from("PAUSED ").reversed());
    }
    Line::from(spans)
}

fn footline(model: &Model) -> Line<'_> {
    if let Some(problem) = &model.problem {
        return Line::from(format!("{problem}; asking again")).style(Style::new().fg(Color::Red)).bold();
    }
    if model.is_typing {
        return Line::from(vec!["/".into(), Span::from(&*model.filter), Span::from(" ").reversed()]);
    }
    let mut line = match model.news() {
        Some(news) => Line::from(news).style(Style::new().fg(Color::Yellow)).bold(),
        None => Line::from("q quit  ? help  / filter  p pause  left/right sort  r reverse").dim(),
    };
    if !model.filter.is_empty() {
        line.spans.insert(0, Span::from(format!("filter: {}  ", model.filter)).bold());
    }
    line
}

fn draw_charts(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let line = |of: fn(&Point) -> f64| -> Vec<(f64, f64)> {
        let last = model.history.back().map_or(0.0, |point| point.at);
        model.history.iter().map(|point| (point.at - last, of(point))).collect()
    };
    let charts = [
        &[
            ("children", line(|p| p.children)),
            ("threads", line(|p| p.threads)),
            ("serving", line(|p| p.serving)),
        ][..],
        &[("conn/s", line(|p| p.rate.connections)), ("forks/s", line(|p| p.rate.forks))],
        &[("B/s in", line(|p| p.rate.bytes_in)), ("out", line(|p| p.rate.bytes_out))],
    ];
    let areas = Layout::horizontal([Constraint::Fill(1); 3]).spacing(1).split(area);
    charts.iter().zip(areas.iter()).for_each(|(lines, &area)| draw_chart(frame, model, area, lines));
}

/// A few lines of one unit over time.
fn draw_chart(frame: &mut Frame<'_>, model: &Model, area: Rect, lines: &[(&str, Vec<(f64, f64)>)]) {
    let styles = [Color::Cyan, Color::Magenta, Color::Yellow].map(|color| Style::new().fg(color));
    let most = lines.iter().flat_map(|(_, points)| points).map(|(_, y)| *y).fold(1.0, f64::max);
    // as much as has been seen, up to what is remembered
    let seen =
        model.history.back().zip(model.history.front()).map_or(0.0, |(last, first)| last.at - first.at);
    let longest = model.interval.as_secs_f64() * REMEMBERED as f64;
    let window = seen.clamp(model.interval.as_secs_f64() * 60.0, longest.max(60.0));
    let title: Vec<Span<'_>> = lines
        .iter()
        .zip(styles)
        .flat_map(|((name, points), style)| {
            let now = points.last().map_or(0.0, |(_, y)| *y);
            [Span::styled(format!("{name} {} ", short(now)), style), Span::raw(" ")]
        })
        .collect();
    let datasets = lines.iter().zip(styles).map(|((_, points), style)| {
        Dataset::default().marker(Marker::Braille).graph_type(GraphType::Line).style(style).data(points)
    });
    let chart = Chart::new(datasets.collect())
        .block(Block::new().title(Line::from(title)))
        .x_axis(
            Axis::default().bounds([-window, 0.0]).labels([format!("-{}s", window.round()), "now".into()]),
        )
        .y_axis(Axis::default().bounds([0.0, most]).labels(["0".into(), short(most)]));
    frame.render_widget(chart, area);
}

/// A line for each listener, and one for those that it has turned away and lost.
fn draw_listeners(frame: &mut Frame<'_>, model: &Model, status: &Status, area: Rect) {
    let longest = status.listeners.iter().map(|l| l.endpoint.len()).max().unwrap_or(0);
    let width = longest.clamp(8, usize::from(area.width / 3).max(8));
    let head = ["SERVICE", "MODEL", "ALIVE", "PEAK", "CONN/S", "IN/S", "OUT/S"];
    let row = |name: &str, cells: [String; 7]| {
        let [service, model, alive, peak, conns, bytes_in, bytes_out] = cells;
        format!(
            "{name:width$.width$} {service:8} {model:9} {alive:6} {peak:6} {conns:8} {bytes_in:7} {bytes_out}"
        )
    };
    let mut lines = vec![Line::from(row("LISTENER", head.map(str::to_owned))).underlined()];
    for (at, l) in status.listeners.iter().enumerate().take(usize::from(area.height)) {
        let rate =
            model.rates.as_ref().and_then(|rates| rates.listeners.get(at)).copied().unwrap_or_default();
        let rates = [format!("{:.1}", rate.connections), short(rate.bytes_in), short(rate.bytes_out)];
        let [conns, bytes_in, bytes_out] = rates;
        let [alive, peak] = [l.alive, l.peak].map(|n| n.to_string());
        let cells = [l.service.clone(), l.model.clone(), alive, peak, conns, bytes_in, bytes_out];
        lines.push(Line::from(row(&l.endpoint, cells)));
        lines.extend(losses(l).map(|text| Line::from(format!("  {text}")).dim()));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

/// Whom a listener has turned away, and how its children have ended.
fn losses(l: &ListenerStatus) -> Option<String> {
    let counts = |what: &str, counts: &BTreeMap<String, u64>| {
        let counts: Vec<String> = counts.iter().map(|(cause, n)| format!("{cause}={n}")).collect();
        (!counts.is_empty()).then(|| format!("{what}: {}", counts.join(" ")))
    };
    let all = [counts("refused", &l.refused), counts("deaths", &l.deaths)];
    let all: Vec<String> = all.into_iter().flatten().collect();
    (!all.is_empty()).then(|| all.join("  "))
}

fn draw_children(frame: &mut Frame<'_>, model: &Model, status: &Status, area: Rect) {
    let (first, shown) = model.shown(usize::from(area.height.saturating_sub(1)));
    let rows = shown.iter().map(|&at| child(&status.children[at], model.rate_of_child(at)));
    let heads = Column::ALL.map(|column| {
        let name = column.name();
        match (column == model.sort, model.is_descending) {
            (false, _) => Cell::from(name),
            (true, false) => Cell::from(format!("{name}^")).bold().reversed(),
            (true, true) => Cell::from(format!("{name}v")).bold().reversed(),
        }
    });
    // with 80 columns there is room for an address of IPv4, and its port
    let widths = Column::ALL.map(|column| match column {
        Column::Listener => Constraint::Fill(1),
        Column::Peer => Constraint::Length(21),
        Column::State | Column::Serving | Column::Threads => Constraint::Length(8),
        Column::Pid | Column::Age | Column::Connections => Constraint::Length(7),
        Column::BytesOut => Constraint::Length(6),
        Column::BytesIn => Constraint::Length(5),
    });
    let head = Row::new(heads).style(Style::new().add_modifier(Modifier::UNDERLINED));
    frame.render_widget(Table::new(rows, widths).header(head), area);
    let (last, all) = (first + shown.len(), model.rows.len());
    if shown.len() < all {
        let text = format!(" {}-{last} of {all} ", first + 1);
        let width = (text.len() as u16).min(area.width);
        let corner = Rect { x: area.right() - width, y: area.y, width, height: area.height.min(1) };
        frame.render_widget(Line::from(text).reversed(), corner);
    }
}

impl Column {
    fn name(self) -> &'static str {
        match self {
            Self::Pid => "PID",
            Self::State => "STATE",
            Self::Serving => "SERVING",
            Self::Threads => "THREADS",
            Self::Age => "AGE",
            Self::Connections => "CONNS",
            Self::BytesIn => "IN/S",
            Self::BytesOut => "OUT/S",
            Self::Peer => "PEER",
            Self::Listener => "LISTENER",
        }
    }
}

fn child(c: &ChildStatus, rate: Rate) -> Row<'_> {
    let cells = Column::ALL.map(|column| match column {
        Column::Pid => c.pid.to_string(),
        Column::State => c.state.clone(),
        Column::Serving => c.serving.to_string(),
        Column::Threads => c.threads.to_string(),
        Column::Age => age(c.age_s),
        Column::Connections => c.connections.to_string(),
        Column::BytesIn => short(rate.bytes_in),
        Column::BytesOut => short(rate.bytes_out),
        Column::Peer => c.peer.clone(),
        Column::Listener => c.endpoint.clone(),
    });
    Row::new(cells)
}

fn draw_help(frame: &mut Frame<'_>, area: Rect) {
    let [height, width] = [KEYS.len() as u16 + 2, 90];
    let [_, middle, _] =
        Layout::vertical([Constraint::Fill(1), Constraint::Max(height), Constraint::Fill(1)]).areas(area);
    let [_, middle, _] =
        Layout::horizontal([Constraint::Fill(1), Constraint::Max(width), Constraint::Fill(1)]).areas(middle);
    let lines: Vec<Line<'_>> = KEYS.iter().map(|(key, what)| Line::from(format!("{key:23}{what}"))).collect();
    frame.render_widget(Clear, middle);
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title("Keys")), middle);
}

/// Seconds in a few characters: `1.5s`, `1000s`, `12d`.
fn age(seconds: f64) -> String {
    match seconds {
        s if s < 999.95 => format!("{s:.1}s"),
        s if s < 999_999.5 => format!("{s:.0}s"),
        s => format!("{:.0}d", s / 86_400.0),
    }
}

/// A number in a few characters: `12`, `3.4K`, `5.6M`; a K is 1024.
fn short(n: f64) -> String {
    let mut n = n;
    for unit in ["", "K", "M", "G", "T"] {
        if n < 999.5 {
            let is_round = unit.is_empty() && n.fract() == 0.0 || n >= 99.95;
            return if is_round { format!("{n:.0}{unit}") } else { format!("{n:.1}{unit}") };
        }
        n /= 1024.0;
    }
    format!("{n:.0}P")
}

#[cfg(test)]
mod tests;
