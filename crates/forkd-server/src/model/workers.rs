//! How many workers or children a listening socket may have, and what happens beyond that.

use std::fmt;
use std::str::FromStr;

use super::Model;

/// The most children or workers that may be asked for.
pub const MAX_CHILDREN: u32 = 65_536;

/// The most spare children that may be asked for: the master looks at each of them when some have clients.
pub const MAX_SPARE: u32 = 1024;

/// The size of a pool: `8`, or `4..32` for a pool that grows and shrinks between the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerRange {
    /// The fewest workers, at least 1.
    pub min: u32,
    /// The most workers, from `min` to [`MAX_CHILDREN`].
    pub max: u32,
}

impl WorkerRange {
    /// Tells whether the pool may grow and shrink.
    #[must_use]
    pub fn is_elastic(self) -> bool {
        self.min < self.max
    }
}

impl Default for WorkerRange {
    fn default() -> Self {
        Self::of(Model::default())
    }
}

impl WorkerRange {
    /// What a model has where nothing is said.
    #[must_use]
    pub fn of(model: Model) -> Self {
        Self::fixed(model.default_workers().unwrap_or(1))
    }

    /// Always so many, at least 1 and at most [`MAX_CHILDREN`].
    pub(crate) fn fixed(workers: u32) -> Self {
        let workers = workers.clamp(1, MAX_CHILDREN);
        Self { min: workers, max: workers }
    }

    /// The same, without those that are more than so many.
    pub(crate) fn at_most(self, most: u32) -> Self {
        Self { min: self.min.min(most), max: self.max.min(most) }
    }
}

impl FromStr for WorkerRange {
    type Err = InvalidWorkers;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (min, max) = text.split_once("..").unwrap_or((text, text));
        let (Ok(min), Ok(max)) = (min.parse(), max.parse()) else {
            return Err(InvalidWorkers(format!(
                "{text:?} is not a number of workers; write 8, 4..32 or auto"
            )));
        };
        let why = match () {
            () if min == 0 => "at least 1 worker is needed",
            () if max < min => "the maximum is below the minimum",
            () if max > MAX_CHILDREN => "the most is 65536 workers",
            () => return Ok(Self { min, max }),
        };
        Err(InvalidWorkers(format!("{text} is not a possible number of workers: {why}")))
    }
}

impl fmt::Display for WorkerRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_elastic() { write!(f, "{}..{}", self.min, self.max) } else { write!(f, "{}", self.min) }
    }
}

/// How many workers a pool is asked to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// So many.
    Range(WorkerRange),
    /// As many as there are processors for this process.
    Auto,
}

impl Workers {
    /// The numbers that were asked for.
    #[must_use]
    pub fn range(self) -> Option<WorkerRange> {
        match self {
            Self::Range(range) => Some(range),
            Self::Auto => None,
        }
    }

    /// Tells whether the pool may grow and shrink.
    #[must_use]
    pub fn is_elastic(self) -> bool {
        self.range().is_some_and(WorkerRange::is_elastic)
    }
}

impl FromStr for Workers {
    type Err = InvalidWorkers;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "auto" { Ok(Self::Auto) } else { text.parse().map(Self::Range) }
    }
}

impl fmt::Display for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(range) => range.fmt(f),
            Self::Auto => f.write_str("auto"),
        }
    }
}

/// Why a text is no number of workers, as a sentence that names the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidWorkers(String);

impl fmt::Display for InvalidWorkers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidWorkers {}

/// What happens to a connection when there are already as many children as allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overflow {
    /// It waits in the listener's backlog.
    #[default]
    Wait,
    /// It is closed at once.
    Reject,
}
