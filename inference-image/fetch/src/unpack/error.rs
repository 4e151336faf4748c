//! Why a package cannot be put together.

use crate::error::FetchError;
use modelservice_contract::FetchReason;
use std::io;

/// Why a package cannot be put together.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnpackError {
    /// An entry breaks a rule.
    #[error("{0:?} {1}")]
    Entry(String, String),
    /// The archive cannot be read.
    #[error("it cannot be unpacked: {0}")]
    Archive(String),
    /// The package breaks a rule.
    #[error("{0}")]
    Package(String),
    /// The machine.
    #[error("{0}")]
    System(FetchError),
}

impl UnpackError {
    /// About an entry.
    pub(super) fn entry(name: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Entry(name.into(), why.into())
    }

    /// An error while reading an archive: of its content, unless the system says otherwise.
    pub(super) fn reading(error: &io::Error) -> Self {
        if error.raw_os_error().is_some() {
            let message = format!("what was downloaded cannot be read: {error}");
            Self::System(FetchError::new(FetchReason::SystemError, message))
        } else {
            Self::Archive(error.to_string())
        }
    }

    /// For the caller, about this object.
    pub(super) fn of(self, object: &str) -> FetchError {
        match self {
            Self::System(error) => error,
            Self::Package(message) => FetchError::new(FetchReason::PackageInvalid, message),
            error => FetchError::new(FetchReason::PackageInvalid, format!("{object}: {error}")),
        }
    }
}

impl From<FetchError> for UnpackError {
    fn from(error: FetchError) -> Self {
        Self::System(error)
    }
}
