//! What is shown of a [`Record`](super::record::Record): in a terminal, to programs, in a browser, on slides.
//!
//! Invariant: a report can be made of every record, however much of it is missing; and what is missing is
//! left out or shown as missing, never as 0.

pub mod chart;
pub mod csv;
pub mod difference;
pub mod figures;
pub mod findings;
mod html;
mod plot;
mod repeat;
#[cfg(test)]
pub(crate) mod sample;
pub mod svg;
pub mod table;

pub use html::html;
