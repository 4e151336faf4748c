//! What a signer has signed: the in-toto statement about a model, with predicate `https://model_signing/signature/v1.0`.

use super::{envelope::SIGNATURE_FILE, refusal::Refusal};
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use sigstore_types::{Sha256Hash, Subject};
use std::collections::{BTreeMap, BTreeSet};

const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const PREDICATE: &str = "https://model_signing/signature/v1.0";
/// Each file has one digest.
const METHOD: &str = "files";
const ALGORITHM: &str = "sha256";

/// The files that were signed.
#[derive(Debug)]
pub(super) struct Signed {
    /// What the signer called them.
    pub(super) name: String,
    /// Their paths, relative to the package, and their SHA-256. At least one.
    pub(super) files: BTreeMap<String, Sha256Hash>,
    /// What the signer left out, relative to the package.
    pub(super) left_out: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Statement<'a> {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    #[serde(borrow)]
    predicate: &'a RawValue,
}

/// Other fields say nothing that verifiers of v1.0 may use.
#[derive(Deserialize)]
struct Predicate {
    serialization: Serialization,
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
struct Serialization {
    method: String,
    hash_type: String,
    #[serde(default)]
    ignore_paths: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Resource {
    name: String,
    algorithm: String,
    digest: String,
}

impl Signed {
    pub(super) fn from_statement(statement: &[u8]) -> Result<Self, Refusal> {
        let unreadable = |error: serde_json::Error| Refusal::Statement(format!("it cannot be read: {error}"));
        let Statement {
            kind,
            subject,
            predicate_type,
            predicate,
        } = serde_json::from_slice(statement).map_err(unreadable)?;
        expect("a statement", &kind, STATEMENT)?;
        expect("a predicate", &predicate_type, PREDICATE)?;
        let Predicate {
            serialization,
            resources,
        } = serde_json::from_str(predicate.get()).map_err(unreadable)?;
        expect("a list of", &serialization.method, METHOD)?;
        expect("digests of kind", &serialization.hash_type, ALGORITHM)?;
        let [subject] = &subject[..] else {
            return Err(Refusal::Statement(format!(
                "it is about {} models instead of one",
                subject.len()
            )));
        };
        let (files, root) = listed(resources)?;
        if subject.digest.sha256 != Some(root) {
            return Err(Refusal::Statement(
                "its digest is not that of its list of files".to_owned(),
            ));
        }
        Ok(Self {
            name: subject.name.clone(),
            files,
            left_out: serialization.ignore_paths,
        })
    }
}

fn expect(what: &str, is: &str, should_be: &str) -> Result<(), Refusal> {
    if is == should_be {
        return Ok(());
    }
    Err(Refusal::Statement(format!(
        "it is {what} {is:?}, not {should_be:?}"
    )))
}

/// The files, and the digest of the list: the SHA-256 of all digests, one after the other.
fn listed(resources: Vec<Resource>) -> Result<(BTreeMap<String, Sha256Hash>, Sha256Hash), Refusal> {
    let mut files = BTreeMap::new();
    let mut root = Sha256::new();
    for Resource {
        name,
        algorithm,
        digest,
    } in resources
    {
        let refused = |why: String| Err(Refusal::Statement(format!("of {name:?}, {why}")));
        if name == "." {
            return Err(Refusal::Statement("it is about a file, not a folder".to_owned()));
        }
        if name == SIGNATURE_FILE {
            return refused("it covers an older signature: delete that and sign again".to_owned());
        }
        if !is_path(&name) {
            return refused("which is no path in a package".to_owned());
        }
        if algorithm != ALGORITHM {
            return refused(format!(
                "it gives a digest of kind {algorithm:?}, not {ALGORITHM:?}"
            ));
        }
        let Ok(digest) = Sha256Hash::from_hex(&digest) else {
            return refused("it gives no SHA-256".to_owned());
        };
        root.update(digest.as_bytes());
        if files.insert(name.clone(), digest).is_some() {
            return refused("it gives two digests".to_owned());
        }
    }
    if files.is_empty() {
        return Err(Refusal::Statement("it lists no file".to_owned()));
    }
    Ok((files, Sha256Hash::new(root.finalize().into())))
}

/// Whether it can only be one file, below the package.
fn is_path(name: &str) -> bool {
    let is_part = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(char::is_control);
    name.split('/').all(is_part)
}
