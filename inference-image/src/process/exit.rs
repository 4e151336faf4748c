//! How the process ends by itself: one reason, one exit code, and a termination message.

use modelservice_contract::{ExitReason, TerminationMessage};
use std::io::Write;
use std::path::Path;

/// The kubelet keeps 4096 bytes of a termination message; JSON escapes need some of them.
const MAX_MESSAGE_BYTES: usize = 3000;

/// An error that ends the process.
#[derive(Debug, thiserror::Error)]
#[error("{reason:?}: {message}")]
pub struct Fatal {
    /// Decides the exit code.
    pub reason: ExitReason,
    /// What happened and what to do.
    pub message: String,
}

impl Fatal {
    /// A reason with its message.
    pub fn new(reason: ExitReason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }

    /// An error of the operating system, with what was being done.
    pub fn system(what: &str, error: &dyn std::fmt::Display) -> Self {
        Self::new(ExitReason::SystemError, format!("{what}: {error}"))
    }

    /// The termination message for the kubelet.
    #[must_use]
    pub fn termination_message(&self) -> TerminationMessage {
        let mut message = self.message.clone();
        if message.len() > MAX_MESSAGE_BYTES {
            let end = (0..=MAX_MESSAGE_BYTES)
                .rev()
                .find(|&end| message.is_char_boundary(end))
                .unwrap_or(0);
            message.truncate(end);
            message.push('…');
        }
        TerminationMessage {
            reason: self.reason,
            message,
        }
    }

    /// Writes the termination message to `path`, which the kubelet has created. Outside a pod the file does not
    /// exist, and nothing is written.
    ///
    /// # Errors
    /// When the file exists but cannot be written.
    pub fn write_to(&self, path: &Path) -> std::io::Result<()> {
        let mut file = match std::fs::OpenOptions::new().write(true).truncate(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        file.write_all(&serde_json::to_vec(&self.termination_message())?)
    }
}

/// What is done about a problem: it is given back to end with it, or noted to go on without what it concerns.
pub type OnProblem<'a> = dyn FnMut(Fatal) -> Result<(), Fatal> + 'a;

/// A start ends with the first problem.
///
/// # Errors
/// Always: the problem.
pub fn end(problem: Fatal) -> Result<(), Fatal> {
    Err(problem)
}

/// The value; nothing if there is a problem that has been noted.
///
/// # Errors
/// The problem, if it is to end with it.
pub fn noted<T>(result: Result<T, Fatal>, on_problem: &mut OnProblem<'_>) -> Result<Option<T>, Fatal> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(problem) => on_problem(problem).map(|()| None),
    }
}

/// Ends the process without running exit handlers. Those of ONNX Runtime free its objects while other threads may
/// still load or run a model, which sometimes crashes.
#[allow(unsafe_code)]
pub fn now(code: i32) -> ! {
    // Complete lines are flushed when they are written; this flushes an incomplete one.
    let _ = std::io::stdout().flush();
    // SAFETY: it takes no pointer and does not return.
    unsafe { libc::_exit(code) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_long_message_is_cut_on_a_character_and_stays_valid_json() {
        let fatal = Fatal::new(ExitReason::ModelInvalid, "é".repeat(4000));
        let file = tempfile::NamedTempFile::new().unwrap();
        fatal.write_to(file.path()).unwrap();
        let written = std::fs::read(file.path()).unwrap();
        assert!(
            written.len() < 4096,
            "the kubelet would cut it: {}",
            written.len()
        );
        let read: TerminationMessage = serde_json::from_slice(&written).unwrap();
        assert_eq!(read.reason, ExitReason::ModelInvalid);
    }

    #[test]
    fn outside_a_pod_no_file_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("termination-log");
        Fatal::new(ExitReason::SystemError, "x").write_to(&path).unwrap();
        assert!(!path.exists());
    }
}
