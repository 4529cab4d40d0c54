//! The table of listeners and that of children.

use std::collections::BTreeMap;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::super::model::{Column, Model};
use super::fit::{Need, Widths, cut};
use super::{age, short};
use crate::daemon::rates::Rate;
use crate::daemon::status::{
    ChildStatus, ListenerStatus, Status, bytes, dropped, known, queue, restarts, spread,
};

/// The columns of listeners, and how wide they are; the first one is a name.
const LISTENER: [(&str, usize); 9] = [
    ("LISTENER", 22),
    ("SERVICE", 8),
    ("MODEL", 9),
    ("ALIVE", 6),
    ("PEAK", 6),
    ("QUEUED", 6),
    ("CONN/S", 8),
    ("IN/S", 6),
    ("OUT/S", 6),
];
/// Two numbers may take more than that.
const QUEUED: usize = 5;
/// Those from the most important one on.
const LISTENER_ORDER: [usize; 9] = [0, 3, 6, 7, 8, QUEUED, 4, 2, 1];

/// The columns of children from the most important one on.
const CHILD_ORDER: [Column; 14] = [
    Column::Pid,
    Column::Worker,
    Column::State,
    Column::Cpu,
    Column::Memory,
    Column::Peer,
    Column::Age,
    Column::Status,
    Column::BytesIn,
    Column::BytesOut,
    Column::Serving,
    Column::Connections,
    Column::Threads,
    Column::Listener,
];

/// How many lines the listeners take.
pub(super) fn height_of_listeners(status: &Status) -> usize {
    1 + status.listeners.iter().map(height_of).sum::<usize>()
}

fn height_of(l: &ListenerStatus) -> usize {
    1 + usize::from(remarks(l, None).is_some())
}

