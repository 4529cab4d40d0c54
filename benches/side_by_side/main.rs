//! forkd beside references in C, and beside nginx: the table of docs/PERFORMANCE.md, as Markdown.
//!
//! ```sh
//! cargo bench --bench side_by_side                 # everything; as root, so that processor time is exact
//! cargo bench --bench side_by_side -- fork: http   # only rows that have one of these words in their name
//! ```
//!
//! Only ratios mean something: rates move with the machine, and with whatever else runs on it. Each round measures one
//! and the other within a second; the table has the median of the rounds' ratios, with the smallest and the largest.
//! With one client, client and server share a processor: left alone, the scheduler puts them now on one and now on two,
//! and the figures fall into two heaps. Needs a C compiler (`cc`); `FORKD_BIN` names another forkd to measure.

mod counts;
mod pairs;
mod server;

use std::io;
use std::process::Command;

fn main() -> io::Result<()> {
    // `cargo test --benches` and the like only want to know that it builds
    if !std::env::args().any(|arg| arg == "--bench") {
        return Ok(());
    }
    let words: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let is_asked = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    println!("{}\n", about());
    pairs::table(&is_asked)?;
    counts::table(&is_asked)
}

/// When, of which build, on what.
fn about() -> String {
    let says = |program: &str, args: &[&str]| {
        let output =
            Command::new(program).args(args).current_dir(env!("CARGO_MANIFEST_DIR")).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let or_unknown = |text: Option<String>| text.filter(|text| !text.is_empty()).unwrap_or("unknown".into());
    let version = or_unknown(says(&server::forkd().display().to_string(), &["--version"]));
    let build = or_unknown(says("git", &["describe", "--always", "--dirty"]));
    let date = or_unknown(says("date", &["-u", "+%Y-%m-%d %H:%M UTC"]));
    let kernel = or_unknown(says("uname", &["-sr"]));
    let processors = or_unknown(says("nproc", &[]));
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name =
        info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!(
        "Measured on {date}: {version} ({build}), {kernel}, {processors} × {}, load average before {}",
        name.unwrap_or("unknown"),
        load.split(' ').next().unwrap_or("unknown")
    )
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
