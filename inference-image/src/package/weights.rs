//! The files in which a model keeps weights (ONNX external data).

use super::reading::{refused, what_fits};
use crate::process::exit::{Fatal, OnProblem, noted};
use modelservice_contract::ExitReason;
use modelservice_package::{FileError, Files, Hash, Loaded, MODEL_FILE, Most};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

/// A file with weights.
#[derive(Clone, Debug)]
pub struct ExternalFile {
    /// As the model names it.
    pub name: String,
    /// All of it.
    pub bytes: Arc<[u8]>,
    pub(super) hash: Hash,
    pub(super) place: PathBuf,
}

/// The files with weights; `None` if there is a problem with one, and it has been noted.
pub(super) fn read_external(
    files: &Files,
    names: BTreeSet<String>,
    on_problem: &mut OnProblem<'_>,
) -> Result<Option<Vec<ExternalFile>>, Fatal> {
    let mut most = what_fits();
    let mut read = Some(Vec::new());
    for name in names {
        let file = noted(read_weights(files, name, most), on_problem)?;
        let size = file.as_ref().map_or(0, |file| file.bytes.len());
        most.bytes = most.bytes.saturating_sub(size as u64);
        read = read.zip(file).map(|(mut read, file)| {
            read.push(file);
            read
        });
    }
    Ok(read)
}

fn read_weights(files: &Files, name: String, most: Most) -> Result<ExternalFile, Fatal> {
    let shown = format!("{MODEL_FILE} stores weights in {name:?}, which");
    let Loaded { bytes, hash, place } = files.load(&name, most).map_err(|error| match error {
        FileError::Missing => {
            let advice = format!("put it beside {MODEL_FILE} (external data)");
            Fatal::new(ExitReason::ModelInvalid, format!("{shown} {error}: {advice}"))
        }
        error => refused(&shown, error),
    })?;
    Ok(ExternalFile {
        name,
        bytes: bytes[..].into(),
        hash,
        place,
    })
}