/// A line for each listener, and one for those that it has turned away and lost; the last line says how many
/// listeners have no room.
pub(super) fn draw_listeners(frame: &mut Frame<'_>, model: &Model, status: &Status, area: Rect) {
    let room = usize::from(area.width);
    let longest = longest(status.listeners.iter().map(|l| &*l.endpoint), LISTENER[0].0);
    let mut needs = LISTENER.map(|(_, width)| Need::whole(width));
    needs[0] = Need::name(LISTENER[0].1, longest);
    let queued = status.listeners.iter().map(|l| queue(l).len()).max().unwrap_or(0);
    needs[QUEUED] = Need::whole(queued.max(LISTENER[QUEUED].1));
    let widths = Widths::new(&needs, &LISTENER_ORDER, room);
    let mut lines = vec![Line::from(widths.line(LISTENER.map(|(head, _)| head.to_owned()))).underlined()];
    let (all, height) = (status.listeners.len(), usize::from(area.height));
    for (at, l) in status.listeners.iter().enumerate() {
        let is_last = at + 1 == all;
        if lines.len() + height_of(l) + usize::from(!is_last) > height {
            lines.push(Line::from(cut(&format!("and {} more", all - at), room)).dim());
            break;
        }
        let rate = model.rates.as_ref().and_then(|rates| rates.listeners.get(at));
        lines.push(Line::from(widths.line(listener(l, rate.copied().unwrap_or_default()))));
        lines.extend(remarks(l, rate).map(|text| Line::from(cut(&format!("  {text}"), room)).dim()));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

fn listener(l: &ListenerStatus, rate: Rate) -> [String; 9] {
    let [alive, peak] = [l.alive, l.peak].map(|n| known(l.workers_of.is_none(), n));
    let connections = known(l.knows_clients, format!("{:.1}", rate.connections));
    let [bytes_in, bytes_out] = [rate.bytes_in, rate.bytes_out].map(|n| known(l.knows_clients, short(n)));
    let [endpoint, service, model] = [&l.endpoint, &l.service, &l.model].map(Clone::clone);
    [endpoint, service, model, alive, peak, queue(l), connections, bytes_in, bytes_out]
}

/// The clients that the kernel and a listener have turned away, how its children have ended, and how clients are spread.
fn remarks(l: &ListenerStatus, rate: Option<&Rate>) -> Option<String> {
    let counts = |what: &str, counts: &BTreeMap<String, u64>| {
        let counts: Vec<String> = counts.iter().map(|(cause, n)| format!("{cause}={n}")).collect();
        (!counts.is_empty()).then(|| format!("{what}: {}", counts.join(" ")))
    };
    let all = [
        l.workers_of.as_ref().map(|first| format!("served by the workers of {first}")),
        dropped(l, rate),
        counts("refused", &l.refused),
        counts("timed out", &l.timed_out),
        counts("deaths", &l.deaths),
        restarts(l),
        spread(l),
    ];
    let all: Vec<String> = all.into_iter().flatten().collect();
    (!all.is_empty()).then(|| all.join("  "))
}

/// A line for each child that there is room for. The column that they are sorted by is always among those shown.
pub(super) fn draw_children(frame: &mut Frame<'_>, model: &Model, status: &Status, area: Rect) {
    let columns = model.columns();
    let needs: Vec<Need> = columns.iter().map(|&column| need(column, &status.children)).collect();
    let sorted_by = CHILD_ORDER.iter().filter(|&&column| column == model.sort);
    let others = CHILD_ORDER.iter().filter(|&&column| column != model.sort && column != Column::Pid);
    let first = [Column::Pid].iter().filter(|&&column| column != model.sort);
    let place = |column: &Column| columns.iter().position(|other| other == column);
    let order: Vec<usize> = first.chain(sorted_by).chain(others).filter_map(place).collect();
    let widths = Widths::new(&needs, &order, area.width.into());
    let heads = widths.cells(columns.iter().map(|&column| head(column, model)));
    let heads = heads.into_iter().map(|(at, head)| {
        let is_sorted_by = columns[at] == model.sort;
        if is_sorted_by { Span::from(head).bold().reversed() } else { Span::from(head) }
    });
    let heads: Vec<Span<'_>> = heads.flat_map(|head| [head, Span::from(" ")]).collect();
    let (_, shown) = model.shown(usize::from(area.height.saturating_sub(1)));
    let rows = shown.iter().map(|&at| {
        let (child, rate) = (&status.children[at], model.rate_of_child(at));
        Line::from(widths.line(columns.iter().map(|&column| cell(column, child, rate))))
    });
    let head = Line::from(heads).style(Style::new().underlined());
    frame.render_widget(Paragraph::new([head].into_iter().chain(rows).collect::<Vec<_>>()), area);
}

fn need(column: Column, children: &[ChildStatus]) -> Need {
    // with the mark of the order
    let head = column.name().len() + 1;
    let most = |of: fn(&ChildStatus) -> u64| children.iter().map(of).max().unwrap_or(0).to_string().len();
    let name = |of: fn(&ChildStatus) -> &str| longest(children.iter().map(of), column.name()).max(head);
    match column {
        Column::Pid => Need::whole(most(|c| c.pid.into()).max(head)),
        Column::Worker => Need::whole(head),
        Column::Cpu | Column::Memory => Need::whole(6),
        Column::Status => Need::name(20, name(status_of)),
        Column::State | Column::Serving | Column::Threads => Need::whole(8),
        Column::Age => Need::whole(7),
        Column::Connections => Need::whole(most(|c| c.connections).max(head)),
        Column::BytesIn | Column::BytesOut => Need::whole(6),
        // an address of IPv4, and its port
        Column::Peer => Need::name(21, name(|c| &c.peer)),
        Column::Listener => Need::name(22, name(|c| &c.endpoint)),
    }
}

/// The length of the longest of these, and of the head above them.
fn longest<'a>(names: impl Iterator<Item = &'a str>, head: &str) -> usize {
    names.map(|name| name.chars().count()).max().unwrap_or(0).max(head.len())
}

fn head(column: Column, model: &Model) -> String {
    let mark = match (column == model.sort, model.is_descending) {
        (false, _) => "",
        (true, false) => "^",
        (true, true) => "v",
    };
    format!("{}{mark}", column.name())
}

impl Column {
    fn name(self) -> &'static str {
        match self {
            Self::Pid => "PID",
            Self::Worker => "WORKER",
            Self::State => "STATE",
            Self::Cpu => "%CPU",
            Self::Memory => "RSS",
            Self::Serving => "SERVING",
            Self::Threads => "THREADS",
            Self::Age => "AGE",
            Self::Connections => "CONNS",
            Self::BytesIn => "IN/S",
            Self::BytesOut => "OUT/S",
            Self::Peer => "PEER",
            Self::Listener => "LISTENER",
            Self::Status => "STATUS",
        }
    }
}

fn status_of(c: &ChildStatus) -> &str {
    c.worker.as_ref().and_then(|worker| worker.status.as_deref()).unwrap_or_default()
}

fn cell(column: Column, c: &ChildStatus, rate: Rate) -> String {
    let worker = c.worker.as_ref();
    match column {
        Column::Pid => c.pid.to_string(),
        Column::Worker => worker.map_or_else(|| "-".into(), |worker| worker.number.to_string()),
        Column::State => c.state.clone(),
        Column::Cpu => known(worker.is_some(), format!("{:.1}", rate.cpu * 100.0)),
        Column::Memory => bytes(worker.and_then(|worker| worker.rss_bytes)),
        Column::Serving => known(c.tells_of_clients(), c.serving),
        Column::Threads => known(worker.is_none(), c.threads),
        Column::Age => age(c.age_s),
        Column::Connections => known(c.tells_of_clients(), c.connections),
        Column::BytesIn => known(worker.is_none(), short(rate.bytes_in)),
        Column::BytesOut => known(worker.is_none(), short(rate.bytes_out)),
        Column::Peer => c.peer.clone(),
        Column::Listener => c.endpoint.clone(),
        Column::Status => status_of(c).to_owned(),
    }
}
