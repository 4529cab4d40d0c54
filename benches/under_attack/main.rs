//! What a well-behaved client waits while forkd is attacked: `cargo bench --bench under_attack`.
//!
//! For each model and each attack one daemon is started and probed in turn: at rest, under attack, at rest, and so
//! on. A probe is a fresh connection: connect, one exchange, close. At the same moments a second daemon of the same
//! model is probed without attackers (`beside`): what its clients wait longer is the machine's doing, since client,
//! attacker and daemons share its processors. The attackers are processes of their own, bounded in time and number
//! (see `attack.rs`), and know only loopback.
//!
//! Arguments select rows by a part of their names, such as `fork` or `event:udp`. `FORKD_BIN=/path/to/forkd`
//! measures another binary.

mod attack;
mod daemon;
#[path = "../page/mod.rs"]
mod page;
mod probe;

use std::io;
use std::time::Duration;

use attack::Attack;
use daemon::Daemon;
use page::{Arguments, Page};
use probe::Waits;

/// At rest and under attack, so many times each.
const ROUNDS: usize = 5;
const SPAN: Duration = Duration::from_millis(1500);

struct Model {
    name: &'static str,
    options: &'static [&'static str],
    /// How many clients occupy all of it, if they stay: that is its own limit.
    holds: usize,
}

const MODELS: [Model; 6] = [
    Model { name: "iterative", options: &["--model", "iterative"], holds: 1 },
    Model { name: "fork", options: &["--model", "fork", "--max-children", "4096"], holds: usize::MAX },
    Model { name: "prefork", options: &["--model", "prefork", "--workers", "8"], holds: 8 },
    Model { name: "thread", options: &["--model", "thread", "--max-threads", "4096"], holds: usize::MAX },
    Model { name: "event", options: &["--model", "event"], holds: usize::MAX },
    Model { name: "coroutine", options: &["--model", "coroutine"], holds: usize::MAX },
];

fn main() -> io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == attack::WORD) {
        return attack::run(&words[1..]);
    }
    let Some(arguments) = Arguments::read() else { return Ok(()) };
    let mut page = Page::begin("under attack");
    page.line(&format!(
        "The median and the 99th percentile of a fresh connection in ms, medians of {ROUNDS} rounds of {} s:",
        SPAN.as_secs_f64()
    ));
    page.line("");
    page.line("| attack | model | at rest | under attack | beside |");
    page.line("|---|---|--:|--:|--:|");
    for attack in Attack::ALL {
        for model in &MODELS {
            let name = format!("{}:{}", model.name, attack.name());
            if arguments.has(&name) && attack.stays() < model.holds {
                page.line(&measure(model, attack)?);
            }
        }
    }
    page.end(&arguments)
}

/// A row of the table.
fn measure(model: &Model, attack: Attack) -> io::Result<String> {
    let options: Vec<_> = model.options.iter().map(ToString::to_string).chain(attack.options()).collect();
    let attacked = Daemon::start(&options, attack.service())?;
    let beside = Daemon::start(&options, attack.service())?;
    let (mut rest, mut under, mut other) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        rest.push(probe::both(&attacked, &beside, SPAN).0);
        let attacker = attack.begin(&attacked, SPAN)?;
        let (here, there) = probe::both(&attacked, &beside, SPAN);
        attacker.end()?;
        under.push(here);
        other.push(there);
        attacked.settle(Duration::from_secs(20));
    }
    let (rest, under, other) = (Waits::medians(rest), Waits::medians(under), Waits::medians(other));
    let failed = if under.failed > 0 { format!(", {} failed", under.failed) } else { String::new() };
    Ok(format!("| {} | {} | {rest} | {under}{failed} | {other} |", attack.name(), model.name))
}
