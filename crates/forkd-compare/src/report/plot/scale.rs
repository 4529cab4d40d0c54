//! From values to places on paper, and which values are marked: pure.

/// The most ticks that an axis has.
const TICKS: f64 = 5.0;

/// How many powers of ten a logarithmic axis has at most; what is smaller lies at its beginning.
const DECADES: f64 = 15.0;

/// An axis between two places, with marks at round numbers.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scale {
    is_log: bool,
    low: f64,
    high: f64,
    /// Where the lowest value is, and the highest.
    place: (f64, f64),
    /// The values that are marked.
    pub(super) ticks: Vec<f64>,
}

impl Scale {
    /// From zero to the greatest value.
    pub(super) fn linear(values: impl Iterator<Item = f64>, place: (f64, f64)) -> Self {
        let most = values.filter(|value| value.is_finite()).fold(0.0, f64::max);
        let most = if most > 0.0 { most.clamp(1e-12, 1e15) } else { 1.0 };
        let step = round_up(most / TICKS);
        let ticks = (0..=TICKS as usize).map(|k| k as f64 * step).filter(|tick| *tick <= most * 1.000_001);
        Self { is_log: false, low: 0.0, high: most, place, ticks: ticks.collect() }
    }

    /// From 1, 2 or 5 times a power of ten to another one; values that are not above zero have no place.
    pub(super) fn log(values: impl Iterator<Item = f64>, place: (f64, f64)) -> Self {
        let (mut low, mut high) = (f64::INFINITY, 0.0_f64);
        for value in values.filter(|value| value.is_finite() && *value > 0.0) {
            (low, high) = (low.min(value), high.max(value));
        }
        if high == 0.0 {
            (low, high) = (1.0, 10.0);
        }
        let high = round_up(high.clamp(1e-12, 1e15));
        let low = round_down(low.max(high / 10_f64.powf(DECADES)).min(high / 2.0));
        let mut ticks: Vec<f64> = steps(low, high).collect();
        let decades: Vec<f64> = ticks.iter().copied().filter(|tick| is_decade(*tick)).collect();
        if ticks.len() > 7 && decades.len() > 1 {
            let every = decades.len().div_ceil(6);
            ticks = decades.into_iter().step_by(every).collect();
            // where the axis begins is worth a mark, too, if it doesn't meet the next one
            if (ticks[0] / low).ln() > (high / low).ln() / 16.0 {
                ticks.insert(0, low);
            }
        }
        Self { is_log: true, low, high, place, ticks }
    }

    /// The same axis with these marks.
    pub(super) fn marked(self, ticks: &[f64]) -> Self {
        Self {
            ticks: ticks.iter().copied().filter(|tick| (self.low..=self.high).contains(tick)).collect(),
            ..self
        }
    }

    /// From a value to another one, evenly.
    pub(super) fn even(low: f64, high: f64, place: (f64, f64)) -> Self {
        Self { is_log: false, low, high, place, ticks: Vec::new() }
    }

    /// Where a value is; never outside.
    pub(super) fn at(&self, value: f64) -> f64 {
        let share = match self.is_log {
            true if value > 0.0 => (value / self.low).ln() / (self.high / self.low).ln(),
            true => 0.0,
            false => (value - self.low) / (self.high - self.low),
        };
        let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
        self.place.0 + share * (self.place.1 - self.place.0)
    }
}

/// 1, 2 and 5 times each power of ten between two of them.
fn steps(low: f64, high: f64) -> impl Iterator<Item = f64> {
    let first = low.log10().floor() as i32;
    let last = high.log10().ceil() as i32;
    (first..=last)
        .flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(power)))
        .filter(move |step| (low * 0.999..=high * 1.001).contains(step))
}

fn is_decade(value: f64) -> bool {
    (value.log10() - value.log10().round()).abs() < 1e-9
}

/// The next of 1, 2 or 5 times a power of ten.
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0]
        .into_iter()
        .map(|digit| digit * power)
        .find(|round| *round >= value * 0.999_999)
        .unwrap_or(10.0 * power)
}

fn round_down(value: f64) -> f64 {
    let power = 10_f64.powf((value * 1.000_001).log10().floor());
    let below = |digit: &f64| digit * power <= value * 1.000_001;
    [5.0, 2.0, 1.0].into_iter().find(below).map_or(power, |digit| digit * power)
}

/// Moves places apart, so that neighbours are at least `gap` from each other, and within the limits as far
/// as there is room; the order stays.
pub(super) fn apart(places: &[f64], gap: f64, (top, bottom): (f64, f64)) -> Vec<f64> {
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_by(|a, b| places[*a].total_cmp(&places[*b]));
    let mut moved = places.to_vec();
    let mut least = top;
    for k in &order {
        moved[*k] = moved[*k].max(least);
        least = moved[*k] + gap;
    }
    let mut most = bottom;
    for k in order.iter().rev() {
        moved[*k] = moved[*k].min(most);
        most = moved[*k] - gap;
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn log(low: f64, high: f64) -> Scale {
        Scale::log([low, high].into_iter(), (0.0, 100.0))
    }

    #[test]
    fn ticks_are_round_numbers() {
        let linear = |most: f64| Scale::linear([most].into_iter(), (0.0, 100.0)).ticks;
        assert_eq!(linear(101.0), [0.0, 50.0, 100.0]);
        assert_eq!(linear(31_234.0), [0.0, 10_000.0, 20_000.0, 30_000.0]);
        assert_eq!(linear(1.0), [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]);
        assert_eq!(linear(0.0), linear(1.0));
        assert_eq!(log(30.0, 900.0).ticks, [20.0, 50.0, 100.0, 200.0, 500.0, 1000.0]);
        assert_eq!(log(1.0, 1000.0).ticks, [1.0, 10.0, 100.0, 1000.0]);
        assert_eq!(log(2.0, 1000.0).ticks, [2.0, 10.0, 100.0, 1000.0]);
        assert_eq!(log(5.0, 1e9).ticks, [10.0, 1e3, 1e5, 1e7, 1e9]);
        assert_eq!(log(7.0, 7.0).ticks, [5.0, 10.0]);
    }

    #[test]
    fn values_lie_where_they_belong() {
        let scale = Scale::linear([100.0].into_iter(), (50.0, 250.0));
        assert_eq!(
            [0.0, 50.0, 100.0, 1e9, -1.0, f64::NAN].map(|v| scale.at(v)),
            [50.0, 150.0, 250.0, 250.0, 50.0, 50.0]
        );
        let places = [1.0, 10.0, 100.0, 0.0].map(|value| log(1.0, 100.0).at(value).round());
        assert_eq!(places, [0.0, 50.0, 100.0, 0.0]);
    }

    #[test]
    fn labels_move_apart_and_stay_within() {
        assert_eq!(apart(&[10.0, 11.0, 50.0], 10.0, (0.0, 100.0)), [10.0, 20.0, 50.0]);
        assert_eq!(apart(&[99.0, 98.0], 10.0, (0.0, 100.0)), [100.0, 90.0]);
        assert!(apart(&[], 10.0, (0.0, 100.0)).is_empty());
    }

    proptest! {
        #[test]
        fn every_value_has_a_place(values in prop::collection::vec(prop::num::f64::ANY, 0..9), asked in prop::num::f64::ANY) {
            for scale in [Scale::linear(values.iter().copied(), (10.0, 90.0)), Scale::log(values.iter().copied(), (10.0, 90.0))] {
                prop_assert!((10.0..=90.0).contains(&scale.at(asked)), "{scale:?}");
                prop_assert!((1..=8).contains(&scale.ticks.len()), "{scale:?}");
            }
        }
    }
}
