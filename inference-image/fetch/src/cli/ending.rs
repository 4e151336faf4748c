//! How the process ends: a termination message for the operator, a line for people, an exit code.

use crate::error::FetchError;
use modelservice_contract::FetchFailure;
use serde::Serialize;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

/// The kubelet keeps 4096 bytes of a termination message; JSON escapes need some of them.
const LONGEST: usize = 3000;

/// The message about a failure, short enough for the kubelet.
#[must_use]
pub(super) fn failure(error: &FetchError) -> FetchFailure {
    let mut failure = error.failure();
    if failure.message.len() > LONGEST {
        let end = (0..=LONGEST)
            .rev()
            .find(|&end| failure.message.is_char_boundary(end));
        failure.message.truncate(end.unwrap_or(0));
        failure.message.push('…');
    }
    failure
}

/// Writes a termination message. Outside of a pod there is no such file, and none is made.
pub(super) fn write(path: &Path, message: &impl Serialize) {
    let written = serde_json::to_vec(message)
        .map_err(io::Error::other)
        .and_then(|text| {
            let mut file = OpenOptions::new().write(true).truncate(true).open(path)?;
            file.write_all(&text)
        });
    match written {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!("cannot write {}: {error}", path.display());
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use modelservice_contract::FetchReason;

    #[test]
    fn a_long_message_stays_valid_json_within_the_kubelets_limit() {
        let error = FetchError::new(FetchReason::Denied, "é".repeat(4000));
        let file = tempfile::NamedTempFile::new().unwrap();
        write(file.path(), &failure(&error));
        let written = std::fs::read(file.path()).unwrap();
        assert!(written.len() < 4096, "{}", written.len());
        let read: FetchFailure = serde_json::from_slice(&written).unwrap();
        assert_eq!(read.reason, FetchReason::Denied);
    }

    #[test]
    fn outside_a_pod_no_file_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("termination-log");
        write(&path, &failure(&FetchError::unavailable("x")));
        assert!(!path.exists());
    }
}
