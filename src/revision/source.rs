//! Source: where the servers of a revision get their model, as its pod template says. Pure.

use super::canonical::untagged;
use crate::crd::{FETCH_CONTAINER, ModelFolder, TEMPLATE_ANNOTATION, VERIFY_CONTAINER};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Container, PodSpec, PodTemplateSpec, Volume},
};
use kube::ResourceExt as _;
use modelservice_contract::{
    CONFIG_ENV, CREDENTIALS_PATH, FETCH_CONFIG_ENV, FetchConfig, IdentityKind, MODEL_PATH, ServerConfig,
    SourceIdentity, Verification,
};

/// Where a model comes from, and how it gets to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The kubelet mounts an image.
    ImageVolume(String),
    /// The kubelet mounts a folder of a claim.
    Claim(ModelFolder),
    /// An init container fetches exactly this version.
    Fetched {
        /// Where from.
        uri: String,
        /// Which version.
        identity: SourceIdentity,
    },
}

impl Source {
    /// An image that is fetched instead of mounted.
    #[must_use]
    pub fn fetched_image(image: &str) -> Self {
        let uri = format!("oci://{}", untagged(image));
        let digest = image.split_once('@').map_or("", |(_, digest)| digest);
        Self::Fetched {
            identity: retained(IdentityKind::OciDigest, digest),
            uri,
        }
    }

    /// The source as one text.
    #[must_use]
    pub fn uri(&self) -> String {
        match self {
            Self::ImageVolume(image) => format!("oci://{image}"),
            Self::Fetched { uri, .. } => uri.clone(),
            Self::Claim(ModelFolder { name, path }) => {
                let path = path.as_deref().unwrap_or_default();
                format!("volume://{name}/{path}")
            }
        }
    }

    /// How it gets to a server, in the API's words.
    #[must_use]
    pub const fn delivery(&self) -> &'static str {
        match self {
            Self::ImageVolume(_) => "ImageVolume",
            Self::Claim(_) => "VolumeClaim",
            Self::Fetched { .. } => "Fetch",
        }
    }
}

/// The version that a URI names by itself: a digest of a registry, or a commit of a hub.
#[must_use]
pub fn pinned(uri: &str) -> Option<SourceIdentity> {
    let is_hex = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let (scheme, rest) = uri.split_once("://")?;
    let version = rest.split_once('@')?.1;
    match scheme {
        "oci" => {
            let hex = version.strip_prefix("sha256:")?;
            is_hex(hex, 64).then(|| retained(IdentityKind::OciDigest, version))
        }
        "hf" => {
            let commit = version.split('/').next()?;
            is_hex(commit, 40).then(|| retained(IdentityKind::Commit, commit))
        }
        _ => None,
    }
}

/// What is to be added to the advice to delete a revision's Deployment: nothing else knows the version of a model that its
/// URI does not name.
#[must_use]
pub fn recreated(uri: Option<&str>) -> &'static str {
    match uri {
        Some(uri) if pinned(uri).is_none() => {
            ", with the version of the model that is at spec.model.uri then"
        }
        _ => "",
    }
}

fn retained(kind: IdentityKind, value: &str) -> SourceIdentity {
    SourceIdentity {
        kind,
        value: value.to_owned(),
        is_retained: true,
    }
}

/// What the frozen template of a revision says about its model.
#[derive(Clone, Debug, PartialEq)]
pub struct FrozenSource {
    /// Where the model comes from.
    pub source: Source,
    /// The image of the init container, if there is one.
    pub fetcher_image: Option<String>,
    /// The Secret with credentials, if the revision names one.
    pub secret: Option<String>,
    /// Whether a server that starts later certainly gets the same model: its source keeps it, or a cache without a
    /// limit or a digest does.
    pub is_retained: bool,
    /// Whose signature is checked.
    pub verification: Option<Verification>,
}

impl FrozenSource {
    /// What the frozen template of this Deployment says: the live one may have been dropped, see [`crate::cache`].
    #[must_use]
    pub fn of(live: &Deployment) -> Option<Self> {
        let frozen = live.annotations().get(TEMPLATE_ANNOTATION)?;
        Self::of_template(&serde_json::from_str(frozen).ok()?)
    }

