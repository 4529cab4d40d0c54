//! The charts of a record: for the HTML report, and as files of their own.

use super::figures::{self, Figure};
use super::plot::{self, COLOURS, Chart};
use crate::compare::record::Record;
use crate::load::Phase;

/// What a chart looks like, with colours by their names in [`PALETTE`].
const STYLE: &str = include_str!("chart.css");

/// What has a colour, in light and in dark. Those of the servers are told apart also by people who see
/// fewer colours (after Okabe and Ito, 2008), and are dark, or light, enough for thin lines.
pub(super) const PALETTE: [(&str, &str, &str); 6 + COLOURS] = [
    ("paper", "#ffffff", "#16181d"),
    ("ink", "#1b1f24", "#e8eaed"),
    ("soft", "#59636e", "#a4acb6"),
    ("grid", "#dfe3e8", "#333941"),
    ("band", "#eef1f5", "#22262d"),
    ("band2", "#e2e7ee", "#2c323b"),
    ("s0", "#0072b2", "#5aa9e6"),
    ("s1", "#d55e00", "#ff9447"),
    ("s2", "#00805e", "#2fcfa0"),
    ("s3", "#a8478a", "#e79ac6"),
    ("s4", "#9a6b00", "#f0c04a"),
    ("s5", "#2a94cf", "#a6dcfa"),
    ("s6", "#3d3d3d", "#f2f2f2"),
    ("s7", "#8a5a44", "#c9a27e"),
];

static BARS: [(&Figure, &str); 8] = [
    (&figures::CONN_PER_S, "connections"),
    (&figures::REQ_PER_S, "requests"),
    (&figures::CPU, "processor"),
    (&figures::PSS, "memory"),
    (&figures::PROCESSES, "processes"),
    (&figures::SERVED, "served"),
    (&figures::MB_PER_S, "stream"),
    (&figures::DATAGRAMS, "datagrams"),
];

static LATENCIES: [(Phase, &str); 3] = [
    (Phase::Churn, "latency-connections"),
    (Phase::PingPong, "latency-requests"),
    (Phase::Datagrams, "latency-datagrams"),
];

/// The picture of the whole.
pub(super) fn overview(record: &Record) -> Option<Chart> {
    plot::overview(record, "overview")
}

/// All other charts that there are figures for.
pub(super) fn charts(record: &Record) -> Vec<Chart> {
    let bars = BARS.iter().filter_map(|(figure, name)| plot::bars(record, figure, name));
    let latencies = LATENCIES.iter().filter_map(|(phase, name)| plot::latencies(record, *phase, name));
    let growth = figures::growth(record);
    let growth = growth.iter().filter_map(|(figure, name)| plot::growth(record, figure, name));
    let over_time = plot::timeline(record, "over-time");
    bars.chain(latencies).chain(over_time).chain(growth).collect()
}

/// The style of a chart: each colour in its words, as `colour` gives them.
pub(super) fn style(colour: impl Fn(&str, &str) -> String) -> String {
    // the longest names first: band2 begins with band
    let mut palette = PALETTE;
    palette.sort_by_key(|(name, ..)| std::cmp::Reverse(name.len()));
    let mut text = STYLE.to_owned();
    for (name, light, _) in palette {
        text = text.replace(&format!("${name}"), &colour(name, light));
    }
    text
}

/// The charts as documents, each with the name of its file: for slides and pages with a light background.
#[must_use]
pub fn files(record: &Record) -> Vec<(String, String)> {
    // programs that draw slides know no variables
    let style = style(|_, light| light.to_owned());
    let all = overview(record).into_iter().chain(charts(record));
    all.map(|chart| (format!("{}.svg", chart.name), chart.svg(Some(&style)))).collect()
}
