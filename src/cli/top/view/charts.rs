//! What has changed over time.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style};
use ratatui::symbols::Marker;
use ratatui::text::Span;
use ratatui::widgets::{Axis, Block, Chart, Dataset, GraphType};

use super::super::model::{Model, Point, REMEMBERED};
use super::{count, fit, short};

/// What a line shows.
type Value = fn(&Point) -> f64;

/// Lines of one unit.
struct Lines {
    names: &'static [(&'static str, Value)],
    /// How a value is written.
    written: fn(f64) -> String,
    /// As many columns as its head takes where there is much to count.
    width: u16,
}

/// From the most important one on.
const CHARTS: [Lines; 3] = [
    Lines {
        names: &[("children", |p| p.children), ("threads", |p| p.threads), ("serving", |p| p.serving)],
        written: count,
        width: 44,
    },
    Lines {
        names: &[("conn/s", |p| p.rate.connections), ("forks/s", |p| p.rate.forks)],
        written: count,
        width: 28,
    },
    Lines {
        names: &[("B/s in", |p| p.rate.bytes_in), ("out", |p| p.rate.bytes_out)],
        written: short,
        width: 24,
    },
];

/// Draws as many charts as there is room for, and at least one.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let mut left = area.width + 1;
    let fits = |lines: &&Lines| {
        let fits = lines.width < left;
        left = left.saturating_sub(lines.width + 1);
        fits
    };
    let number = CHARTS.iter().take_while(fits).count().max(1);
    let charts = &CHARTS[..number];
    let widths = charts.iter().map(|lines| Constraint::Fill(lines.width));
    let areas = Layout::horizontal(widths).spacing(1).split(area);
    charts.iter().zip(areas.iter()).for_each(|(lines, &area)| draw_one(frame, model, area, lines));
}

fn draw_one(frame: &mut Frame<'_>, model: &Model, area: Rect, lines: &Lines) {
    let styles = [Color::Cyan, Color::Magenta, Color::Yellow].map(|color| Style::new().fg(color));
    let last = model.history.back().map_or(0.0, |point| point.at);
    let points_of = |of: Value| -> Vec<(f64, f64)> {
        model.history.iter().map(|point| (point.at - last, of(point))).collect()
    };
    let points: Vec<Vec<(f64, f64)>> = lines.names.iter().map(|(_, of)| points_of(*of)).collect();
    let most = points.iter().flatten().map(|(_, y)| *y).fold(1.0, f64::max);
    // as much as has been seen, up to what is remembered
    let seen = model.history.front().map_or(0.0, |first| last - first.at);
    let interval = model.interval.as_secs_f64();
    let window = seen.clamp(interval * 60.0, (interval * REMEMBERED as f64).max(60.0));
    let title = lines.names.iter().zip(styles).zip(&points).map(|(((name, _), style), points)| {
        let now = points.last().map_or(0.0, |(_, y)| *y);
        Span::styled(format!("{name} {}  ", (lines.written)(now)), style)
    });
    let datasets = points.iter().zip(styles).map(|(points, style)| {
        Dataset::default().marker(Marker::Braille).graph_type(GraphType::Line).style(style).data(points)
    });
    let chart = Chart::new(datasets.collect())
        .block(Block::new().title(fit::pieces(title, area.width.into())))
        .x_axis(
            Axis::default().bounds([-window, 0.0]).labels([format!("-{}s", window.round()), "now".into()]),
        )
        .y_axis(Axis::default().bounds([0.0, most]).labels(["0".into(), (lines.written)(most)]));
    frame.render_widget(chart, area);
}
