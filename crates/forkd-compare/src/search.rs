//! Which rate is tried next: the search for the highest one that keeps an objective.
//!
//! Each rate is decided by two runs that agree, of three at most, as a single one may have been disturbed. The rate is
//! doubled until it is too high, and then the interval between the highest that was kept and the lowest that was not is
//! halved, on a scale of ratios, until its ends are within a few percent.

/// How near the ends of the interval come, as a share of the rate.
pub(crate) const WITHIN: f64 = 0.05;

/// How many runs there are at most.
pub(crate) const RUNS: usize = 30;

/// How many runs that agree decide.
const AGREE: usize = 2;

/// How runs at one rate go, until they have decided.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ballot {
    kept: usize,
    broken: usize,
}

impl Ballot {
    /// Counts a run; returns what has been decided, if that is.
    pub(crate) fn count(&mut self, is_kept: bool) -> Option<bool> {
        if is_kept {
            self.kept += 1
        } else {
            self.broken += 1
        }
        match (self.kept, self.broken) {
            (AGREE.., _) => Some(true),
            (_, AGREE..) => Some(false),
            _ => None,
        }
    }
}

/// Why a search is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// The interval is small.
    Found,
    /// Not even the lowest rate was kept.
    NotAtLowest,
    /// The highest rate that the clients can ask for was kept.
    AtHighest,
    /// Runs or time were used up before.
    OutOfRuns,
}

/// A search that is under way. It knows no clock and starts nothing.
#[derive(Debug, Clone)]
pub(crate) struct Search {
    lowest: f64,
    highest: f64,
    /// The highest rate that was kept, and the lowest that was not.
    kept: Option<f64>,
    broken: Option<f64>,
    ballot: Ballot,
    runs: usize,
}

impl Search {
    /// Rates are from `lowest` to `highest`.
    pub(crate) fn new(lowest: f64, highest: f64) -> Self {
        Self {
            lowest,
            highest: highest.max(lowest),
            kept: None,
            broken: None,
            ballot: Ballot::default(),
            runs: 0,
        }
    }

    /// The rate of the next run, or why there is none.
    pub(crate) fn next(&self) -> Result<f64, End> {
        match (self.kept, self.broken) {
            (None, Some(_)) => return Err(End::NotAtLowest),
            (Some(kept), None) if kept >= self.highest => return Err(End::AtHighest),
            (Some(kept), Some(broken)) if broken <= kept * (1.0 + WITHIN) => return Err(End::Found),
            _ if self.runs >= RUNS => return Err(End::OutOfRuns),
            _ => {}
        }
        Ok(match (self.kept, self.broken) {
            (Some(kept), Some(broken)) => (kept * broken).sqrt().round(),
            (Some(kept), None) => (kept * 2.0).min(self.highest),
            (None, _) => self.lowest,
        })
    }

    /// Has the next run kept the objective? Returns whether its rate is decided.
    pub(crate) fn tell(&mut self, is_kept: bool) -> bool {
        let Ok(rate) = self.next() else { return true };
        self.runs += 1;
        let Some(is_kept) = self.ballot.count(is_kept) else { return false };
        self.ballot = Ballot::default();
        let end = if is_kept { &mut self.kept } else { &mut self.broken };
        *end = Some(rate);
        true
    }

    pub(crate) fn kept(&self) -> Option<f64> {
        self.kept
    }

    pub(crate) fn broken(&self) -> Option<f64> {
        self.broken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Searches until it is over; `keeps` gets the rate and the number of the run.
    fn searched(
        lowest: f64,
        highest: f64,
        mut keeps: impl FnMut(f64, usize) -> bool,
    ) -> (Search, End, Vec<f64>) {
        let (mut search, mut rates) = (Search::new(lowest, highest), Vec::new());
        loop {
            match search.next() {
                Ok(rate) => {
                    search.tell(keeps(rate, rates.len()));
                    rates.push(rate);
                }
                Err(end) => return (search, end, rates),
            }
        }
    }

    #[test]
    fn it_doubles_and_then_halves_the_interval() {
        let (search, end, rates) = searched(1000.0, 1e6, |rate, _| rate <= 5000.0);
        assert_eq!(end, End::Found);
        let decided: Vec<f64> = rates.chunks(2).map(|pair| pair[0]).collect();
        assert_eq!(decided, [1000.0, 2000.0, 4000.0, 8000.0, 5657.0, 4757.0, 5188.0, 4968.0]);
        assert!(rates.chunks(2).all(|pair| pair[0] == pair[1]), "each is tried twice: {rates:?}");
        assert_eq!((search.kept(), search.broken()), (Some(4968.0), Some(5188.0)));
    }

    #[test]
    fn one_run_that_was_disturbed_decides_nothing() {
        // the third run, the first at 2,000, fails; so does one of the way down
        let (search, end, rates) = searched(1000.0, 1e6, |rate, k| rate <= 5000.0 && k != 2 && k != 12);
        assert_eq!((end, search.kept()), (End::Found, Some(4968.0)));
        assert_eq!(rates[2..5], [2000.0; 3]);
    }

    #[test]
    fn it_says_what_it_could_not_find() {
        let (search, end, rates) = searched(1000.0, 1e6, |_, _| false);
        assert_eq!((end, search.kept(), rates.len()), (End::NotAtLowest, None, 2));
        let (search, end, _) = searched(1000.0, 3000.0, |_, _| true);
        assert_eq!((end, search.kept(), search.broken()), (End::AtHighest, Some(3000.0), None));
        // one that never agrees with itself
        let (_, end, rates) = searched(1.0, 1e9, |_, k| k % 3 != 0);
        assert_eq!((end, rates.len()), (End::OutOfRuns, RUNS));
    }

    proptest! {
        #[test]
        fn it_finds_any_limit(limit in 1000.0..1e6_f64) {
            let (search, end, rates) = searched(1000.0, 1e6, |rate, _| rate <= limit);
            prop_assert_eq!(end, End::Found);
            let (kept, broken) = (search.kept().unwrap(), search.broken().unwrap());
            prop_assert!(kept <= limit && limit < broken && broken <= kept * (1.0 + WITHIN));
            prop_assert!(rates.len() <= RUNS);
        }

        /// However runs come out: it ends, and what it calls kept is below what it calls broken.
        #[test]
        fn it_always_ends(runs in prop::collection::vec(any::<bool>(), RUNS)) {
            let (search, _, rates) = searched(1000.0, 1e6, |_, k| runs[k]);
            prop_assert!(rates.len() <= RUNS);
            if let (Some(kept), Some(broken)) = (search.kept(), search.broken()) {
                prop_assert!(kept < broken);
            }
        }
    }
}
