//! What is known of the daemon, and what its viewer has chosen. Pure: the clock, answers and keys come in.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::time::Duration;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::Answer;
use crate::daemon::rates::{Rate, Rates};
use crate::daemon::status::{ChildStatus, Status};

/// How many looks at the daemon are remembered.
pub(super) const REMEMBERED: usize = 240;

/// How many looks a piece of news is shown for.
const NEWS: u32 = 5;

/// Whether to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Go {
    On,
    Away,
}

/// A column of the table of children, by which it can be sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    Pid,
    Worker,
    State,
    Cpu,
    Memory,
    Serving,
    Threads,
    Age,
    Connections,
    BytesIn,
    BytesOut,
    Peer,
    Listener,
    Status,
}

impl Column {
    const ALL: [Self; 14] = [
        Self::Pid,
        Self::Worker,
        Self::State,
        Self::Cpu,
        Self::Memory,
        Self::Serving,
        Self::Threads,
        Self::Age,
        Self::Connections,
        Self::BytesIn,
        Self::BytesOut,
        Self::Peer,
        Self::Listener,
        Self::Status,
    ];
}

/// What was seen at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Point {
    /// Seconds since the first look.
    pub(super) at: f64,
    pub(super) children: f64,
    pub(super) threads: f64,
    /// Connections that were being served.
    pub(super) serving: f64,
    pub(super) rate: Rate,
}

/// What is known and chosen.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) interval: Duration,
    pub(super) status: Option<Status>,
    pub(super) rates: Option<Rates>,
    pub(super) history: VecDeque<Point>,
    /// Why the daemon does not answer.
    pub(super) problem: Option<String>,
    /// When it answered last, and what time it is: in seconds since the first look.
    answered: f64,
    now: f64,
    /// What has happened lately, and for how many more looks to say so.
    news: Option<(String, u32)>,
    /// Which children are shown, in which order: places in the status.
    pub(super) rows: Vec<usize>,
    pub(super) sort: Column,
    pub(super) is_descending: bool,
    pub(super) filter: String,
    pub(super) is_typing: bool,
    pub(super) is_paused: bool,
    pub(super) shows_help: bool,
    /// The first row that is shown, as far as there are so many.
    first: usize,
    /// How many rows fit.
    page: usize,
}

