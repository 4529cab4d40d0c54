//! What the page says about how its figures came to be.

use super::figures;
use super::plot::escaped;
use super::slo;
use crate::record::Record;
use forkd_load::text::thousands;

/// How operations followed each other.
pub(super) fn paced(record: &Record) -> String {
    match record.settings.rate {
        _ if !record.settings.slo.is_empty() => "Connections came due at a constant rate whatever the server did, and each latency \
             counts from when it was due; each rate was tried until two runs agreed, of three at most."
            .into(),
        Some(rate) => format!(
            "Operations came due {} times a second whatever the server did, and each latency counts from when it was due.",
            thousands(rate)
        ),
        None => "Each client waited for its echo before it went on (closed loop), so a slow server was asked less; \
                 --rate asks at a constant rate instead."
            .into(),
    }
}

fn definitions<'a>(items: impl Iterator<Item = (&'a str, String)>) -> String {
    items.map(|(term, text)| format!("<dt>{}</dt><dd>{}</dd>\n", escaped(term), escaped(&text))).collect()
}

/// How each figure that is shown was measured.
pub(super) fn method(record: &Record) -> String {
    let shown = figures::ALL.iter().copied().chain(&slo::FIGURES).filter(|figure| figure.is_in(record));
    definitions(shown.map(|figure| (figure.head, figure.how.to_owned())))
}

/// On what, and with what settings.
pub(super) fn settings(record: &Record) -> String {
    let (machine, settings) = (&record.machine, &record.settings);
    let listed =
        |numbers: &[usize]| numbers.iter().map(|n| thousands(*n as f64)).collect::<Vec<_>>().join(", ");
    let phases: Vec<&str> = settings.phases.iter().map(|phase| phase.name()).collect();
    let mut items = vec![
        (
            "machine",
            format!(
                "{} × {}, {} MiB",
                machine.processors,
                machine.processor,
                thousands(machine.memory_mib as f64)
            ),
        ),
        ("system", machine.kernel.clone()),
        ("processor time by", machine.cpu_by.clone()),
        ("open files, at most", thousands(machine.open_files as f64)),
        ("clients", listed(&settings.clients)),
        (
            "phases",
            format!("{}; {} s each, {} rounds", phases.join(", "), settings.duration_s, settings.rounds),
        ),
        (
            "messages",
            format!(
                "{} bytes, seed {}, service {}, over {}",
                settings.size, settings.seed, settings.service, settings.transport
            ),
        ),
    ];
    items.extend(settings.stay_s.map(|stay| ("clients stay", format!("{stay} s after their echo"))));
    items.extend(machine.load_before.map(|load| ("load average before", format!("{load:.2}"))));
    if let Some(calibration) = &record.calibration {
        let rates = [
            (calibration.conn_per_s, "connections/s"),
            (calibration.req_per_s, "requests/s"),
            (calibration.mb_per_s, "MB/s"),
            (calibration.datagrams_per_s, "datagrams/s"),
        ];
        let rates: Vec<String> =
            rates.iter().filter_map(|(rate, unit)| Some(format!("{} {unit}", thousands((*rate)?)))).collect();
        items.push(("the same clients against a server that does as little as possible", rates.join(", ")));
    }
    let commands = record.models.iter().filter_map(|entry| Some((entry, entry.command.as_ref()?)));
    let commands: Vec<_> = commands.map(|(entry, command)| (entry.title(), command.clone())).collect();
    definitions(items.into_iter())
        + &definitions(commands.iter().map(|(title, command)| (&**title, command.clone())))
}
