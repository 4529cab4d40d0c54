//! forkd beside references in C, and beside nginx: the table of docs/PERFORMANCE.md, as Markdown.
//!
//! ```sh
//! cargo bench --bench side_by_side                 # everything; as root, so that processor time is exact
//! cargo bench --bench side_by_side -- fork: http   # only rows that have one of these words in their name
//! cargo bench --bench side_by_side -- --write      # puts the table into the document
//! ```
//!
//! Only ratios mean something: rates move with the machine, and with whatever else runs on it. Each round measures one
//! and the other within a second; the table has the median of the rounds' ratios, with the smallest and the largest.
//! With one client, client and server share a processor: left alone, the scheduler puts them now on one and now on two,
//! and the figures fall into two heaps. Needs a C compiler (`cc`); `FORKD_BIN` names another forkd to measure.

mod costs;
mod counts;
#[path = "../page/mod.rs"]
mod page;
mod pairs;
mod server;
// a test's, which may panic
#[allow(clippy::unwrap_used)]
#[path = "../../tests/costs/tracer.rs"]
mod tracer;

use std::io;

use page::{Arguments, Page};

fn main() -> io::Result<()> {
    let Some(arguments) = Arguments::read() else { return Ok(()) };
    let mut page = Page::begin("side by side");
    let is_asked = |name: &str| arguments.has(name);
    pairs::table(&mut page, &is_asked)?;
    counts::table(&mut page, &is_asked)?;
    costs::table(&mut page, &is_asked)?;
    page.end(&arguments)
}

/// The middle of some values, or the mean of the two in the middle.
fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n.is_multiple_of(2) => f64::midpoint(values[n / 2 - 1], values[n / 2]),
        n => values[n / 2],
    }
}
