//! One report of several generators that have loaded the same server at the same time, in the same way.
//!
//! Invariant: what can't be put together without a guess is refused, and what depends on how they ran is said: rates are sums of what each
//! generator had in its own time, which a server had only while all ran.

use std::collections::BTreeMap;

use super::fault::Fault;
use super::latencies::Latencies;
use super::plan::Phase;
use super::report::{Figures, Report, Settings, Together, VERSION};
use super::text::micros;

/// The share of the longest time for which all should have run at once.
const AT_ONCE: f64 = 0.9;

/// No time and no rate of a generator is larger, and sums are numbers still.
const LARGEST: f64 = 1e15;

impl Report {
    /// Puts the reports of several generators together; each has a name for what must be said of it alone.
    ///
    /// Counts, clients, rates and processor times are sums, percentiles are those of all latencies, and the time is the longest of any. The
    /// result is a report like others: it can be merged again.
    ///
    /// # Errors
    ///
    /// Why that can't be, with the names of the reports that don't fit.
    pub fn merged(reports: &[(String, Self)]) -> Result<Self, String> {
        let [(first_name, first), others @ ..] = reports else { return Err("there is no report".to_owned()) };
        for (at, (name, report)) in reports.iter().enumerate() {
            report.check().map_err(|why| format!("{name}: {why}"))?;
            first.fits(report).map_err(|why| format!("{name} is no part of what {first_name} is: {why}"))?;
            if let Some((twin, _)) = reports[..at].iter().find(|(_, other)| other == report) {
                return Err(format!("{twin} and {name} are the same report"));
            }
        }
        let mut sum = first.clone();
        for figures in &mut sum.phases {
            name_warnings(figures, first_name, reports.len());
        }
        for (name, report) in others {
            sum.add(report.clone(), name).map_err(|why| format!("{name}: {why}"))?;
        }
        for figures in &mut sum.phases {
            let warning = figures.together.and_then(|together| apart(figures.seconds, together));
            figures.warnings.extend(warning);
        }
        Ok(sum)
    }

    /// Whether it has what a sum needs.
    fn check(&self) -> Result<(), String> {
        if self.version != VERSION {
            return Err(format!("its format has version {}, and this forkd knows {VERSION}", self.version));
        }
        if self.during.is_some() {
            return Err("it tells what a command has cost (--during), each loss by its moment: there is no sum of these".to_owned());
        }
        if self.phases.is_empty() {
            return Err("nothing was measured".to_owned());
        }
        let Settings { duration_s, warm_up_s, timeout_s, rate, .. } = self.settings;
        if ![duration_s, warm_up_s, timeout_s].into_iter().chain(rate).all(is_measurable) {
            return Err("its settings are none that can be".to_owned());
        }
        self.phases.iter().try_for_each(Figures::check)
    }

    /// Whether another generator has done the same to the same server.
    fn fits(&self, other: &Self) -> Result<(), String> {
        let same = |what: &str, one: String, other: String| match one == other {
            true => Ok(()),
            false => Err(format!("its {what} is {other}, and not {one}")),
        };
        let phases = |report: &Self| {
            let names: Vec<&str> = report.phases.iter().map(|figures| figures.phase.name()).collect();
            names.join(",")
        };
        let loop_of = |settings: &Settings| match settings.rate {
            Some(_) => "open (--rate)",
            None => "closed (without --rate)",
        };
        let (a, b) = (&self.settings, &other.settings);
        same("server", self.endpoint.to_string(), other.endpoint.to_string())?;
        same("list of phases", phases(self), phases(other))?;
        same("loop", loop_of(a).to_owned(), loop_of(b).to_owned())?;
        same("message size", a.size.to_string(), b.size.to_string())?;
        same("piece size", a.piece.to_string(), b.piece.to_string())?;
        same("time-out", a.timeout_s.to_string(), b.timeout_s.to_string())
    }

    fn add(&mut self, other: Self, name: &str) -> Result<(), String> {
        self.generators = plus(self.generators, other.generators)?;
        self.interrupted |= other.interrupted;
        self.settings.add(&other.settings)?;
        for (sum, mut figures) in self.phases.iter_mut().zip(other.phases) {
            name_warnings(&mut figures, name, 2);
            sum.add(figures)?;
        }
        Ok(())
    }
}

impl Settings {
    fn add(&mut self, other: &Self) -> Result<(), String> {
        self.clients = plus(self.clients, other.clients)?;
        self.threads = plus(self.threads, other.threads)?;
        self.operations = self.operations.zip(other.operations).map(|(a, b)| plus(a, b)).transpose()?;
        self.rate = self.rate.zip(other.rate).map(|(a, b)| a + b);
        self.duration_s = self.duration_s.max(other.duration_s);
        self.warm_up_s = self.warm_up_s.max(other.warm_up_s);
        Ok(())
    }
}