impl Model {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval,
            status: None,
            rates: None,
            history: VecDeque::with_capacity(REMEMBERED),
            problem: None,
            answered: 0.0,
            now: 0.0,
            news: None,
            rows: Vec::new(),
            sort: Column::Age,
            is_descending: false,
            filter: String::new(),
            is_typing: false,
            is_paused: false,
            shows_help: false,
            first: 0,
            page: 1,
        }
    }

    /// So many seconds have passed since the first look; tells whether that is to be seen.
    pub(super) fn now(&mut self, at: f64) -> bool {
        let before = self.silence();
        self.now = at;
        self.silence() != before
    }

    /// For how many whole seconds the daemon has not answered, if it should have.
    pub(super) fn silence(&self) -> Option<u64> {
        let seconds = self.now - self.answered;
        // an answer may take a moment
        let is_late = seconds > 2.0 * self.interval.as_secs_f64() + 1.0;
        (!self.is_paused && (is_late || self.problem.is_some())).then_some(seconds as u64)
    }

    /// The daemon has answered, or not, so many seconds after the first look.
    pub(super) fn heard(&mut self, at: f64, answer: Answer) {
        self.now = at;
        if answer.is_ok() {
            self.answered = at;
        }
        if self.is_paused {
            return;
        }
        self.news = self.news.take().and_then(|(text, left)| Some((text, left.checked_sub(1)?)));
        let status = match answer {
            Ok(status) => status,
            Err(why) => {
                // what was known is no more true of anything
                self.problem = Some(why);
                self.rates = None;
                return self.remember(Point { at, ..Point::default() });
            }
        };
        let before = self.status.take();
        if let Some(old) = before.as_ref().filter(|old| old.pid != status.pid) {
            self.news = Some((format!("another daemon answers: pid {} after {}", status.pid, old.pid), NEWS));
        } else if self.problem.is_some() {
            self.news = Some(("the daemon answers again".into(), NEWS));
        }
        self.problem = None;
        self.rates = before.and_then(|before| Rates::between(&before, &status));
        // an empty sum of floats is -0
        let sum = |of: fn(&ChildStatus) -> u32| -> f64 {
            status.children.iter().map(|child| u64::from(of(child))).sum::<u64>() as f64
        };
        self.remember(Point {
            at,
            children: status.children.len() as f64,
            threads: sum(|child| child.threads),
            serving: sum(|child| child.serving),
            rate: self.rates.as_ref().map(Rates::total).unwrap_or_default(),
        });
        self.status = Some(status);
        self.arrange();
    }

    fn remember(&mut self, point: Point) {
        if self.history.len() == REMEMBERED {
            self.history.pop_front();
        }
        self.history.push_back(point);
    }

    /// What is to be said beside the figures.
    pub(super) fn news(&self) -> Option<&str> {
        self.news.as_ref().map(|(text, _)| text.as_str())
    }

    /// The rate of the child at this place in the status.
    pub(super) fn rate_of_child(&self, at: usize) -> Rate {
        self.rates.as_ref().and_then(|rates| rates.children.get(at)).copied().unwrap_or_default()
    }

    /// The columns in which something stands: of workers that accept by themselves other things are known than of children
    /// that have clients.
    pub(super) fn columns(&self) -> Vec<Column> {
        let children = self.status.as_ref().map_or(&[][..], |status| &status.children);
        let has_workers = children.iter().any(|child| child.worker.is_some());
        let has_clients = !has_workers || children.iter().any(ChildStatus::tells_of_clients);
        let is_shown = |column: &Column| match column {
            Column::Worker | Column::Cpu | Column::Memory | Column::Status => has_workers,
            Column::Pid | Column::State | Column::Age | Column::Listener => true,
            _ => has_clients,
        };
        Column::ALL.into_iter().filter(is_shown).collect()
    }

    /// So many rows fit.
    pub(super) fn set_page(&mut self, page: usize) {
        self.page = page.max(1);
        self.scroll_to(self.first);
    }

    /// The rows that are shown where so many fit, and which the first of them is.
    pub(super) fn shown(&self, page: usize) -> (usize, &[usize]) {
        let first = self.first.min(self.rows.len().saturating_sub(page));
        (first, &self.rows[first..self.rows.len().min(first + page)])
    }

    fn scroll_to(&mut self, first: usize) {
        self.first = first.min(self.rows.len().saturating_sub(self.page));
    }

    /// Chooses and sorts the rows.
    fn arrange(&mut self) {
        let children = self.status.as_ref().map_or(&[][..], |status| &status.children);
        let wanted = self.filter.to_lowercase();
        let mut rows: Vec<usize> =
            (0..children.len()).filter(|&at| matches(&children[at], &wanted)).collect();
        rows.sort_by(|&a, &b| {
            let order = self.compare(children, a, b);
            // those that are alike stay where they are from one look to the next
            let order = if self.is_descending { order.reverse() } else { order };
            order.then(children[a].pid.cmp(&children[b].pid))
        });
        self.rows = rows;
        self.scroll_to(self.first);
    }

    fn compare(&self, children: &[ChildStatus], a: usize, b: usize) -> Ordering {
        let (one, other) = (&children[a], &children[b]);
        let rates = || (self.rate_of_child(a), self.rate_of_child(b));
        let workers = (one.worker.as_ref(), other.worker.as_ref());
        match self.sort {
            Column::Pid => one.pid.cmp(&other.pid),
            Column::Worker => workers.0.map(|w| w.number).cmp(&workers.1.map(|w| w.number)),
            Column::Cpu => rates().0.cpu.total_cmp(&rates().1.cpu),
            Column::Memory => workers.0.map(|w| w.rss_bytes).cmp(&workers.1.map(|w| w.rss_bytes)),
            Column::Status => workers.0.map(|w| &w.status).cmp(&workers.1.map(|w| &w.status)),
            Column::State => one.state.cmp(&other.state),
            Column::Serving => one.serving.cmp(&other.serving),
            Column::Threads => one.threads.cmp(&other.threads),
            Column::Age => one.age_s.total_cmp(&other.age_s),
            Column::Connections => one.connections.cmp(&other.connections),
            Column::BytesIn => rates().0.bytes_in.total_cmp(&rates().1.bytes_in),
            Column::BytesOut => rates().0.bytes_out.total_cmp(&rates().1.bytes_out),
            Column::Peer => one.peer.cmp(&other.peer),
            Column::Listener => one.endpoint.cmp(&other.endpoint),
        }
    }

    /// A key was pressed.
    pub(super) fn key(&mut self, key: KeyEvent) -> Go {
        if key.kind == KeyEventKind::Release {
            return Go::On;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if matches!(key.code, KeyCode::Char('c' | 'd')) { Go::Away } else { Go::On };
        }
        if self.is_typing {
            self.type_filter(key.code);
            return Go::On;
        }
        if self.shows_help && key.code != KeyCode::Char('q') {
            self.shows_help = false;
            return Go::On;
        }
        match key.code {
            KeyCode::Char('q') => return Go::Away,
            KeyCode::Char('?' | 'h') => self.shows_help = true,
            KeyCode::Char('p' | ' ') => self.is_paused = !self.is_paused,
            KeyCode::Char('/') => self.is_typing = true,
            KeyCode::Esc => self.set_filter(String::new()),
            KeyCode::Char('r') => {
                self.is_descending = !self.is_descending;
                self.arrange();
            }
            KeyCode::Left => self.sort_by_neighbour(-1),
            KeyCode::Right => self.sort_by_neighbour(1),
            KeyCode::Up | KeyCode::Char('k') => self.scroll_to(self.first.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.scroll_to(self.first + 1),
            KeyCode::PageUp => self.scroll_to(self.first.saturating_sub(self.page)),
            KeyCode::PageDown => self.scroll_to(self.first + self.page),
            KeyCode::Home | KeyCode::Char('g') => self.scroll_to(0),
            KeyCode::End | KeyCode::Char('G') => self.scroll_to(self.rows.len()),
            _ => {}
        }
        Go::On
    }

    fn type_filter(&mut self, code: KeyCode) {
        let mut filter = self.filter.clone();
        match code {
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                self.is_typing = false;
                filter.clear();
            }
            KeyCode::Backspace => _ = filter.pop(),
            KeyCode::Char(c) => filter.push(c),
            _ => {}
        }
        self.set_filter(filter);
    }

    fn set_filter(&mut self, filter: String) {
        if filter != self.filter {
            self.filter = filter;
            self.first = 0;
            self.arrange();
        }
    }

    fn sort_by_neighbour(&mut self, steps: isize) {
        let columns = self.columns();
        let at = columns.iter().position(|&column| column == self.sort).unwrap_or(0);
        let next = (at as isize + steps).rem_euclid(columns.len() as isize);
        self.sort = columns[next as usize];
        self.arrange();
    }
}

/// Whether a child has the text, which is in lower case, in one of its columns.
fn matches(child: &ChildStatus, text: &str) -> bool {
    let has = |cell: &str| cell.to_lowercase().contains(text);
    text.is_empty()
        || has(&child.pid.to_string())
        || has(&child.state)
        || has(&child.peer)
        || has(&child.endpoint)
        || child.worker.as_ref().and_then(|worker| worker.status.as_deref()).is_some_and(has)
}
