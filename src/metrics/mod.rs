//! Metrics for Prometheus, served by a child of its own, so that a scraper that dawdles never holds the
//! master.
//!
//! Invariant: it reads the scoreboard, which is shared memory, and asks nobody; nothing that a scraper
//! sends or leaves undone reaches further than this process. `sample` is the reading, `exposition` the
//! text, `http` the protocol, `server` the loop.

mod exposition;
mod http;
mod sample;
mod server;

use std::sync::Arc;
use std::time::SystemTime;

pub(crate) use server::serve;

use crate::model::Model;
use crate::scoreboard::Scoreboard;
use crate::transport::{Arrivals, Listener};
use sample::Sample;

/// A listening socket, as it is named in the metrics.
#[derive(Debug)]
pub(crate) struct Face {
    /// Its number on the scoreboard.
    pub(crate) number: usize,
    pub(crate) endpoint: String,
    pub(crate) service: String,
    pub(crate) model: Model,
    /// The socket, if the kernel says anything of those who come there.
    pub(crate) listener: Option<Arc<Listener>>,
    /// What it has said.
    pub(crate) arrivals: Arrivals,
}

/// What is measured.
#[derive(Debug)]
pub(crate) struct Metrics {
    board: &'static Scoreboard,
    faces: Vec<Face>,
    started: SystemTime,
    /// What was said last: a counter never goes back.
    last: Sample,
}

impl Metrics {
    pub(crate) fn new(board: &'static Scoreboard, faces: Vec<Face>, started: SystemTime) -> Self {
        Self { board, faces, started, last: Sample::default() }
    }

    /// Reads everything, and writes it down.
    pub(crate) fn text(&mut self, format: http::Format) -> String {
        self.last = Sample::read(self.board, &self.faces, self.started, &self.last);
        exposition::text(self.last.clone(), format)
    }
}
