//! `ModelService`: where the model comes from.

use super::constraints;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where the model package comes from: one of `image`, `uri` and `volumeClaim`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = constraints::one_source())]
#[x_kube(validation = constraints::endpoint_has_a_store())]
#[x_kube(validation = Rule::new("!has(self.delivery) || self.delivery == 'Auto' || has(self.image)").message("delivery belongs to image; remove it"))]
#[x_kube(validation = Rule::new("!has(self.verification) || !has(self.volumeClaim) || has(self.digest)").message("verification of a volumeClaim needs digest, which the server checks at each load: a signature is checked only when a pod starts"))]
#[x_kube(validation = Rule::new("!has(self.refresh) || !has(self.image)").message("an image's digest is its version: there is nothing to refresh"))]
pub struct Model {
    /// OCI image whose root holds `model.onnx` and, optionally, `model.yaml`, pinned by digest
    /// (`registry/repository@sha256:…`). It is mounted, or else fetched; it is never run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = constraints::pinned_image())]
    pub image: Option<String>,
    /// A `.onnx` file, an archive or a folder at `s3://`, `gs://`, `az://`, `https://`, `hf://` or `oci://`. Its version
    /// is found once, when the revision is made, and is the only one that its servers fetch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    #[x_kube(validation = constraints::uri())]
    #[x_kube(validation = constraints::plain_path())]
    #[x_kube(validation = constraints::web_file())]
    #[x_kube(validation = constraints::hub_repository())]
    pub uri: Option<String>,
    /// A folder of a PersistentVolumeClaim, mounted read-only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_claim: Option<ModelFolder>,
    /// The store's own address, if it is not its vendor's: `https://HOST[:PORT]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    #[x_kube(validation = constraints::endpoint())]
    pub endpoint: Option<String>,
    /// `sha256:<64 hex>` of `model.onnx`, or of the whole package, as `modelservice-server digest FOLDER` prints it;
    /// if `model.onnx` stores weights in other files, the package's digest is required. Any other package is refused. If
    /// absent, the digest is not checked, only published in `status.model.digest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71))]
    #[x_kube(validation = Rule::new("self.matches('^sha256:[a-f0-9]{64}$')").message("must be sha256: and 64 lower-case hexadecimal digits, as sha256sum model.onnx or modelservice-server digest prints them"))]
    pub digest: Option<String>,
    /// Any new value creates a new revision, with the version that the source has then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub refresh: Option<String>,
    /// How an image gets to a server. `Auto` mounts it where the cluster has image volumes when the revision is made,
    /// and fetches it elsewhere.
    #[serde(default, skip_serializing_if = "is_auto")]
    pub delivery: Delivery,
    /// Whose signature the package must have: OpenSSF Model Signing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<ModelVerification>,
}

/// How an image gets to a server.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// As the cluster can.
    #[default]
    Auto,
    /// The kubelet mounts it.
    ImageVolume,
    /// An init container fetches it.
    Fetch,
}

/// A folder of a PersistentVolumeClaim.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ModelFolder {
    /// Name of a claim of this namespace.
    #[schemars(length(max = 253))]
    #[x_kube(validation = constraints::object_name("a PersistentVolumeClaim of this namespace"))]
    pub name: String,
    /// Path of the folder; the volume's root if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    #[x_kube(validation = constraints::relative_path())]
    pub path: Option<String>,
}

/// Whose signature a package must have.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ModelVerification {
    /// The signer's public key, as PEM.
    #[schemars(length(max = 8192))]
    #[x_kube(validation = Rule::new(r"self.matches(r'^\s*-----BEGIN PUBLIC KEY-----[A-Za-z0-9+/=\s]+-----END PUBLIC KEY-----\s*$')").message("must be a public key as PEM: -----BEGIN PUBLIC KEY----- …; never a private key"))]
    pub public_key: String,
}

// serde's `skip_serializing_if` passes a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_auto(delivery: &Delivery) -> bool {
    *delivery == Delivery::Auto
}
