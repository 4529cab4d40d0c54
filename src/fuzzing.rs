//! Promises about bytes that come from outside: a function for each kind, which panics where one is broken.
//!
//! `fuzz/` hands them to libFuzzer; `cargo test` runs them over the seeds in `fuzz/seeds`, which hold
//! what fuzzing has found.

// a promise that is broken is a panic
#![allow(clippy::expect_used, clippy::unwrap_used)]

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;

use crate::config::{Config, File, Sources};
use crate::daemon::control::Request;
use crate::daemon::rates::Rates;
use crate::daemon::status::{Pardoned, SourcesStatus, Status, Watched};
use crate::sys::datagram::{Datagram, Destination, Source};
use crate::{Error, foreign};
use forkd_compare::record::Record;
use forkd_compare::report::difference::Difference;
use forkd_compare::report::{chart, csv, findings, html, svg, table};
use forkd_load::Report;
use forkd_server::service::Http;
use forkd_server::supervise::UdpFilter;
use forkd_server::{Protocol, Reply};

/// A configuration file: it is refused with a sentence that a terminal can show, or it is in force, and then the
/// file that [`Config::to_toml`] writes is the same configuration.
pub fn config(input: &[u8]) {
    let resolve = |text: &[u8]| -> Result<Config, Error> {
        let file = File::parse(Path::new("forkd.toml"), text.to_vec())?;
        Config::merge(&Sources::default(), Some(file), Path::new("/"), |_| None, &[])
    };
    match resolve(input) {
        Err(error) => is_printable(&error.sentence()),
        Ok(config) => {
            let text = config.to_toml().expect("what stood in a file can be written");
            assert_eq!(resolve(text.as_bytes()).expect(&text), config, "{text}");
        }
    }
}

/// What an http client sends: the answer does not depend on how the bytes are cut, here by the first byte.
pub fn http(input: &[u8]) {
    let Some((&size, input)) = input.split_first() else { return };
    let whole = dialogue(std::iter::once(input));
    let pieces = dialogue(input.chunks(usize::from(size) + 1));
    assert_eq!(whole, pieces);
    assert!(whole.is_empty() || whole.starts_with("HTTP/1.1 "), "{whole}");
}

/// What the service http answers to these pieces, without the time of day, and with files as their ranges.
fn dialogue<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> String {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds");
    let mut http = Http::new().root(root).expect("the seeds are there").route("/answer", || "42\n");
    let mut output = Vec::new();
    let is_over = pieces.into_iter().any(|piece| {
        let mut is_resumed = false;
        loop {
            let reply = if is_resumed { http.resume() } else { http.received(piece) };
            match reply {
                Reply::Wait | Reply::WaitFor(_) => return false,
                Reply::Send(bytes) => {
                    output.extend_from_slice(bytes);
                    return false;
                }
                Reply::More(bytes) => output.extend_from_slice(bytes),
                Reply::File(part) => output.extend_from_slice(format!("{part:?}").as_bytes()),
                Reply::Finish(bytes) => {
                    output.extend_from_slice(bytes);
                    return true;
                }
            }
            is_resumed = true;
        }
    });
    if !is_over && let Reply::Send(bytes) | Reply::Finish(bytes) = http.ended() {
        output.extend_from_slice(bytes);
    }
    let is_timeless = |line: &&str| !line.starts_with("Date: ");
    String::from_utf8_lossy(&output).split_inclusive('\n').filter(is_timeless).collect()
}

/// What comes over a control socket. As a request, it is one, or is answered with JSON that says why not. As an
/// answer, it is no forkd's, or it is shown.
pub fn control(input: &[u8]) {
    if let Request::Unknown(answer) = Request::parse(input) {
        is_printable(&answer);
        let value: serde_json::Value = serde_json::from_str(&answer).expect("an answer is JSON");
        assert!(value["error"].is_string());
    }
    if let Ok(answer) = foreign::from_json::<SourcesStatus>(input) {
        is_printable(&answer.to_string());
        let rule = "::/0".parse().expect("a network");
        is_printable(&Pardoned { rule, answer: &answer }.to_string());
    }
    let Ok(status) = foreign::from_json::<Status>(input) else { return };
    is_printable(&status.to_string());
    let later = Status { uptime_s: status.uptime_s + 1.0, ..status.clone() };
    let rates = Rates::between(&status, &later);
    for width in [None, Some(1), Some(80)] {
        is_printable(&Watched { status: &later, rates: rates.as_ref(), width }.to_string());
    }
}

