//! Why a package is refused.

use crate::error::FetchError;
use modelservice_contract::FetchReason;
use modelservice_package::FileError;
use std::path::PathBuf;

/// The check that failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error(
        "the signer's public key cannot be used: {0}; give one PEM block PUBLIC KEY of an ECDSA key with curve P-256 or \
         P-384 (openssl pkey -in KEY -pubout prints it)"
    )]
    Key(String),
    #[error(
        "the package has no signature, but one is required: sign the folder with model_signing sign key and keep \
         model.sig in it"
    )]
    NoSignature,
    #[error("the signature cannot be checked: {0:?} {1}")]
    File(PathBuf, FileError),
    #[error(
        "the signature cannot be checked: model.sig {0}; sign the folder again with model_signing sign key"
    )]
    Bundle(String),
    #[error(
        "the signature is by another key: model.sig was made with the key whose hint is {hint}, but {wanted} is \
         required: have its owner sign the package, or set the public key of the right signer"
    )]
    OtherKey { hint: String, wanted: String },
    #[error(
        "the signature is wrong: model.sig was changed after it was made with the key {wanted}, or was made with \
         another key; fetch it again from the signer"
    )]
    Signature { wanted: String },
    #[error(
        "the signature is valid, but not for a model package: {0}; sign the folder again with model_signing sign key"
    )]
    Statement(String),
    #[error(
        "the signature is valid, but the package is not the one that was signed: {0}; use the package as its signer \
         published it, or have it signed again"
    )]
    Contents(String),
}

impl From<Refusal> for FetchError {
    fn from(refusal: Refusal) -> Self {
        let reason = match refusal {
            Refusal::Key(_) => FetchReason::ConfigInvalid,
            Refusal::File(_, FileError::Io(_)) => FetchReason::SystemError,
            _ => FetchReason::SignatureInvalid,
        };
        Self::new(reason, refusal.to_string())
    }
}