impl Figures {
    fn check(&self) -> Result<(), String> {
        let phase = self.phase.name();
        if self.began_unix_s.is_none() || (self.latencies_hdr.is_none() && self.mean_us.is_some()) {
            return Err(format!(
                "it has no histogram of {phase}, as it was written by a forkd that kept none: measure it again"
            ));
        }
        let together = self.together.iter().flat_map(|together| [together.began_unix_s, together.seconds]);
        let numbers = [self.seconds, self.per_s, self.mb_per_s, self.client_cpu_s, self.client_busy];
        if !numbers.into_iter().chain(self.began_unix_s).chain(together).all(is_measurable) {
            return Err(format!("its figures of {phase} are none that can be measured"));
        }
        if let Some(key) = self.errors.keys().find(|key| Fault::of_key(key).is_none()) {
            return Err(format!("it has a kind of error in {phase} that this forkd does not know: {key}"));
        }
        let timed = self.latencies()?.count();
        if self.phase != Phase::Bulk && Some(timed) != self.done.checked_add(self.unsent) {
            return Err(format!(
                "its histogram of {phase} has {timed} operations, and its figures have another number"
            ));
        }
        Ok(())
    }

    fn latencies(&self) -> Result<Latencies, String> {
        self.latencies_hdr.as_deref().map_or_else(|| Ok(Latencies::default()), Latencies::decode)
    }

    fn add(&mut self, other: Self) -> Result<(), String> {
        let mut latencies = self.latencies()?;
        latencies.add(&other.latencies()?);
        // of clients that stay, the time is the one until all were served: they all stay after that
        let together = (self.phase != Phase::Hold).then(|| self.span().intersection(other.span()));
        let mut errors = std::mem::take(&mut self.errors);
        add_errors(&mut errors, &other.errors)?;
        let sum = Self {
            phase: self.phase,
            clients: plus(self.clients, other.clients)?,
            served: plus(self.served, other.served)?,
            still_served: self.still_served.zip(other.still_served).map(|(a, b)| plus(a, b)).transpose()?,
            began_unix_s: self.began_unix_s.into_iter().chain(other.began_unix_s).reduce(f64::min),
            seconds: self.seconds.max(other.seconds),
            together,
            done: plus(self.done, other.done)?,
            per_s: self.per_s + other.per_s,
            mb_per_s: self.mb_per_s + other.mb_per_s,
            errors,
            lost: plus(self.lost, other.lost)?,
            late: plus(self.late, other.late)?,
            unsent: plus(self.unsent, other.unsent)?,
            client_cpu_s: self.client_cpu_s + other.client_cpu_s,
            client_busy: self.client_busy.max(other.client_busy),
            warnings: std::mem::take(&mut self.warnings).into_iter().chain(other.warnings).collect(),
            ..other
        };
        *self = sum.timed(&latencies);
        Ok(())
    }

    /// When it was measured, by all of its generators.
    fn span(&self) -> Together {
        let own = Together { began_unix_s: self.began_unix_s.unwrap_or_default(), seconds: self.seconds };
        self.together.unwrap_or(own)
    }
}

impl Together {
    fn intersection(self, other: Self) -> Self {
        let end = |span: Self| span.began_unix_s + span.seconds;
        let began_unix_s = self.began_unix_s.max(other.began_unix_s);
        Self { began_unix_s, seconds: (end(self).min(end(other)) - began_unix_s).max(0.0) }
    }
}

/// The warning about generators that did not run at once.
fn apart(longest: f64, together: Together) -> Option<String> {
    let [at_once, most] = [together.seconds, longest].map(|seconds| micros(seconds * 1e6));
    (together.seconds < longest * AT_ONCE).then(|| {
        format!(
            "the generators ran at once for {at_once} of {most}, by their clocks: the server had the sum of their rates for no longer; \
             start them together, or have them run for longer"
        )
    })
}

fn is_measurable(number: f64) -> bool {
    (0.0..=LARGEST).contains(&number)
}

/// Says whose warnings they are, where there are several.
fn name_warnings(figures: &mut Figures, name: &str, of: usize) {
    if of > 1 {
        figures.warnings.iter_mut().for_each(|warning| *warning = format!("{name}: {warning}"));
    }
}

fn add_errors(sum: &mut BTreeMap<String, u64>, more: &BTreeMap<String, u64>) -> Result<(), String> {
    for (key, count) in more {
        let all = sum.entry(key.clone()).or_default();
        *all = plus(*all, *count)?;
    }
    Ok(())
}

/// A sum of counts, which a number that was made up could exceed.
fn plus<N: TryInto<u64> + TryFrom<u64>>(one: N, other: N) -> Result<N, String> {
    let sum = one.try_into().ok().zip(other.try_into().ok()).and_then(|(one, other)| one.checked_add(other));
    sum.and_then(|sum| N::try_from(sum).ok()).ok_or_else(|| "its counts are too large to be added".to_owned())
}

#[cfg(test)]
mod tests;
