//! The files of a package: their names, and what is wrong with one that cannot be read.

use crate::process::exit::Fatal;
use modelservice_contract::ExitReason;
use std::path::{Component, Path};

/// Name of the model file in a package.
pub const MODEL_FILE: &str = "model.onnx";
/// Name of the manifest in a package.
pub const MANIFEST_FILE: &str = "model.yaml";

/// Whether a name that a file of the package gives stays in the package.
pub(super) fn is_inside(name: &str) -> bool {
    !name.is_empty()
        && Path::new(name)
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
}

pub(super) fn unreadable(path: &Path, error: &std::io::Error) -> Fatal {
    let message = format!(
        "cannot read {}: {error}: check the file's permissions (the server runs without root)",
        path.display()
    );
    Fatal::new(ExitReason::SystemError, message)
}
