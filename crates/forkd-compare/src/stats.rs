//! Figures of figures: the middle, and whether two sets differ by more than chance.

/// From which probability on a difference is taken for chance.
pub const LEVEL: f64 = 0.05;

/// The most rounds, of both sets together, for which every order is counted.
const EXACT: usize = 60;

/// The middle of some values, or the mean of the two in the middle; `None` if there are none.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        _ if values.is_empty() => None,
        0 => Some(values[middle - 1].midpoint(values[middle])),
        _ => Some(values[middle]),
    }
}

/// The least and the greatest of some values.
#[must_use]
pub fn range(values: &[f64]) -> Option<(f64, f64)> {
    let least = values.iter().copied().reduce(f64::min)?;
    Some((least, values.iter().copied().fold(least, f64::max)))
}

/// What can be said of the difference between two sets of rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict {
    /// No order of so few rounds would be rare enough.
    TooFew {
        /// How many rounds the second set needs, so that there would be one.
        needed: usize,
    },
    /// Rounds of one and the same server would often differ as much.
    Chance {
        /// How often, from 0 to 1.
        p: f64,
    },
    /// They would seldom.
    Real {
        /// How often, from 0 to 1.
        p: f64,
    },
}

/// Judges the difference between two sets of rounds by the two-sided test of Mann and Whitney (1947), which
/// assumes nothing about how they are distributed.
///
/// ```
/// use forkd_compare::stats::{Verdict, verdict};
/// assert_eq!(verdict(&[1.0, 2.0, 3.0], &[7.0, 8.0, 9.0]), Verdict::TooFew { needed: 5 });
/// assert!(matches!(verdict(&[1.0, 2.0, 3.0, 4.0], &[6.0, 7.0, 8.0, 9.0]), Verdict::Real { .. }));
/// ```
#[must_use]
pub fn verdict(one: &[f64], other: &[f64]) -> Verdict {
    let can_tell = |other: usize| 2.0 / orders(one.len(), other) < LEVEL;
    if one.is_empty() || !can_tell(other.len()) {
        // one round alone tells with 40 on the other side
        return Verdict::TooFew { needed: (1..40).find(|count| can_tell(*count)).unwrap_or(40) };
    }
    match mann_whitney(one, other) {
        p if p < LEVEL => Verdict::Real { p },
        p => Verdict::Chance { p },
    }
}

/// What a ratio is likely to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The least.
    pub low: f64,
    /// In the middle: half of all ratios of one value to another are above it (Hodges and Lehmann, 1963).
    pub middle: f64,
    /// The most.
    pub high: f64,
}

/// The confidence interval of the ratio of the second set to the first: all ratios that the test of [`verdict`] does not
/// exclude at this level (Hollander and Wolfe, "Nonparametric Statistical Methods", 4.3). `None` where too few rounds exclude
/// none. Values are above zero.
///
/// ```
/// use forkd_compare::stats::ratio_interval;
/// let interval = ratio_interval(&[100.0, 101.0, 102.0, 103.0], &[200.0, 202.0, 204.0, 206.0], 0.05).unwrap();
/// assert!(interval.low > 1.9 && interval.middle == 2.0 && interval.high < 2.1);
/// assert_eq!(ratio_interval(&[1.0, 2.0, 3.0], &[1.0, 2.0, 3.0], 0.05), None);
/// ```
#[must_use]
pub fn ratio_interval(before: &[f64], now: &[f64], level: f64) -> Option<Interval> {
    let beyond = beyond(before.len(), now.len(), level)?;
    let mut ratios: Vec<f64> = before.iter().flat_map(|was| now.iter().map(move |is| is / was)).collect();
    ratios.sort_by(f64::total_cmp);
    let (low, high) = (*ratios.get(beyond)?, *ratios.get(ratios.len().checked_sub(beyond + 1)?)?);
    Some(Interval { low, middle: median(ratios)?, high })
}