    /// What a template says.
    #[must_use]
    pub fn of_template(template: &PodTemplateSpec) -> Option<Self> {
        let pod = template.spec.as_ref()?;
        let is_ours =
            |container: &&Container| [FETCH_CONTAINER, VERIFY_CONTAINER].contains(&container.name.as_str());
        let container = pod.init_containers.iter().flatten().find(is_ours);
        let config = container.and_then(config);
        let secret = pod.volumes.iter().flatten().find_map(|volume| {
            let is_mounted =
                mounts(container?).any(|(name, path)| name == volume.name && path == CREDENTIALS_PATH);
            is_mounted.then(|| volume.secret.as_ref()?.secret_name.clone())?
        });
        let fetched = container.filter(|container| container.name == FETCH_CONTAINER);
        let source = match (fetched, &config) {
            (Some(_), Some(config)) => Source::Fetched {
                uri: config.uri.clone(),
                identity: config.identity.clone()?,
            },
            _ => mounted(pod)?,
        };
        // One with a limit may remove what no pod uses at the moment, which is what the next pod would need.
        let cache = config.as_ref().and_then(|config| config.cache.as_ref());
        let is_kept = cache.is_some_and(|cache| cache.maximum_bytes.is_none());
        Some(Self {
            is_retained: match &source {
                Source::ImageVolume(_) => true,
                Source::Claim(_) => has_digest(pod),
                Source::Fetched { identity, .. } => identity.is_retained || is_kept,
            },
            source,
            fetcher_image: container.and_then(|container| container.image.clone()),
            secret,
            verification: config.and_then(|config| config.verification),
        })
    }
}

fn config(container: &Container) -> Option<FetchConfig> {
    serde_json::from_str(variable(container, FETCH_CONFIG_ENV)?).ok()
}

/// Whether the server checks a digest.
fn has_digest(pod: &PodSpec) -> bool {
    let container = pod.containers.first();
    let config = container.and_then(|container| variable(container, CONFIG_ENV));
    let config: Option<ServerConfig> = config.and_then(|config| serde_saphyr::from_str(config).ok());
    let models = config.map(|config| config.models).unwrap_or_default();
    models.first().is_some_and(|model| model.digest.is_some())
}

fn variable<'a>(container: &'a Container, name: &str) -> Option<&'a str> {
    let mut variables = container.env.iter().flatten();
    variables.find(|variable| variable.name == name)?.value.as_deref()
}

/// Names of volumes, and where they are mounted.
fn mounts(container: &Container) -> impl Iterator<Item = (&str, &str)> {
    let mounts = container.volume_mounts.iter().flatten();
    mounts.map(|mount| (mount.name.as_str(), mount.mount_path.as_str()))
}

/// What the kubelet mounts for the server.
fn mounted(pod: &PodSpec) -> Option<Source> {
    let mut mounts = pod.containers.first()?.volume_mounts.iter().flatten();
    let mount = mounts.find(|mount| mount.mount_path == MODEL_PATH)?;
    let mut volumes = pod.volumes.iter().flatten();
    let volume: &Volume = volumes.find(|volume| volume.name == mount.name)?;
    if let Some(image) = &volume.image {
        return Some(Source::ImageVolume(image.reference.clone()?));
    }
    let claim = volume.persistent_volume_claim.as_ref()?;
    Some(Source::Claim(ModelFolder {
        name: claim.claim_name.clone(),
        path: mount.sub_path.clone(),
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    /// Otherwise a pod is started to find what is known, or a moving name is never looked up.
    #[test]
    fn a_digest_and_a_commit_are_versions_and_names_are_not() {
        let (digest, commit) = ("a".repeat(64), "b".repeat(40));
        let known = [
            (
                format!("oci://r.example/net@sha256:{digest}"),
                format!("sha256:{digest}"),
            ),
            (
                format!("oci://r.example:5000/net:v1@sha256:{digest}"),
                format!("sha256:{digest}"),
            ),
            (format!("hf://org/net@{commit}"), commit.clone()),
            (format!("hf://org/net@{commit}/onnx"), commit.clone()),
        ];
        for (uri, version) in known {
            assert_eq!(pinned(&uri).map(|known| known.value), Some(version), "{uri}");
        }
        for uri in [
            "oci://r.example/net:v1".to_owned(),
            format!("oci://r.example/net@sha256:{}", "A".repeat(64)),
            "hf://org/net@main".to_owned(),
            format!("hf://org/net@{}", "b".repeat(39)),
            format!("s3://models/net@sha256:{digest}"),
            format!("https://host/net@{commit}.onnx"),
        ] {
            assert_eq!(pinned(&uri), None, "{uri}");
        }
    }

    /// Who deletes a Deployment to have it back would get another model without having been told.
    #[test]
    fn the_advice_to_delete_a_deployment_tells_of_the_version() {
        let told = recreated(Some("s3://models/net.onnx"));
        assert!(told.contains("the version of the model that is at spec.model.uri then"));
        let commit = format!("hf://org/net@{}", "b".repeat(40));
        for uri in [None, Some(commit.as_str())] {
            assert_eq!(recreated(uri), "");
        }
    }

    #[test]
    fn an_image_is_fetched_by_its_digest_whatever_its_tag() {
        let Source::Fetched { uri, identity } = Source::fetched_image("r.example:5000/net:v1@sha256:aa")
        else {
            panic!("it is not fetched");
        };
        assert_eq!(uri, "oci://r.example:5000/net@sha256:aa");
        assert_eq!(
            (identity.value.as_str(), identity.is_retained),
            ("sha256:aa", true)
        );
    }
}
