//! Compares a package with the list of files that was signed.

use super::{envelope::SIGNATURE_FILE, refusal::Refusal, statement::Signed};
use modelservice_package::{BAKED_FOLDER, Content, FileError, Files, MOST_FILES, is_left_out};
use sha2::{Digest as _, Sha256};
use sigstore_types::Sha256Hash;
use std::{
    collections::BTreeSet,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

/// What a signer may leave out: Git writes it, and no server reads it. Anything else without a signature could change what
/// a model answers.
const GIT: [&str; 4] = [".git", ".gitattributes", ".github", ".gitignore"];
/// A message names as many files of a kind.
const MOST_NAMED: usize = 5;

/// Checks that the package holds exactly what was signed. Returns what is at its root beyond that.
pub(super) fn compare(files: &Files, signed: &Signed) -> Result<Vec<String>, Refusal> {
    let Found { names, unsigned } = Found::in_package(files, signed)?;
    let extra = names.iter().filter(|name| !is_signed(name, signed));
    let extra: Vec<String> = extra.map(|name| shown(name, signed)).collect();
    // With so many, not all have been found.
    let is_complete = extra.len() <= MOST_NAMED;
    let is_missing = |name: &&String| is_complete && !names.contains(Path::new(name.as_str()));
    let missing: Vec<&String> = signed.files.keys().filter(is_missing).collect();
    if !extra.is_empty() || !missing.is_empty() {
        let parts = [("not signed: ", listed(&extra)), ("missing: ", listed(&missing))];
        let parts = parts.into_iter().filter(|(_, names)| !names.is_empty());
        let parts: Vec<String> = parts.map(|(what, names)| format!("{what}{names}")).collect();
        return Err(Refusal::Contents(parts.join("; ")));
    }
    let mut changed = Vec::new();
    for (name, wanted) in &signed.files {
        if hash(files, name)? != *wanted {
            changed.push(name);
        }
    }
    if changed.is_empty() {
        return Ok(unsigned);
    }
    Err(Refusal::Contents(format!("other bytes: {}", listed(&changed))))
}

/// What is in a package.
#[derive(Default)]
struct Found {
    /// The files, and links to files, that must be signed.
    names: BTreeSet<PathBuf>,
    /// What need not be, at the root.
    unsigned: Vec<String>,
}

impl Found {
    fn in_package(files: &Files, signed: &Signed) -> Result<Self, Refusal> {
        let mut found = Self::default();
        let mut folders = vec![PathBuf::new()];
        let mut seen = 0;
        while let Some(folder) = folders.pop() {
            let refused = |error| Refusal::File(folder.clone(), error);
            let listed = files.list(&folder).map_err(refused)?;
            seen += listed.len();
            if seen > MOST_FILES {
                return Err(refused(FileError::Many(MOST_FILES)));
            }
            for (entry, content) in listed {
                let name = folder.join(entry);
                if is_of_kubernetes(&name) {
                    continue;
                }
                if let Some(name) = needs_no_signature(&name, signed) {
                    found.unsigned.push(name);
                } else if content == Content::Folder {
                    folders.push(name);
                } else {
                    // Beyond these, what follows is not needed to know that the package is another one.
                    let is_enough = found.names.len() > signed.files.len() + MOST_NAMED;
                    found.names.insert(name);
                    if is_enough {
                        return Ok(found);
                    }
                }
            }
        }
        found.unsigned.sort();
        Ok(found)
    }
}

fn needs_no_signature(name: &Path, signed: &Signed) -> Option<String> {
    let text = name.to_str()?;
    let is_git = GIT.contains(&text) && signed.left_out.contains(text);
    (text == SIGNATURE_FILE || is_git).then(|| text.to_owned())
}

/// What Kubernetes and file systems put at the root of a volume: only links lead there. Graphs are of the package, and
/// the times that servers measure for them are not expected where a signature is.
fn is_of_kubernetes(name: &Path) -> bool {
    is_left_out(name) && !name.starts_with(BAKED_FOLDER)
}

fn is_signed(name: &Path, signed: &Signed) -> bool {
    name.to_str().is_some_and(|name| signed.files.contains_key(name))
}

fn shown(name: &Path, signed: &Signed) -> String {
    let left_out = name.ancestors().filter_map(Path::to_str);
    if left_out.into_iter().any(|name| signed.left_out.contains(name)) {
        return format!("{} (the signer left it out)", name.display());
    }
    name.display().to_string()
}

fn listed(names: &[impl AsRef<str>]) -> String {
    let first: Vec<&str> = names.iter().take(MOST_NAMED).map(AsRef::as_ref).collect();
    let more = if names.len() > MOST_NAMED { ", …" } else { "" };
    format!("{}{more}", first.join(", "))
}

fn hash(files: &Files, name: &str) -> Result<Sha256Hash, Refusal> {
    let refused = |error: FileError| Refusal::File(name.into(), error);
    let opened = files.open(name).map_err(refused)?;
    let size = opened.size;
    let mut hash = Sha256::new();
    let read = io::copy(&mut opened.take(size.saturating_add(1)), &mut hash)
        .map_err(|error| refused(error.into()))?;
    if read != size {
        return Err(refused(FileError::Changed));
    }
    Ok(Sha256Hash::new(hash.finalize().into()))
}