/// How many of the ratios at each end may be left out at this level; `None` if not even none may.
fn beyond(one: usize, other: usize, level: f64) -> Option<usize> {
    if one == 0 || other == 0 {
        return None;
    }
    if one + other > EXACT {
        let (n, m) = (one as f64, other as f64);
        let deviation = (n * m * (n + m + 1.0) / 12.0).sqrt();
        let deviations = (1..1000).map(|k| f64::from(k) / 100.0).find(|k| tails(*k) < level)?;
        return Some((n * m / 2.0 - deviations * deviation).max(0.0) as usize);
    }
    // as in `exact`, of ranks without ties: ways[k][u], choices of k with the count u of Mann and Whitney
    let most = one * other;
    let mut ways = vec![vec![0.0; most + 1]; one + 1];
    ways[0][0] = 1.0;
    for rank in 0..one + other {
        for k in (1..=one).rev() {
            // the k-th of them by size has rank - (k - 1) of the others below it
            let Some(below) = (rank + 1).checked_sub(k).filter(|below| *below <= other) else { continue };
            for u in below..=most {
                ways[k][u] += ways[k - 1][u - below];
            }
        }
    }
    let all: f64 = ways[one].iter().sum();
    let mut sum = 0.0;
    let excluded = ways[one].iter().take_while(|ways| {
        sum += **ways;
        2.0 * sum / all < level
    });
    excluded.count().checked_sub(1)
}

/// How many rounds both sets need, so that a difference can be told at this level.
#[must_use]
pub fn needed_rounds(level: f64) -> usize {
    (1..EXACT).find(|count| 2.0 / orders(*count, *count) < level).unwrap_or(EXACT)
}

/// In how many ways some of one kind and some of another can be put in a row.
fn orders(one: usize, other: usize) -> f64 {
    (1..=one).map(|k| (other + k) as f64 / k as f64).product()
}

/// The probability that the sum of ranks is as far from its mean as here, or farther, if both sets are of
/// one distribution. Equal values share the mean of their ranks.
fn mann_whitney(one: &[f64], other: &[f64]) -> f64 {
    let ranks = doubled_ranks(one, other);
    let sum: usize = ranks[..one.len()].iter().sum();
    // doubled, as the ranks are, so that all are whole numbers
    let mean = one.len() * (ranks.len() + 1);
    let distance = sum.abs_diff(mean);
    match ranks.len() {
        ..=EXACT => exact(&ranks, one.len(), mean, distance),
        _ => normal(&ranks, one.len(), distance),
    }
}

/// Twice the rank of each value among all.
fn doubled_ranks(one: &[f64], other: &[f64]) -> Vec<usize> {
    let all = [one, other].concat();
    let rank = |value: &f64| {
        let below = all.iter().filter(|v| *v < value).count();
        let same = all.iter().filter(|v| *v == value).count();
        2 * below + same + 1
    };
    all.iter().map(rank).collect()
}

/// Counts in how many of all choices of `chosen` ranks the sum is so far from its mean.
fn exact(ranks: &[usize], chosen: usize, mean: usize, distance: usize) -> f64 {
    let most: usize = ranks.iter().sum();
    // ways[k][s]: choices of k ranks with the sum s
    let mut ways = vec![vec![0.0; most + 1]; chosen + 1];
    ways[0][0] = 1.0;
    for rank in ranks {
        for k in (1..=chosen).rev() {
            for s in *rank..=most {
                ways[k][s] += ways[k - 1][s - rank];
            }
        }
    }
    let all: f64 = ways[chosen].iter().sum();
    let far: f64 = ways[chosen]
        .iter()
        .enumerate()
        .filter(|(sum, _)| sum.abs_diff(mean) >= distance)
        .map(|(_, count)| count)
        .sum();
    far / all
}

