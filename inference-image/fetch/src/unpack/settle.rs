//! From the entries to the package: where its root is, which file is the model, and where its links lead.

use super::error::UnpackError;
use super::name;
use super::tree::{Entry, Kind, Tree};
use crate::disk;
use modelservice_package::{FileError, Files, Known, MODEL_FILE};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

/// End of a model's name.
const ONNX: &str = ".onnx";
/// How many names an error lists.
const SHOWN: usize = 8;

/// Moves the package from the tree to its folder, which must not exist. Returns what is known of its files.
pub(super) fn settle(tree: &Tree, root: &Path, package: &Path) -> Result<Known, UnpackError> {
    let entries: BTreeMap<&str, &Kind> = tree
        .entries()
        .iter()
        .map(|(folded, entry): (&String, &Entry)| (entry.name(folded), &entry.kind))
        .collect();
    let (top, model) = find_model(&entries)?;
    let below = |name: &str| match top {
        Some(top) => name
            .strip_prefix(top)
            .and_then(|name| name.strip_prefix('/'))
            .map(str::to_owned),
        None => Some(name.to_owned()),
    };
    let base = top.map_or_else(|| root.to_owned(), |top| root.join(top));
    let mut known = Known::new();
    let mut links = Vec::new();
    for (full, kind) in &entries {
        let Some(name) = below(full) else {
            continue;
        };
        check_root(full, &name)?;
        let name = if name == model {
            MODEL_FILE.to_owned()
        } else {
            name
        };
        match kind {
            Kind::Folder => {}
            Kind::File { size, hash } => {
                known.insert(name.into(), (*size, *hash));
            }
            Kind::Link(target) => {
                write_link(&base, &name, target)?;
                links.push(name);
            }
        }
    }
    if model != MODEL_FILE && !links.iter().any(|link| link == MODEL_FILE) {
        rename(&base.join(&model), &base.join(MODEL_FILE))?;
    }
    rename(&base, package)?;
    follow(&links, package)?;
    Ok(known)
}

/// The folder that is the package, and the name of the model in it. An archive often has everything in one folder.
fn find_model<'a>(entries: &BTreeMap<&'a str, &Kind>) -> Result<(Option<&'a str>, String), UnpackError> {
    if let Some(model) = model_in(entries, "")? {
        return Ok((None, model));
    }
    let mut at_root = entries.iter().filter(|(name, _)| !name.contains('/'));
    if let (Some((&top, Kind::Folder)), None) = (at_root.next(), at_root.next())
        && let Some(model) = model_in(entries, &format!("{top}/"))?
    {
        return Ok((Some(top), model));
    }
    let files = entries.iter().filter(|(_, kind)| !matches!(kind, Kind::Folder));
    let shown: Vec<&str> = files.map(|(name, _)| *name).take(SHOWN).collect();
    Err(UnpackError::Package(if shown.is_empty() {
        format!("the package is empty: it needs {MODEL_FILE}")
    } else {
        format!(
            "the package has no {MODEL_FILE} and no other {ONNX} file at its root, only: {}; name the folder that has it",
            shown.join(", ")
        )
    }))
}

/// The model directly in a folder: `model.onnx`, or else the only `.onnx` file.
fn model_in(entries: &BTreeMap<&str, &Kind>, prefix: &str) -> Result<Option<String>, UnpackError> {
    let here = entries.iter().filter_map(|(name, kind)| {
        let name = name.strip_prefix(prefix)?;
        (!name.contains('/') && !matches!(kind, Kind::Folder)).then_some(name)
    });
    let models: Vec<&str> = here
        .filter(|name| name.to_ascii_lowercase().ends_with(ONNX))
        .collect();
    match models.as_slice() {
        [] => Ok(None),
        models if models.contains(&MODEL_FILE) => Ok(Some(MODEL_FILE.to_owned())),
        [model] => Ok(Some((*model).to_owned())),
        several => Err(UnpackError::Package(format!(
            "the package has several models, {}, and none is named {MODEL_FILE}: name the one that is meant so, or give its \
             URI",
            several[..several.len().min(SHOWN)].join(", ")
        ))),
    }
}

/// What an archive may not have at its root, it may not get there either when the one folder around it is left away.
fn check_root(full: &str, name: &str) -> Result<(), UnpackError> {
    let at_root = name.split('/').next().unwrap_or(name);
    if !at_root.starts_with(name::RESERVED) {
        return Ok(());
    }
    let why = format!(
        "would begin with {} in the package, which is reserved for Kubernetes and the fetcher: remove {at_root} from the \
         archive",
        name::RESERVED
    );
    Err(UnpackError::entry(full, why))
}

fn write_link(base: &Path, name: &str, target: &str) -> Result<(), UnpackError> {
    let is_inside = !target.starts_with('/') && name::destination(name, target).is_some();
    if !is_inside {
        let why = format!("is a link to {target:?}, outside its package: copy it into the package");
        return Err(UnpackError::entry(name, why));
    }
    let path = base.join(name);
    Ok(symlink(target, &path).map_err(|error| disk::error("cannot create the link", &path, &error))?)
}

/// Follows every link as the server will: a link may lead out through another one.
fn follow(links: &[String], package: &Path) -> Result<(), UnpackError> {
    let files = Files::of(package).map_err(|error| disk::error("cannot read", package, &error))?;
    for link in links {
        let path = Path::new(link);
        match files.open(path) {
            Err(FileError::Kind(_)) if files.is_folder(path) => {}
            Err(FileError::Io(error)) => return Err(disk::error("cannot read", path, &error).into()),
            Err(error) => return Err(UnpackError::entry(link, error.to_string())),
            Ok(_) => {}
        }
    }
    Ok(())
}

fn rename(from: &Path, to: &Path) -> Result<(), UnpackError> {
    Ok(fs::rename(from, to).map_err(|error| disk::error("cannot create", to, &error))?)
}
