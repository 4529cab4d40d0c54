//! Where the daemon is on its way to the end, for status and metrics.

/// What the daemon is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u32)]
pub enum Stage {
    /// It serves.
    #[default]
    Running,
    /// It takes no more clients than are queued, and connections may finish.
    Draining,
    /// Children are ended by a signal.
    Ending,
    /// They are killed.
    Killing,
}

impl Stage {
    /// All of them, in order.
    pub const ALL: [Self; 4] = [Self::Running, Self::Draining, Self::Ending, Self::Killing];

    /// Its name in `forkd status` and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Draining => "draining",
            Self::Ending => "ending",
            Self::Killing => "killing",
        }
    }
}
