//! What a registry answers for a tag or a digest: an index, or a manifest. Pure: no client.

use crate::error::FetchError;
use modelservice_contract::FetchReason;
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};
use serde::{Deserialize, de::IgnoredAny};
use sha2::{Digest, Sha256};
use std::env::consts::ARCH;

/// Media types of docker, which have the same form as OCI's.
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// How a signature or an attestation beside an image says that it is one (BuildKit).
const ATTESTATION: &str = "vnd.docker.reference.type";

/// The larger ones are refused: the specification of registries has them accept 4 MiB.
pub(super) const LARGEST_MANIFEST: usize = 4 << 20;

/// Value of the header `Accept` of a request for a manifest.
pub(super) fn accepted() -> String {
    [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX].join(", ")
}

/// What was found at a tag or a digest.
#[derive(Debug)]
pub(super) enum Document {
    /// Manifests for several platforms.
    Index(Box<ImageIndex>),
    /// Layers.
    Manifest(Box<ImageManifest>),
}

/// What says which kind of document it is.
#[derive(Deserialize)]
struct Outline {
    #[serde(rename = "mediaType")]
    media_type: Option<String>,
    manifests: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
}

/// `sha256:` and 64 hex digits.
pub(super) fn digest_of(content: &[u8]) -> String {
    format!("sha256:{:x}", Sha256::digest(content))
}

/// Reads a document. Its media type is its own field or, in old documents, the header `Content-Type`.
///
/// # Errors
/// `PackageInvalid` for what is neither an index nor a manifest.
pub(super) fn parse(place: &str, content: &[u8], content_type: Option<&str>) -> Result<Document, FetchError> {
    let invalid = |why: String| FetchError::new(FetchReason::PackageInvalid, format!("{place} {why}"));
    let outline: Outline = serde_json::from_slice(content)
        .map_err(|error| invalid(format!("has a manifest that is not JSON ({error})")))?;
    let header = content_type.map(|value| value.split(';').next().unwrap_or(value).trim());
    let kind = outline.media_type.as_deref().or(header).unwrap_or_default();
    let broken = |error: serde_json::Error| invalid(format!("has a manifest that cannot be read ({error})"));
    let index = || serde_json::from_slice(content).map(Box::new).map(Document::Index);
    let manifest = || {
        serde_json::from_slice(content)
            .map(Box::new)
            .map(Document::Manifest)
    };
    match kind {
        OCI_INDEX | DOCKER_INDEX => index().map_err(broken),
        OCI_MANIFEST | DOCKER_MANIFEST => manifest().map_err(broken),
        // Registries that are not asked for a type may answer any of them with this one.
        "" | "application/json" if outline.manifests.is_some() => index().map_err(broken),
        "" | "application/json" if outline.layers.is_some() => manifest().map_err(broken),
        kind => Err(invalid(format!(
            "is of the type {kind:?}, which is neither an OCI image nor an artifact of ORAS or ModelPack"
        ))),
    }
}

/// Chooses the manifest of an index: the machine's platform, else the only one, else linux/amd64, since models are
/// usually the same for all.
///
/// # Errors
/// `NotFound`, with the platforms that there are.
pub(super) fn choose<'a>(place: &str, index: &'a ImageIndex) -> Result<&'a Descriptor, FetchError> {
    let is_model = |descriptor: &&Descriptor| {
        let annotations = descriptor.annotations().as_ref();
        !annotations.is_some_and(|all| all.contains_key(ATTESTATION)) && is_manifest(descriptor.media_type())
    };
    let candidates: Vec<&Descriptor> = index.manifests().iter().filter(is_model).collect();
    let of = |architecture: &str| {
        let wanted = format!("linux/{architecture}");
        candidates
            .iter()
            .copied()
            .find(|candidate| platform(candidate) == wanted)
    };
    let only = || match candidates.as_slice() {
        [only] => Some(*only),
        _ => None,
    };
    of(machine()).or_else(only).or_else(|| of("amd64")).ok_or_else(|| {
        let platforms: Vec<String> = candidates.iter().map(|candidate| platform(candidate)).collect();
        FetchError::new(
            FetchReason::NotFound,
            format!(
                "{place} has nothing for linux/{}, only for: {}; push it for this platform, or name one of its \
                 manifests by digest",
                machine(),
                if platforms.is_empty() { "nothing".to_owned() } else { platforms.join(", ") }
            ),
        )
    })
}

