//! A record for spreadsheets and data frames: a line for each server, number of clients, phase and figure
//! (RFC 4180).

use super::figures::View;
use crate::record::Record;

const HEADS: &str = "model,workers,clients,phase,figure,median,min,max,rounds\n";

/// Makes the lines; figures that were not measured have none.
#[must_use]
pub fn csv(record: &Record) -> String {
    let mut text = HEADS.to_owned();
    let most = record.settings.clients.last().copied();
    for entry in &record.models {
        let name = quoted(&entry.name);
        let workers = entry.workers.map(|workers| workers.to_string()).unwrap_or_default();
        let mut add = |view: &View, clients: Option<usize>| {
            view.each(|phase, figures| {
                // an idle server has no client, and a stream is one client's
                let clients = match phase {
                    "idle" => "0".into(),
                    "bulk" => "1".into(),
                    _ => clients.map(|clients| clients.to_string()).unwrap_or_default(),
                };
                for (figure, value) in figures {
                    let ((min, max), rounds) = (value.range(), value.rounds.len());
                    let [median, min, max] = [value.median, min, max].map(number);
                    text.push_str(&format!(
                        "{name},{workers},{clients},{phase},{figure},{median},{min},{max},{rounds}\n"
                    ));
                }
            });
        };
        // the last number of clients is the entry itself
        for growth in entry.growth.iter().filter(|growth| Some(growth.clients) != most) {
            add(&growth.into(), Some(growth.clients));
        }
        add(&entry.into(), most);
    }
    text
}

/// With as many digits as the JSON has.
fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn quoted(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn a_line_for_each_figure() {
        let mut record = sample::record();
        record.models[1].name = "a \"b\", c".into();
        let text = csv(&record);
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some(HEADS.trim_end()));
        assert!(text.contains("\nprefork,8,100,churn,conn_per_s,12000,11400,12600,3\n"), "{text}");
        assert!(text.contains("\n\"a \"\"b\"\", c\",,100,hold,served,100,100,100,3\n"), "{text}");
        assert!(text.contains("iterative,,0,idle,processes,2,2,2,3\n"), "{text}");
        assert_eq!([1.0, 0.5, 12_345.678_9, 0.0].map(number), ["1", "0.5", "12345.679", "0"]);
    }
}
