//! Why nothing was fetched.

use modelservice_contract::{FetchFailure, FetchReason};
use std::time::Duration;

/// Why an attempt failed, and whether another one can help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct FetchError {
    /// What kind of failure.
    pub reason: FetchReason,
    /// What happened, in the store's own words where it has any, and what to do; never a credential's value.
    pub message: String,
    /// Whether the same request may succeed later.
    pub retry: Retry,
}

/// Whether the same request may succeed later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retry {
    /// It will fail again.
    #[default]
    Never,
    /// It may succeed.
    Soon,
    /// It may succeed after this time, says the store (`Retry-After`).
    After(Duration),
}

impl FetchError {
    /// A failure that stays.
    #[must_use]
    pub fn new(reason: FetchReason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            retry: Retry::Never,
        }
    }

    /// The source is unavailable now.
    #[must_use]
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self {
            retry: Retry::Soon,
            ..Self::new(FetchReason::Unavailable, message)
        }
    }

    /// For the termination message.
    #[must_use]
    pub fn failure(&self) -> FetchFailure {
        FetchFailure {
            reason: self.reason,
            message: self.message.clone(),
        }
    }
}
