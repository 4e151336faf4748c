//! What the operator and the fetcher (`modelservice-fetch`) agree on: where a model comes from, which version of it, and
//! what the fetcher says when it ends.

use serde::{Deserialize, Serialize};

/// Environment variable that carries [`FetchConfig`] as JSON.
pub const FETCH_CONFIG_ENV: &str = "MODELSERVICE_FETCH";
/// Folder into which the keys of the credentials' Secret are mounted, one file each.
pub const CREDENTIALS_PATH: &str = "/etc/modelservice/credentials";
/// Folder below which image pull secrets are mounted, one folder each.
pub const PULL_SECRETS_PATH: &str = "/etc/modelservice/pull-secrets";
/// Root of the cache that several pods share.
pub const MODEL_CACHE_PATH: &str = "/var/cache/models";

/// What to fetch, and how. Unknown keys are errors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FetchConfig {
    /// Where the model comes from: `s3://`, `gs://`, `az://`, `https://`, `hf://` or `oci://`.
    pub uri: String,
    /// Server of a store that is not its vendor's: `http://` or `https://`, host and port. For `s3://`, `gs://`, `az://`
    /// and `hf://`; for `oci://` only `http://` and the registry's own host, if it has no TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The version that must be fetched. Without one, the newest is resolved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<SourceIdentity>,
    /// `sha256:<64 hex>` of `model.onnx` or of the whole package. Any other package is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Whether [`CREDENTIALS_PATH`] has credentials.
    #[serde(default, skip_serializing_if = "is_false")]
    pub has_credentials: bool,
    /// Whether the pod's own identity may be used (workload identity of a cloud).
    #[serde(default, skip_serializing_if = "is_false")]
    pub pod_identity: bool,
    /// A cache that several pods share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<FetchCache>,
    /// How large the package may be, unpacked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maximum_bytes: Option<u64>,
    /// Whose signature the package must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<Verification>,
}

/// Whose signature a package must have (OpenSSF Model Signing).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Verification {
    /// The signer's public key, as PEM.
    pub public_key: String,
}

/// A cache on a volume that several pods share.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FetchCache {
    /// Its root.
    pub path: String,
    /// Name of the folder below `packages` that the package gets: the same for the same source and version.
    pub key: String,
    /// How much it may hold. Packages that no pod uses are removed beyond it, those used longest ago first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maximum_bytes: Option<u64>,
}

/// Which version of a source: what every later request names, so that nothing else can be fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SourceIdentity {
    /// What the version is.
    pub kind: IdentityKind,
    /// The digest, commit, version, generation or ETag; of a folder of objects, the SHA-256 (64 hex) over the sorted list
    /// of names, sizes and identities of its objects.
    pub value: String,
    /// Whether the source keeps this version when it is overwritten: if not, a pod that starts later may not get it.
    pub is_retained: bool,
}

/// Kinds of versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum IdentityKind {
    /// Digest of an OCI manifest (`sha256:…`).
    OciDigest,
    /// Commit of a repository on a hub (40 hex).
    Commit,
    /// Version of an object (S3 `versionId`, Azure version).
    Version,
    /// Generation of an object (Google Cloud Storage).
    Generation,
    /// Strong ETag of an object, with its quotes.
    ETag,
    /// SHA-256 of the content (`sha256:…`), where the spec gives it.
    Digest,
    /// SHA-256 of the list of a folder's objects.
    Folder,
}

/// What the resolver says through its termination message if it has found the source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resolved {
    /// The version that will be fetched.
    pub identity: SourceIdentity,
    /// How many objects.
    pub objects: u64,
    /// Their total size in bytes, where the source says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// Why nothing was resolved or fetched: the termination message, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FetchFailure {
    /// What kind of failure.
    pub reason: FetchReason,
    /// What happened, in the store's own words where it has any, and what to do; never a credential's value.
    pub message: String,
}

/// Kinds of failures, each with an exit code of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FetchReason {
    /// The configuration or the URI is wrong.
    ConfigInvalid,
    /// The source has nothing there.
    NotFound,
    /// The source refuses the credentials, or wants some.
    Denied,
    /// The address is one that must not be reached, or credentials are not for it.
    Forbidden,
    /// The source cannot be reached, fails or lies; tried again until it was given up.
    Unavailable,
    /// The version that is frozen with the revision is no longer there.
    SourceChanged,
    /// The package breaks a rule: no `model.onnx`, too large, a link that leads out of it, …
    PackageInvalid,
    /// The package is not the one whose digest is configured.
    DigestMismatch,
    /// The model's signature is missing or wrong.
    SignatureInvalid,
    /// No space, no memory or another resource of the machine.
    SystemError,
}

impl FetchReason {
    /// Every reason, in the order of the exit codes.
    pub const ALL: [Self; 10] = [
        Self::ConfigInvalid,
        Self::NotFound,
        Self::Denied,
        Self::Forbidden,
        Self::Unavailable,
        Self::SourceChanged,
        Self::PackageInvalid,
        Self::DigestMismatch,
        Self::SignatureInvalid,
        Self::SystemError,
    ];

    /// The process's exit code.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::ConfigInvalid => 30,
            Self::NotFound => 31,
            Self::Denied => 32,
            Self::Forbidden => 33,
            Self::Unavailable => 34,
            Self::SourceChanged => 35,
            Self::PackageInvalid => 36,
            Self::DigestMismatch => 37,
            Self::SignatureInvalid => 38,
            Self::SystemError => 39,
        }
    }
}

// serde's `skip_serializing_if` passes a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
const fn is_false(value: &bool) -> bool {
    !*value
}
