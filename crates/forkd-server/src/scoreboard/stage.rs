//! Where the daemon is on its way from the start to the end, for status and metrics.

/// What the daemon is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u32)]
pub enum Stage {
    /// Its first workers are not all up.
    #[default]
    Starting,
    /// It serves.
    Running,
    /// It has been told to stop: clients go elsewhere from now on, and connections may finish.
    Draining,
    /// Children are ended by a signal.
    Ending,
    /// They are killed.
    Killing,
}

impl Stage {
    /// All of them, in order.
    pub const ALL: [Self; 5] = [Self::Starting, Self::Running, Self::Draining, Self::Ending, Self::Killing];

    /// Its name in `forkd status` and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Draining => "draining",
            Self::Ending => "ending",
            Self::Killing => "killing",
        }
    }
}
