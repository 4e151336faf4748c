//! Which files of a repository make up the model package. Pure: no client.

use super::{api::Entry, uri::HubUri};
use crate::{error::FetchError, source::api::Object};
use modelservice_contract::FetchReason;

/// Kinds of files that a URI may name by themselves.
const FILES: [&str; 6] = [".onnx", ".tar", ".tar.gz", ".tgz", ".tar.zst", ".zip"];
/// As many models are named in a message.
const NAMED_MODELS: usize = 8;

/// Whether a URI's path names a file rather than a folder.
pub(super) fn names_file(path: &str) -> bool {
    FILES.iter().any(|ending| path.ends_with(ending))
}

/// The folder that a file is in.
pub(super) fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// One file, and beside it the data that its tensors are kept in: exporters name it after the model (`model.onnx_data`,
/// `model.onnx.data`, `model.onnx_data_1`).
pub(super) fn single_file(uri: &HubUri, entries: &[Entry], commit: &str) -> Option<Vec<Object>> {
    let is_data = |path: &str| {
        uri.path.ends_with(".onnx")
            && path
                .strip_prefix(&uri.path)
                .is_some_and(|rest| rest.starts_with("_data") || rest.starts_with(".data"))
    };
    let folder = folder_of(&uri.path);
    let is_there = entries
        .iter()
        .any(|entry| entry.is_file() && entry.path == uri.path);
    is_there.then(|| {
        let wanted = |entry: &&Entry| entry.is_file() && (entry.path == uri.path || is_data(&entry.path));
        sorted(
            entries
                .iter()
                .filter(wanted)
                .map(|entry| object(entry, folder, commit))
                .collect(),
        )
    })
}

/// All files of a folder, which must hold a model.
///
/// # Errors
/// `NotFound` for a folder without files; `PackageInvalid` if it is not clear which file is the model.
pub(super) fn folder(uri: &HubUri, entries: &[Entry], commit: &str) -> Result<Vec<Object>, FetchError> {
    let files = entries.iter().filter(|entry| entry.is_file());
    let objects = sorted(files.map(|entry| object(entry, &uri.path, commit)).collect());
    if objects.is_empty() {
        return Err(FetchError::new(
            FetchReason::NotFound,
            format!("{} has no files", uri.with_path(&uri.path)),
        ));
    }
    check_model(uri, &objects)?;
    Ok(objects)
}

/// A folder is a package if it has `model.onnx`, or exactly one other `.onnx` file.
fn check_model(uri: &HubUri, objects: &[Object]) -> Result<(), FetchError> {
    let models: Vec<&Object> = objects
        .iter()
        .filter(|object| object.name.ends_with(".onnx"))
        .collect();
    let at_top: Vec<&Object> = models
        .iter()
        .copied()
        .filter(|model| !model.name.contains('/'))
        .collect();
    if at_top.len() == 1 || at_top.iter().any(|model| model.name == "model.onnx") {
        return Ok(());
    }
    let place = uri.with_path(&uri.path);
    let message = match models.first() {
        None if objects.len() == 1 && names_file(&objects[0].name) => return Ok(()),
        None => format!(
            "{place} has {} files, and none is an ONNX model (.onnx); export the model to ONNX, or name a repository \
             that holds one",
            objects.len()
        ),
        Some(model) => format!(
            "{place} has no model.onnx, but {}; name the folder or the file of the one to serve, such as {}",
            listed(&models),
            uri.with_path(&model.key)
        ),
    };
    Err(FetchError::new(FetchReason::PackageInvalid, message))
}