/// The same for many rounds, whose sum of ranks is nearly normal.
fn normal(ranks: &[usize], chosen: usize, distance: usize) -> f64 {
    let (n, chosen) = (ranks.len() as f64, chosen as f64);
    let mean = n + 1.0;
    let variance = ranks.iter().map(|rank| (*rank as f64 - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let deviation = (variance * chosen * (n - chosen) / n).sqrt();
    if deviation > 0.0 { tails(distance as f64 / deviation) } else { 1.0 }
}

/// The share of a normal distribution beyond a number of standard deviations, on both sides; at most 2e-7 off
/// (Abramowitz and Stegun, 7.1.26).
fn tails(deviations: f64) -> f64 {
    let x = deviations / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let factors = [1.061_405_429, -1.453_152_027, 1.421_413_741, -0.284_496_736, 0.254_829_592];
    factors.iter().fold(0.0, |sum, factor| (sum + factor) * t) * (-x * x).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: f64, expected: f64) {
        assert!((got - expected).abs() < 5e-5, "{got} instead of {expected}");
    }

    #[test]
    fn the_middle_and_the_ends() {
        assert_eq!(median([]), None);
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(range(&[]), None);
        assert_eq!(range(&[2.0, 1.0, 3.0]), Some((1.0, 3.0)));
    }

    #[test]
    fn the_test_agrees_with_the_literature() {
        // Hollander and Wolfe (1973), 69f.: one-sided 0.1272
        let membranes = [0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46];
        let younger = [1.15, 0.88, 0.90, 0.74, 1.21];
        close(mann_whitney(&membranes, &younger), 0.2544);
        close(mann_whitney(&younger, &membranes), 0.2544);
        // nothing overlaps: 2 of 70, and of 252
        close(mann_whitney(&[1.0, 2.0, 3.0, 4.0], &[5.0, 6.0, 7.0, 8.0]), 2.0 / 70.0);
        close(mann_whitney(&[6.0, 7.0, 8.0, 9.0, 10.0], &[1.0, 2.0, 3.0, 4.0, 5.0]), 2.0 / 252.0);
        // all are equal
        close(mann_whitney(&[1.0; 4], &[1.0; 4]), 1.0);
    }

    #[test]
    fn ties_are_counted_exactly() {
        // the 20 choices of three from 1, 2, 2 | 2, 3, 3, by hand: three have the least sum, three the most
        close(mann_whitney(&[1.0, 2.0, 2.0], &[2.0, 3.0, 3.0]), 6.0 / 20.0);
    }

    #[test]
    fn many_rounds_come_close_to_the_exact_answer() {
        let one: Vec<f64> = (0..30).map(|k| f64::from(k * 37 % 101)).collect();
        let other: Vec<f64> = (0..30).map(|k| f64::from(k * 53 % 97) + 12.0).collect();
        let ranks = doubled_ranks(&one, &other);
        let distance = ranks[..30].iter().sum::<usize>().abs_diff(30 * 61);
        let (exact, normal) = (exact(&ranks, 30, 30 * 61, distance), normal(&ranks, 30, distance));
        assert!((exact - normal).abs() < 0.005, "{exact} {normal}");
        close(tails(1.959_964), 0.05);
        close(tails(0.0), 1.0);
        assert!(matches!(verdict(&[1.0; 100], &[2.0; 100]), Verdict::Real { .. }));
        assert!(matches!(verdict(&[1.0; 100], &[1.0; 100]), Verdict::Chance { p } if p == 1.0));
    }

    #[test]
    fn an_interval_excludes_what_the_test_excludes() {
        let (before, now) = ([10.0, 11.0, 12.0, 13.0, 14.0, 15.0], [9.0, 10.5, 12.5, 13.5, 14.5, 17.0]);
        let interval = ratio_interval(&before, &now, LEVEL).unwrap();
        let is_real = |ratio: f64| {
            let scaled = before.map(|value| value * ratio);
            matches!(verdict(&scaled, &now), Verdict::Real { .. })
        };
        for (end, out) in [(interval.low, 0.999), (interval.high, 1.001)] {
            assert!(is_real(end * out) && !is_real(end / out), "{interval:?}");
        }
        assert!(interval.low < interval.middle && interval.middle < interval.high);
        // four against four: only the two ends of all orders are rare enough, and at a tenth of the level none is
        assert_eq!(
            (beyond(4, 4, LEVEL), beyond(4, 4, LEVEL / 10.0), beyond(3, 3, LEVEL)),
            (Some(0), None, None)
        );
        assert_eq!(
            (needed_rounds(LEVEL), needed_rounds(LEVEL / 10.0), needed_rounds(LEVEL / 40.0)),
            (4, 6, 7)
        );
        let many: Vec<f64> = (100..140).map(f64::from).collect();
        let wide = ratio_interval(&many, &many, LEVEL).unwrap();
        assert!(wide.low > 0.9 && wide.low < 1.0 && wide.high > 1.0 && wide.high < 1.1, "{wide:?}");
    }

    #[test]
    fn too_few_rounds_say_nothing_and_how_many_would() {
        let of = |one: usize, other: usize| verdict(&vec![1.0; one], &vec![2.0; other]);
        assert_eq!(of(3, 3), Verdict::TooFew { needed: 5 });
        assert_eq!(of(2, 2), Verdict::TooFew { needed: 8 });
        assert_eq!(of(1, 9), Verdict::TooFew { needed: 40 });
        assert_eq!(of(0, 9), Verdict::TooFew { needed: 40 });
        assert_eq!(of(4, 0), Verdict::TooFew { needed: 4 });
        assert!(matches!(of(4, 4), Verdict::Real { .. }));
        assert!(matches!(of(3, 5), Verdict::Real { .. }));
        assert!(matches!(of(1, 40), Verdict::Real { .. }));
        assert!(matches!(verdict(&[1.0, 3.0, 5.0, 7.0], &[2.0, 4.0, 6.0, 8.0]), Verdict::Chance { .. }));
    }
}
