//! How long operations took: an HDR histogram.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::clock::Nanos;
use super::encoding;

/// The longest span that is told from longer ones: ten minutes.
const LONGEST: Nanos = 600_000_000_000;

/// The precision: three significant digits, so a span is off by at most 0.1 %.
const DIGITS: u8 = 3;

/// So many spans must exceed a percentile, or chance has made it.
const BEYOND: f64 = 10.0;

/// Tells whether so many spans are enough for a percentile.
#[must_use]
pub fn can_tell(percent: f64, spans: f64) -> bool {
    spans * (1.0 - percent / 100.0) >= BEYOND - 1e-6
}

/// Spans of time with their distribution, at most 0.1 % off, in memory of a fixed size (about 240 KiB).
///
/// ```
/// use std::time::Duration;
/// let mut latencies = forkd_load::Latencies::default();
/// (1..=100).for_each(|ms| latencies.record(Duration::from_millis(ms)));
/// assert_eq!(latencies.percentile(50.0).as_millis(), 50);
/// assert_eq!(latencies.max().as_millis(), 100);
/// ```
#[derive(Debug, Clone)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, LONGEST, DIGITS);
        Self(
            histogram
                .unwrap_or_else(|_| unreachable!("1 to {LONGEST} with {DIGITS} digits are valid bounds")),
        )
    }
}

impl Latencies {
    /// Counts one span; one above ten minutes counts as ten minutes.
    pub fn record(&mut self, span: Duration) {
        self.record_nanos(super::clock::nanos(span));
    }

    pub(super) fn record_nanos(&mut self, span: Nanos) {
        self.0.saturating_record(span);
    }

    /// Returns how many spans were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// Returns the span that `percent` of all spans don't exceed; zero if there is none.
    #[must_use]
    pub fn percentile(&self, percent: f64) -> Duration {
        Duration::from_nanos(self.0.value_at_percentile(percent).min(self.0.max()))
    }

    /// Returns the same where ten spans or more exceed it: with fewer, chance makes it.
    #[must_use]
    pub fn told(&self, percent: f64) -> Option<Duration> {
        can_tell(percent, self.count() as f64).then(|| self.percentile(percent))
    }