fn listed(models: &[&Object]) -> String {
    let names: Vec<&str> = models
        .iter()
        .take(NAMED_MODELS)
        .map(|model| model.key.as_str())
        .collect();
    match models.len() - names.len() {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

fn object(entry: &Entry, folder: &str, commit: &str) -> Object {
    let name = entry.path.strip_prefix(folder).unwrap_or(&entry.path);
    Object {
        name: name.trim_start_matches('/').to_owned(),
        key: entry.path.clone(),
        size: Some(entry.size()),
        version: Some(commit.to_owned()),
        sha256: entry.sha256().map(str::to_owned),
    }
}

fn sorted(mut objects: Vec<Object>) -> Vec<Object> {
    objects.sort_by(|one, other| one.name.cmp(&other.name));
    objects
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;

    fn entries(paths: &[&str]) -> Vec<Entry> {
        let entry = |path: &&str| {
            let kind = if path.ends_with('/') { "directory" } else { "file" };
            let path = path.trim_end_matches('/');
            serde_json::from_value(serde_json::json!({"type": kind, "oid": "0", "size": 1, "path": path}))
                .unwrap()
        };
        paths.iter().map(entry).collect()
    }

    fn uri(path: &str) -> HubUri {
        HubUri::parse(&format!("hf://onnx/efficientnet@main/{path}")).unwrap()
    }

    fn names(objects: &[Object]) -> Vec<&str> {
        objects.iter().map(|object| object.name.as_str()).collect()
    }

    /// Without it, a model would be served without its preprocessing or its classes.
    #[test]
    fn a_folder_is_all_of_its_files_by_their_names_in_it() {
        let entries = entries(&[
            "onnx/model.yaml",
            "onnx/model.onnx",
            "onnx/extra/",
            "onnx/extra/labels.txt",
        ]);
        let objects = folder(&uri("onnx"), &entries, "c0ffee").unwrap();
        assert_eq!(names(&objects), ["extra/labels.txt", "model.onnx", "model.yaml"]);
        assert_eq!(objects[0].key, "onnx/extra/labels.txt");
        assert_eq!(objects[0].version.as_deref(), Some("c0ffee"));
    }

    /// Without it, any of several models might be served.
    #[test]
    fn several_models_are_listed_with_how_to_name_one() {
        let entries = entries(&["README.md", "onnx/", "onnx/model.onnx", "onnx/model_int8.onnx"]);
        let error = folder(&uri(""), &entries, "c0ffee").unwrap_err();
        assert_eq!(error.reason, FetchReason::PackageInvalid);
        assert_eq!(
            error.message,
            "hf://onnx/efficientnet@main has no model.onnx, but onnx/model.onnx, onnx/model_int8.onnx; name the folder \
             or the file of the one to serve, such as hf://onnx/efficientnet@main/onnx/model.onnx"
        );
    }

    /// Without it, a repository with hundreds of models fills the status.
    #[test]
    fn a_long_list_of_models_is_cut() {
        let paths: Vec<String> = (0..20).map(|number| format!("{number:02}.onnx")).collect();
        let entries = entries(&paths.iter().map(String::as_str).collect::<Vec<_>>());
        let error = folder(&uri(""), &entries, "c0ffee").unwrap_err();
        assert!(error.message.contains("07.onnx and 12 more"), "{}", error.message);
    }

    /// Without it, a repository of PyTorch weights is downloaded before it is refused.
    #[test]
    fn a_repository_without_onnx_is_refused_before_the_download() {
        let entries = entries(&["config.json", "model.safetensors"]);
        let error = folder(&uri(""), &entries, "c0ffee").unwrap_err();
        assert_eq!(error.reason, FetchReason::PackageInvalid);
        assert!(
            error.message.contains("none is an ONNX model"),
            "{}",
            error.message
        );
    }

    /// Without it, repositories with one model under another name cannot be served.
    #[test]
    fn one_model_under_another_name_or_one_archive_is_enough() {
        for file in ["efficientnet.onnx", "package.tar.gz", "package.zip"] {
            let objects = folder(&uri(""), &entries(&[file]), "c0ffee").unwrap();
            assert_eq!(names(&objects), [file]);
        }
    }

    /// Without it, a model above 2 GB, whose tensors are in a file of their own, cannot be named.
    #[test]
    fn a_single_model_brings_its_external_data() {
        let entries = entries(&[
            "onnx/model.onnx",
            "onnx/model.onnx_data",
            "onnx/model.onnx.data",
            "onnx/model_int8.onnx",
            "onnx/model_int8.onnx_data",
        ]);
        let objects = single_file(&uri("onnx/model.onnx"), &entries, "c0ffee").unwrap();
        assert_eq!(
            names(&objects),
            ["model.onnx", "model.onnx.data", "model.onnx_data"]
        );
        assert_eq!(single_file(&uri("onnx/other.onnx"), &entries, "c0ffee"), None);
    }

    /// Without it, an empty folder is "ready" with nothing in it.
    #[test]
    fn a_folder_without_files_is_not_found() {
        let error = folder(&uri("onnx"), &entries(&["onnx/empty/"]), "c0ffee").unwrap_err();
        assert_eq!(error.reason, FetchReason::NotFound);
        assert_eq!(error.message, "hf://onnx/efficientnet@main/onnx has no files");
    }
}
