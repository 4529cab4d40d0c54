//! The charts of a record: for the HTML report, and as files of their own.

use super::figures::{self, Figure};
use super::plot::{self, COLOURS, Chart};
use super::slo;
use crate::record::Record;
use forkd_load::Phase;

/// What a chart looks like, with colours by their names in [`PALETTE`].
const STYLE: &str = include_str!("chart.css");

/// What has a colour, and which one in light and in dark.
pub(super) type Colour = (&'static str, &'static str, &'static str);

/// All colours. Those of the servers are told apart also by people who see
/// fewer colours (after Okabe and Ito, 2008), and are dark, or light, enough for thin lines.
pub(super) const PALETTE: [Colour; 6 + COLOURS] = [
    ("paper", "#ffffff", "#0d1117"),
    ("ink", "#1b1f24", "#e8eaed"),
    ("soft", "#59636e", "#a4acb6"),
    ("grid", "#dfe3e8", "#30363d"),
    ("band", "#eef1f5", "#161b22"),
    ("band2", "#e2e7ee", "#212830"),
    ("s0", "#0072b2", "#5aa9e6"),
    ("s1", "#d55e00", "#ff9447"),
    ("s2", "#00805e", "#2fcfa0"),
    ("s3", "#a8478a", "#e79ac6"),
    ("s4", "#9a6b00", "#f0c04a"),
    ("s5", "#2a94cf", "#a6dcfa"),
    ("s6", "#3d3d3d", "#f2f2f2"),
    ("s7", "#8a5a44", "#c9a27e"),
];

/// What has bars.
fn bars(record: &Record) -> [(&'static Figure, &'static str); 9] {
    [
        (&slo::FIGURES[0], "highest-rate"),
        (&figures::CONN_PER_S, "connections"),
        (&figures::REQ_PER_S, "requests"),
        (&figures::CPU, "processor"),
        (figures::memory(record), "memory"),
        (&figures::PROCESSES, "processes"),
        (&figures::SERVED, "served"),
        (&figures::MB_PER_S, "stream"),
        (&figures::DATAGRAMS, "datagrams"),
    ]
}

static LATENCIES: [(Phase, &str); 3] = [
    (Phase::Churn, "latency-connections"),
    (Phase::PingPong, "latency-requests"),
    (Phase::Datagrams, "latency-datagrams"),
];

/// The picture of the whole.
pub(super) fn overview(record: &Record) -> Option<Chart> {
    plot::overview(record, "overview")
}

/// The charts of how cost grows, if there were several numbers of clients.
pub(super) fn growth(record: &Record) -> Vec<Chart> {
    figures::growth(record)
        .into_iter()
        .filter_map(|(figure, name)| plot::growth(record, figure, name))
        .collect()
}

/// All other charts that there are figures for.
pub(super) fn charts(record: &Record) -> Vec<Chart> {
    let bars = bars(record).into_iter().filter_map(|(figure, name)| plot::bars(record, figure, name));
    let latencies = LATENCIES.iter().filter_map(|(phase, name)| plot::latencies(record, *phase, name));
    let over_time = plot::timeline(record, "over-time");
    bars.chain(latencies).chain(over_time).collect()
}

/// The style of a chart: each colour in its words, as `colour` gives them.
pub(super) fn style(colour: impl Fn(Colour) -> String) -> String {
    // the longest names first: band2 begins with band
    let mut palette = PALETTE;
    palette.sort_by_key(|(name, ..)| std::cmp::Reverse(name.len()));
    let mut text = STYLE.to_owned();
    for entry in palette {
        text = text.replace(&format!("${}", entry.0), &colour(entry));
    }
    text
}

/// The charts as documents, each with the name of its file: for slides and pages with a light background, and
/// the picture of the whole also for those with a dark one.
#[must_use]
pub fn files(record: &Record) -> Vec<(String, String)> {
    // programs that draw slides know no variables
    let [light, dark] = [|(_, light, _): Colour| light, |(_, _, dark): Colour| dark]
        .map(|of| style(|colour| of(colour).to_owned()));
    let overview = overview(record);
    // for a page that has a dark face, too, as GitHub's have
    let night = overview.iter().map(|chart| (format!("{}-dark.svg", chart.name), chart.svg(Some(&dark))));
    let night: Vec<_> = night.collect();
    let all = overview.into_iter().chain(charts(record)).chain(growth(record));
    let all = all.map(|chart| (format!("{}.svg", chart.name), chart.svg(Some(&light))));
    all.chain(night).collect()
}