    /// Returns the longest span; zero if there is none.
    #[must_use]
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.0.max())
    }

    /// Returns the arithmetic mean; zero if there is none.
    #[must_use]
    pub fn mean(&self) -> Duration {
        Duration::from_nanos(self.0.mean() as u64)
    }

    /// Returns how many spans are about as long as this one, in ascending order and without gaps in the
    /// count, for a chart of the distribution.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> {
        self.0
            .iter_recorded()
            .map(|step| (Duration::from_nanos(step.value_iterated_to()), step.count_at_value()))
    }

    /// Returns them as text, from which [`decode`](Self::decode) and other tools for HDR histograms make the same: nanoseconds in the
    /// encoding V2, deflated, in base64.
    ///
    /// ```
    /// use forkd_load::Latencies;
    /// let mut latencies = Latencies::default();
    /// latencies.record(std::time::Duration::from_millis(3));
    /// let text = latencies.encode();
    /// assert!(text.starts_with("HISTFAAA"));
    /// assert_eq!(Latencies::decode(&text)?.max(), latencies.max());
    /// # Ok::<(), String>(())
    /// ```
    #[must_use]
    pub fn encode(&self) -> String {
        encoding::encode(&self.0)
    }

    /// Reads what [`encode`](Self::encode) has written.
    ///
    /// # Errors
    ///
    /// Why it is none of these: half a sentence.
    pub fn decode(text: &str) -> Result<Self, String> {
        encoding::decode(text, &Self::default().0).map(Self)
    }

    /// Adds the spans of another thread or round.
    pub fn add(&mut self, other: &Self) {
        // both have the same bounds, so nothing can be out of them
        let _ = self.0.add(&other.0);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;
    use flate2::Compression;
    use flate2::read::ZlibDecoder;
    use flate2::write::ZlibEncoder;

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn of_none_all_is_zero() {
        let none = Latencies::default();
        assert_eq!((none.count(), none.max(), none.mean()), (0, Duration::ZERO, Duration::ZERO));
        assert_eq!(none.percentile(99.9), Duration::ZERO);
    }

    #[test]
    fn a_percentile_has_ten_spans_beyond_it() {
        let mut latencies = Latencies::default();
        (1..1000).for_each(|us| latencies.record(Duration::from_micros(us)));
        assert_eq!((latencies.told(99.0), latencies.told(98.9).is_some()), (None, true));
        latencies.record(Duration::from_micros(1000));
        assert_eq!(latencies.told(99.0), Some(latencies.percentile(99.0)));
        assert_eq!(latencies.told(99.9), None);
    }

    #[test]
    fn too_long_counts_as_the_longest() {
        let mut latencies = Latencies::default();
        latencies.record(Duration::from_secs(10_000));
        let max = latencies.max().as_secs_f64();
        assert!((599.0..602.0).contains(&max), "{max}");
    }

    proptest! {
        /// Against the definition: sorted, and counted.
        #[test]
        fn percentiles_agree_with_a_sorted_list(
            mut spans in prop::collection::vec(1..100_000_000_u64, 1..400),
            percent in 0.1..100.0_f64,
        ) {
            let mut latencies = Latencies::default();
            spans.iter().for_each(|span| latencies.record_nanos(*span));
            spans.sort_unstable();
            let rank = ((percent / 100.0 * spans.len() as f64).ceil() as usize).clamp(1, spans.len());
            let (expected, got) = (spans[rank - 1] as f64, latencies.percentile(percent).as_nanos() as f64);
            prop_assert!((got - expected).abs() <= expected * 0.001 + 1.0, "{got} instead of {expected}");
        }

        #[test]
        fn adding_is_counting_together(one in prop::collection::vec(1..1_000_000_u64, 0..50), other in prop::collection::vec(1..1_000_000_u64, 0..50)) {
            let of = |spans: &[u64]| {
                let mut latencies = Latencies::default();
                spans.iter().for_each(|span| latencies.record_nanos(*span));
                latencies
            };
            let mut sum = of(&one);
            sum.add(&of(&other));
            let both = of(&[one, other].concat());
            prop_assert_eq!(sum.buckets().collect::<Vec<_>>(), both.buckets().collect::<Vec<_>>());
            prop_assert_eq!((sum.count(), sum.max(), sum.mean()), (both.count(), both.max(), both.mean()));
        }

        #[test]
        fn what_is_written_is_read_back(spans in prop::collection::vec(1..700_000_000_000_u64, 0..300)) {
            let mut latencies = Latencies::default();
            spans.iter().for_each(|span| latencies.record_nanos(*span));
            let read = Latencies::decode(&latencies.encode()).unwrap();
            prop_assert_eq!(read.buckets().collect::<Vec<_>>(), latencies.buckets().collect::<Vec<_>>());
            prop_assert_eq!((read.count(), read.max(), read.mean()), (latencies.count(), latencies.max(), latencies.mean()));
        }

        /// Bytes that were changed, cut or made up: an error that says so, or a histogram.
        #[test]
        fn what_is_broken_is_refused(
            spans in prop::collection::vec(1..1_000_000_u64, 0..50),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            length in any::<prop::sample::Index>(),
            inside in any::<bool>(),
        ) {
            let mut latencies = Latencies::default();
            spans.iter().for_each(|span| latencies.record_nanos(*span));
            let mut bytes = BASE64_STANDARD.decode(latencies.encode()).unwrap();
            if inside {
                // of what is deflated
                let mut plain = Vec::new();
                ZlibDecoder::new(&bytes[8..]).read_to_end(&mut plain).unwrap();
                change(&mut plain, &changes);
                bytes = deflated(&plain);
            } else {
                change(&mut bytes, &changes);
                bytes.truncate(length.index(bytes.len() + 1));
            }
            if let Err(why) = Latencies::decode(&BASE64_STANDARD.encode(bytes)) {
                prop_assert!(why.starts_with("its histogram "), "{}", why);
            }
        }
    }

    fn change(bytes: &mut [u8], changes: &[(prop::sample::Index, u8)]) {
        changes.iter().for_each(|(at, byte)| bytes[at.index(bytes.len())] = *byte);
    }

    /// In the envelope of what is deflated.
    fn deflated(plain: &[u8]) -> Vec<u8> {
        let mut deflated = Vec::new();
        let mut encoder = ZlibEncoder::new(&mut deflated, Compression::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap();
        let length = u32::try_from(deflated.len()).unwrap();
        [&0x1c84_9314_u32.to_be_bytes()[..], &length.to_be_bytes(), &deflated].concat()
    }

    #[test]
    fn what_would_take_memory_without_end_is_refused() {
        let refuses = |bytes: &[u8]| Latencies::decode(&BASE64_STANDARD.encode(bytes)).unwrap_err();
        let plain = {
            let bytes = BASE64_STANDARD.decode(Latencies::default().encode()).unwrap();
            let mut plain = Vec::new();
            ZlibDecoder::new(&bytes[8..]).read_to_end(&mut plain).unwrap();
            plain
        };
        let with = |at: usize, value: &[u8]| {
            let mut plain = plain.clone();
            plain[at..at + value.len()].copy_from_slice(value);
            deflated(&plain)
        };
        // a thousand times as much as it looks
        assert!(refuses(&deflated(&vec![0; 1 << 24])).contains("its length is another one"));
        assert!(refuses(&with(4, &u32::MAX.to_be_bytes())).contains("its length is another one"));
        assert!(refuses(&with(12, &5_u32.to_be_bytes())).contains("another precision"));
        assert!(refuses(&with(24, &u64::MAX.to_be_bytes())).contains("another range"));
        assert!(refuses(&with(8, &1_u32.to_be_bytes())).contains("broken"));
        let mut negated = plain[..40].to_vec();
        negated.extend([0xff; 9]);
        negated[4..8].copy_from_slice(&9_u32.to_be_bytes());
        assert!(refuses(&deflated(&negated)).contains("out of range"));
        assert!(Latencies::decode(&"A".repeat(2 << 20)).unwrap_err().contains("longer than one can be"));
        assert!(Latencies::decode("no base64").unwrap_err().contains("broken"));
    }

    /// Of one span of a millisecond, as the Java and Python libraries read it.
    #[test]
    fn it_is_the_standard_encoding() {
        let mut latencies = Latencies::default();
        latencies.record(Duration::from_millis(1));
        let text = latencies.encode();
        assert!(text.starts_with("HISTFAAA"), "{text}");
    }
}