fn is_manifest(media_type: &MediaType) -> bool {
    matches!(media_type.as_ref(), OCI_MANIFEST | DOCKER_MANIFEST)
}

/// `linux/amd64`, or `any` for an artifact that is for no platform.
fn platform(descriptor: &Descriptor) -> String {
    let platform = descriptor.platform().as_ref();
    platform.map_or_else(
        || "any".to_owned(),
        |platform| format!("{}/{}", platform.os(), platform.architecture()),
    )
}

/// The machine's architecture, as Go and so OCI call it.
fn machine() -> &'static str {
    match ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;
    use serde_json::{Value, json};

    fn entry(os: &str, architecture: &str) -> Value {
        json!({
            "mediaType": OCI_MANIFEST, "size": 1, "digest": digest_of(architecture.as_bytes()),
            "platform": {"os": os, "architecture": architecture}
        })
    }

    fn index(manifests: &[Value]) -> Box<ImageIndex> {
        let content = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}).to_string();
        match parse("oci://x", content.as_bytes(), None).unwrap() {
            Document::Index(index) => index,
            Document::Manifest(manifest) => panic!("{manifest:?}"),
        }
    }

    fn attestation() -> Value {
        let mut entry = entry("unknown", "unknown");
        entry["annotations"] = json!({ATTESTATION: "attestation-manifest"});
        entry
    }

    /// Without it, an image that BuildKit pushed for one platform, with its attestation, is refused.
    #[test]
    fn the_machines_platform_is_chosen_then_the_only_one_then_amd64() {
        let other = if machine() == "arm64" { "riscv64" } else { "arm64" };
        for (manifests, chosen) in [
            (vec![entry("linux", other), entry("linux", machine())], machine()),
            (vec![entry("linux", other), attestation()], other),
            (vec![entry("windows", "amd64")], "amd64"),
            (vec![entry("linux", "amd64"), entry("linux", "s390x")], "amd64"),
        ] {
            let index = index(&manifests);
            let descriptor = choose("oci://x", &index).unwrap();
            assert_eq!(descriptor.digest().as_ref(), digest_of(chosen.as_bytes()));
        }
    }

    /// Without it, nobody knows what to push.
    #[test]
    fn an_index_without_the_platform_says_what_it_has() {
        let index = index(&[
            entry("linux", "s390x"),
            entry("windows", "ppc64le"),
            attestation(),
        ]);
        let error = choose("oci://ghcr.io/models/x:1", &index).unwrap_err();
        assert_eq!(error.reason, FetchReason::NotFound);
        assert!(
            error.message.contains("only for: linux/s390x, windows/ppc64le;"),
            "{}",
            error.message
        );
    }

    /// Without it, images of older builders, or behind registries that forget the type, are refused.
    #[test]
    fn documents_of_docker_and_without_a_media_type_are_read() {
        let config = json!({"mediaType": "application/vnd.docker.container.image.v1+json", "size": 1, "digest": digest_of(b"")});
        let bare = json!({"schemaVersion": 2, "config": config, "layers": []});
        let mut docker = bare.clone();
        docker["mediaType"] = json!(DOCKER_MANIFEST);
        for (document, header) in [
            (&docker, None),
            (
                &bare,
                Some("application/vnd.oci.image.manifest.v1+json; charset=utf-8"),
            ),
            (&bare, Some("application/json")),
            (&bare, None),
        ] {
            let parsed = parse("oci://x", document.to_string().as_bytes(), header).unwrap();
            assert!(matches!(parsed, Document::Manifest(_)), "{header:?}");
        }
    }

    /// Without it, the message would be serde's, about a field.
    #[test]
    fn what_is_no_image_and_no_artifact_is_named() {
        for (content, part) in [
            (
                r#"{"schemaVersion": 1, "mediaType": "application/vnd.docker.distribution.manifest.v1+prettyjws"}"#,
                "manifest.v1+prettyjws",
            ),
            ("<html>", "is not JSON"),
            (
                r#"{"mediaType": "application/vnd.oci.image.manifest.v1+json"}"#,
                "cannot be read",
            ),
            ("{}", "is of the type \"\""),
        ] {
            let error = parse("oci://x", content.as_bytes(), None).unwrap_err();
            assert_eq!(error.reason, FetchReason::PackageInvalid, "{content}");
            assert!(error.message.contains(part), "{content}: {}", error.message);
        }
    }
}
