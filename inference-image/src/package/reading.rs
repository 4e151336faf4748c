//! What only a server knows about reading the files of a package: how an error ends it, and how much fits into its memory.

use crate::process::cgroup;
use crate::process::exit::Fatal;
use modelservice_contract::ExitReason;
use modelservice_package::{FileError, Most};
use std::path::Path;

/// The error of a file of the package, which `shown` names so that the error continues the sentence.
pub(super) fn refused(shown: &str, error: FileError) -> Fatal {
    match error {
        FileError::Io(_) => Fatal::new(
            ExitReason::SystemError,
            format!("{shown} {error}: check its permissions (the server runs without root)"),
        ),
        error => Fatal::new(ExitReason::ModelInvalid, format!("{shown} {error}")),
    }
}

/// As much as fits into this process's memory.
#[must_use]
pub(crate) fn what_fits() -> Most {
    Most {
        bytes: memory(),
        advice: "give the server more memory, or find out why it is so large",
    }
}

/// Bytes of memory that this process may use.
fn memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    let machine = kilobytes.map_or(u64::MAX, |kilobytes| kilobytes.saturating_mul(1024));
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let limit = cgroup::memory_limit(Path::new("/")).map_or(u64::MAX, |limit| limit as u64);
    machine.min(limit)
}
