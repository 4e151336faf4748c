//! Checks that a package is the one that somebody signed: a signature of OpenSSF Model Signing, by public key, without the
//! network.
//!
//! The signature is the file `model.sig` in the package: a Sigstore bundle (v0.3, JSON) around a DSSE envelope, whose
//! in-toto statement lists every file with its SHA-256. Nothing of a statement is believed before its signature is valid,
//! and every doubt refuses the package.
//!
//! Bundle and envelope are the types of crate `sigstore-types`; the signature is checked with webpki and ring. Crate
//! `sigstore-verify` (0.15.1) checks signatures of keys too, but only with a transparency log or a timestamp: it refuses
//! any other bundle (`MissingSigningTimeEvidence`), even with `skip_tlog_unsafe`, and `model_signing` makes neither for a
//! key. It is what keyless identities will need.
//!
//! Not supported, and refused with these words: keyless identities and certificates, hash algorithms other than SHA-256
//! (which the command `model_signing` always uses), and digests of parts of files (`shards`).

mod contents;
mod envelope;
mod key;
mod refusal;
mod statement;

use crate::error::FetchError;
use envelope::Envelope;
use key::PublicKey;
use modelservice_package::Files;
use refusal::Refusal;
use statement::Signed;
use std::path::Path;

pub use envelope::SIGNATURE_FILE;

/// Whose package it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The signer's public key: `sha256:<64 hex>` of its DER form (`SubjectPublicKeyInfo`).
    pub key: String,
    /// What the signer called the package: the name of the folder at that time.
    pub name: String,
    /// What is at the root of the package without being signed: the signature itself, and Git's own files if the signer
    /// left them out. A copy of the package needs none of it.
    pub unsigned: Vec<String>,
}

/// Checks that this key (PEM) has signed exactly the files of the package in this folder. Reads all of them: call it where
/// blocking is allowed.
///
/// # Errors
/// `SignatureInvalid`, which says the check that failed; `ConfigInvalid` if the key cannot be used, and `SystemError` if a
/// file cannot be read.
pub fn verify(folder: &Path, public_key: &str) -> Result<Verified, FetchError> {
    checked(folder, public_key).map_err(FetchError::from)
}

/// Checks that a public key (PEM) can be used, before anything is fetched.
///
/// # Errors
/// `ConfigInvalid`.
pub fn check_key(public_key: &str) -> Result<(), FetchError> {
    PublicKey::from_pem(public_key)
        .map(drop)
        .map_err(FetchError::from)
}

fn checked(folder: &Path, public_key: &str) -> Result<Verified, Refusal> {
    let key = PublicKey::from_pem(public_key)?;
    let files = Files::of(folder).map_err(|error| Refusal::File(folder.to_owned(), error.into()))?;
    let envelope = Envelope::read(&files)?;
    let signed = Signed::from_statement(envelope.statement_signed_by(&key)?)?;
    let unsigned = contents::compare(&files, &signed)?;
    Ok(Verified {
        key: key.fingerprint(),
        name: signed.name,
        unsigned,
    })
}
