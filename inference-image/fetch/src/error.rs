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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    /// Fields of a ModelService that messages name.
    const FIELDS: [&str; 6] = [
        "spec.fetch.cache",
        "spec.fetch.credentials",
        "spec.fetch.credentials.secretName",
        "spec.fetch.volume.size",
        "spec.model.digest",
        "spec.model.refresh",
    ];

    fn collect(folder: &Path, fields: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, fields);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            for (at, _) in text.match_indices("spec.") {
                let is_inside = text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '.');
                let field: String = text[at..]
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '.')
                    .collect();
                let field = field.trim_end_matches('.').to_owned();
                if !is_inside && field.contains('.') {
                    fields.insert(field);
                }
            }
        }
    }

    /// Otherwise a message sends people to a field that does not exist.
    #[test]
    fn every_field_that_a_message_names_exists() {
        let mut fields = BTreeSet::new();
        collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut fields);
        assert!(fields.contains("spec.model.refresh"), "{fields:?}");
        for field in fields {
            assert!(FIELDS.contains(&field.as_str()), "{field}");
        }
    }
}