/// A datagram's addresses: two daemons that send each other their answers come to an end.
pub fn udp_filter(input: &[u8]) {
    let mut bytes = input.iter().copied().chain(std::iter::repeat(0));
    let mut next = || bytes.next().unwrap_or_default();
    let mut ip = |kind: u8| -> IpAddr {
        let octets: [u8; 16] = std::array::from_fn(|_| next());
        match kind % 3 {
            0 => IpAddr::from([octets[0], octets[1], octets[2], octets[3]]),
            1 => Ipv6Addr::from(octets).to_canonical(),
            _ => Ipv6Addr::from(octets).into(),
        }
    };
    let [shape, low, high, hops] = std::array::from_fn(|k| input.get(k).copied().unwrap_or_default());
    let own = u16::from_be_bytes([high, low]);
    let source = match shape >> 6 {
        0 => Source::Unix,
        1 => Source::Unnamed,
        _ => Source::Ip(SocketAddr::new(ip(shape), u16::from_be_bytes([low, high]))),
    };
    let destination = (shape & 4 != 0).then(|| Destination { header: ip(shape), local: ip(shape) });
    let mut datagram = Datagram {
        payload: input,
        source,
        destination,
        hops: (shape & 8 != 0).then_some(hops),
        truncated: shape & 16 != 0,
    };
    let filters = [UdpFilter::new([own]), UdpFilter::new([])];
    for bounce in 0.. {
        match filters[bounce % 2].admit(&datagram) {
            // a Unix socket, or a system that doesn't tell the hops: nothing is counted
            Err(_) | Ok(None) => break,
            Ok(Some(left)) => datagram.hops = Some(left),
        }
        assert!(bounce < 255, "a loop that doesn't end: {datagram:?}");
    }
}

/// A record of `forkd compare --json`: it is refused, or each report can be made of it.
pub fn record(input: &[u8]) {
    let Ok(record) = foreign::from_json::<Record>(input) else { return };
    let difference = Difference::between(&record, &record);
    for width in [None, Some(1), Some(80)] {
        is_printable(&table::tables(&record, width));
        is_printable(&chart::charts(&record, width));
        is_printable(&difference.text(width));
    }
    findings::findings(&record)
        .iter()
        .chain(&findings::warnings(&record))
        .for_each(|text| is_printable(text));
    let _ = csv::csv(&record);
    for text in
        svg::files(&record).into_iter().map(|(_, text)| text).chain([html(&record, Some(&difference))])
    {
        assert!(!text.contains("NaN") && !text.contains("inf,"), "a figure that is no number: {text}");
    }
}

/// A report of `forkd load --json`: it is refused, or it can be merged with one like it, shown, and read again; or there is a
/// reason why not.
pub fn report(input: &[u8]) {
    let Ok(report) = foreign::from_json::<Report>(input) else { return };
    let mut later = report.clone();
    for figures in &mut later.phases {
        figures.began_unix_s = figures.began_unix_s.map(|began| began + 1.0);
    }
    match Report::merged(&[("a".to_owned(), report), ("b".to_owned(), later)]) {
        Err(why) => is_printable(&why),
        Ok(merged) => {
            is_printable(&forkd_load::table(&merged.phases));
            // none of which is no number
            let json = serde_json::to_vec(&merged).expect("a report can be written");
            foreign::from_json::<Report>(&json).expect("and read again");
        }
    }
}

/// No control character reaches a terminal but the end of a line.
fn is_printable(text: &str) {
    let control = text.chars().find(|char| char.is_control() && *char != '\n');
    assert_eq!(control, None, "{text:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over_seeds(kind: &str, promise: fn(&[u8])) {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(kind);
        let mut count = 0;
        for seed in std::fs::read_dir(&seeds).unwrap_or_else(|error| panic!("{}: {error}", seeds.display())) {
            promise(&std::fs::read(seed.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 0, "no seed in {}", seeds.display());
    }

    #[test]
    fn configurations() {
        over_seeds("config", config);
    }

    #[test]
    fn requests() {
        over_seeds("http", http);
    }

    #[test]
    fn dialogues() {
        over_seeds("control", control);
    }

    #[test]
    fn datagrams() {
        over_seeds("udp_filter", udp_filter);
    }

    #[test]
    fn reports() {
        over_seeds("report", report);
    }

    #[test]
    fn records() {
        over_seeds("record", record);
    }
}
