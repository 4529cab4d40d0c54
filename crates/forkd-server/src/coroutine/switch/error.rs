//! Why a switch failed.

use std::fmt;

/// Why a switch failed, with the value that was to go along.
///
/// ```
/// use forkd_server::coroutine::{Coroutine, Switch, SwitchError, back};
///
/// let vacant = Switch::new();
/// assert_eq!(vacant.switch("one"), Err(SwitchError::Vacant("one")));
///
/// let once = Coroutine::new(|n: u32| n + 1);
/// assert_eq!(once.switch(1), Ok(2));
/// assert_eq!(once.switch(2), Err(SwitchError::Ended(2)));
///
/// // what was to go along isn't lost
/// let error = back("three").unwrap_err();
/// assert_eq!(error, SwitchError::Outside("three"));
/// assert_eq!(error.into_value(), "three");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SwitchError<T> {
    /// There is no coroutine of this name yet.
    Vacant(T),
    /// It is running, or waits outside of a switch of its own.
    Running(T),
    /// It has returned, panicked, or been dropped.
    Ended(T),
    /// The caller is no coroutine of this type, so there is no way back; or it is being unwound.
    Outside(T),
}

impl<T> SwitchError<T> {
    /// The value that was to go along.
    pub fn into_value(self) -> T {
        match self {
            Self::Vacant(value) | Self::Running(value) | Self::Ended(value) | Self::Outside(value) => value,
        }
    }
}

impl<T> fmt::Display for SwitchError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vacant(_) => "there is no coroutine to switch to yet",
            Self::Running(_) => "the coroutine to switch to is running already",
            Self::Ended(_) => "the coroutine to switch to has ended",
            Self::Outside(_) => {
                "only a coroutine that was switched to, and is not being unwound, can switch back"
            }
        })
    }
}

impl<T: fmt::Debug> std::error::Error for SwitchError<T> {}
