//! What finds, fetches and verifies a model: containers that run the operator's own runtime image, whatever the class's
//! is, and the volumes that only they see. Pure.

use super::{
    mount::{MODEL, mount},
    runtime::DefaultRuntime,
};
use crate::{
    crd::{
        FETCH_ARGUMENTS, FETCH_CONTAINER, FETCH_PROGRAM, FetchIdentity, ModelServiceSpec, RESOLVE_CONTAINER,
        VERIFY_CONTAINER,
    },
    revision::{Source, hash, thousandths},
};
use k8s_openapi::{
    api::core::v1::{
        Capabilities, Container, EnvVar, KeyToPath, PersistentVolumeClaimVolumeSource, ProjectedVolumeSource,
        ResourceRequirements, SecretProjection, SecretVolumeSource, SecurityContext, Volume, VolumeMount,
        VolumeProjection,
    },
    apimachinery::pkg::api::resource::Quantity,
};
use modelservice_contract::{
    CREDENTIALS_PATH, FETCH_CONFIG_ENV, FetchCache, FetchConfig, MODEL_CACHE_PATH, MODEL_PATH,
    PULL_SECRETS_PATH, SourceIdentity, Verification,
};
use std::collections::BTreeMap;

/// Name of the volume with the cache that servers share.
const CACHE: &str = "model-cache";
/// Name of the volume with the store's credentials.
const CREDENTIALS: &str = "credentials";
/// Name of the volume with the registries' credentials.
const PULL_SECRETS: &str = "pull-secrets";
/// Keys of image pull secrets: the present and the first form, and the servers beside the registry that get the credentials
/// too.
const PULL_SECRET_KEYS: [&str; 3] = [".dockerconfigjson", ".dockercfg", "endpoints"];

/// The container that finds the version of the model that the spec names.
pub(super) fn resolve(spec: &ModelServiceSpec, runtime: &DefaultRuntime) -> Container {
    let uri = spec.model.uri.clone().unwrap_or_default();
    let mounts = credential_mounts(spec, &uri);
    container(RESOLVE_CONTAINER, spec, runtime, &config(spec, uri), mounts)
}

/// The init containers of a server with this source: at most one.
pub(super) fn init_containers(
    spec: &ModelServiceSpec,
    source: &Source,
    runtime: &DefaultRuntime,
    storage_limit: Option<&Quantity>,
) -> Option<Vec<Container>> {
    let verifies = spec.model.verification.is_some();
    let made = match source {
        Source::Fetched { uri, identity } => Some(fetch(spec, uri, identity, runtime, storage_limit)),
        Source::ImageVolume(_) | Source::Claim(_) => verifies.then(|| verify(spec, source, runtime)),
    };
    made.map(|container| vec![container])
}

fn fetch(
    spec: &ModelServiceSpec,
    uri: &str,
    identity: &SourceIdentity,
    runtime: &DefaultRuntime,
    storage_limit: Option<&Quantity>,
) -> Container {
    let cache = spec.fetch.cache.as_ref().map(|cache| FetchCache {
        path: MODEL_CACHE_PATH.to_owned(),
        key: cache_key(spec, uri, identity),
        maximum_bytes: cache.maximum_size.as_ref().and_then(bytes),
    });
    let size = spec.fetch.volume.as_ref().map(|volume| &volume.size);
    let mut mounts = vec![mount(MODEL, MODEL_PATH, None)];
    mounts.extend(cache.as_ref().map(|_| mount(CACHE, MODEL_CACHE_PATH, None)));
    mounts.extend(credential_mounts(spec, uri));
    let config = FetchConfig {
        identity: Some(identity.clone()),
        cache,
        maximum_bytes: size.or(storage_limit).and_then(bytes),
        verification: verification(spec),
        ..config(spec, uri.to_owned())
    };
    Container {
        args: Some(FETCH_ARGUMENTS.map(str::to_owned).into()),
        ..container(FETCH_CONTAINER, spec, runtime, &config, mounts)
    }
}

/// Sees what the kubelet mounts for the server, and nothing else.
fn verify(spec: &ModelServiceSpec, source: &Source, runtime: &DefaultRuntime) -> Container {
    let config = FetchConfig {
        uri: source.uri(),
        digest: spec.model.digest.clone(),
        verification: verification(spec),
        ..FetchConfig::default()
    };
    let mounted = VolumeMount {
        sub_path: sub_path(source),
        ..mount(MODEL, MODEL_PATH, Some(true))
    };
    container(VERIFY_CONTAINER, spec, runtime, &config, vec![mounted])
}

/// The folder of the model's volume that a server sees; its root if `None`.
pub(super) fn sub_path(source: &Source) -> Option<String> {
    match source {
        Source::Claim(folder) => folder.path.clone(),
        Source::ImageVolume(_) | Source::Fetched { .. } => None,
    }
}

/// The same for the same version of the same source, whichever service asks.
fn cache_key(spec: &ModelServiceSpec, uri: &str, identity: &SourceIdentity) -> String {
    hash(&(uri, &spec.model.endpoint, identity))
}

fn config(spec: &ModelServiceSpec, uri: String) -> FetchConfig {
    FetchConfig {
        uri,
        endpoint: spec.model.endpoint.clone(),
        digest: spec.model.digest.clone(),
        has_credentials: spec.fetch.credentials.is_some(),
        pod_identity: spec.fetch.identity == FetchIdentity::Pod,
        ..FetchConfig::default()
    }
}

fn verification(spec: &ModelServiceSpec) -> Option<Verification> {
    let verification = spec.model.verification.as_ref()?;
    Some(Verification {
        public_key: verification.public_key.clone(),
    })
}

fn container(
    name: &str,
    spec: &ModelServiceSpec,
    runtime: &DefaultRuntime,
    config: &FetchConfig,
    mounts: Vec<VolumeMount>,
) -> Container {
    Container {
        name: name.into(),
        image: Some(runtime.image.clone()),
        image_pull_policy: Some("IfNotPresent".into()),
        command: Some(vec![FETCH_PROGRAM.into()]),
        args: Some(vec![name.into()]),
        env: Some(vec![EnvVar {
            name: FETCH_CONFIG_ENV.into(),
            // Plain data, whose serialisation cannot fail.
            value: Some(escaped(&serde_json::to_string(config).unwrap_or_default())),
            value_from: None,
        }]),
        resources: Some(resources(spec)),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            run_as_user: spec.fetch.run_as_user,
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".into()]),
                add: None,
            }),
            ..SecurityContext::default()
        }),
        termination_message_policy: Some("FallbackToLogsOnError".into()),
        volume_mounts: (!mounts.is_empty()).then_some(mounts),
        ..Container::default()
    }
}

/// The kubelet replaces `$(NAME)` in a value, and `$$` by `$`. Within JSON, a `$` can be written as `\u0024`.
fn escaped(json: &str) -> String {
    json.replace('$', "\\u0024")
}

/// Quotas need all of these.
fn resources(spec: &ModelServiceSpec) -> ResourceRequirements {
    const STORAGE: &str = "ephemeral-storage";
    let set = |pairs: &[(&str, &str)]| -> BTreeMap<String, Quantity> {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| ((*name).to_owned(), Quantity((*value).to_owned())))
            .collect()
    };
    let (mut requests, mut limits) = match &spec.fetch.resources {
        Some(given) => (given.requests.clone(), given.limits.clone()),
        None => (
            set(&[("cpu", "50m"), ("memory", "64Mi")]),
            set(&[("cpu", "1"), ("memory", "128Mi")]),
        ),
    };
    // Its log; the model counts against the server's limit.
    if !requests.contains_key(STORAGE) && !limits.contains_key(STORAGE) {
        requests.extend(set(&[(STORAGE, "64Mi")]));
        limits.extend(set(&[(STORAGE, "1Gi")]));
    }
    ResourceRequirements {
        requests: (!requests.is_empty()).then_some(requests),
        limits: (!limits.is_empty()).then_some(limits),
        claims: None,
    }
}

/// The volumes that only the init container sees: the cache and credentials for this URI. Servers do not see the cache, so
/// that it may remove what they serve, and whoever writes to it cannot change that.
pub(super) fn volumes(spec: &ModelServiceSpec, uri: &str) -> Vec<Volume> {
    let cache = spec.fetch.cache.as_ref().map(|cache| Volume {
        name: CACHE.into(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: cache.volume_claim.name.clone(),
            read_only: None,
        }),
        ..Volume::default()
    });
    cache.into_iter().chain(credential_volumes(spec, uri)).collect()
}

/// The volumes with credentials for this URI.
pub(super) fn credential_volumes(spec: &ModelServiceSpec, uri: &str) -> Vec<Volume> {
    let credentials = spec.fetch.credentials.as_ref().map(|credentials| Volume {
        name: CREDENTIALS.into(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(credentials.secret_name.clone()),
            // If the Secret is missing, the fetcher says so; the kubelet would silently wait for it.
            optional: Some(true),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    });
    let pull_secrets = has_pull_secrets(spec, uri).then(|| Volume {
        name: PULL_SECRETS.into(),
        projected: Some(ProjectedVolumeSource {
            sources: Some(
                spec.pod
                    .image_pull_secrets
                    .iter()
                    .map(|secret| pull_secret(&secret.name))
                    .collect(),
            ),
            ..ProjectedVolumeSource::default()
        }),
        ..Volume::default()
    });
    credentials.into_iter().chain(pull_secrets).collect()
}

fn credential_mounts(spec: &ModelServiceSpec, uri: &str) -> Vec<VolumeMount> {
    let credentials = spec.fetch.credentials.as_ref();
    let credentials = credentials.map(|_| mount(CREDENTIALS, CREDENTIALS_PATH, Some(true)));
    let pull_secrets =
        has_pull_secrets(spec, uri).then(|| mount(PULL_SECRETS, PULL_SECRETS_PATH, Some(true)));
    credentials.into_iter().chain(pull_secrets).collect()
}

/// Only registries get them.
fn has_pull_secrets(spec: &ModelServiceSpec, uri: &str) -> bool {
    uri.starts_with("oci://") && !spec.pod.image_pull_secrets.is_empty()
}

/// Each in a folder of its own.
fn pull_secret(name: &str) -> VolumeProjection {
    let items = PULL_SECRET_KEYS.map(|key| KeyToPath {
        key: key.into(),
        path: format!("{name}/{key}"),
        ..KeyToPath::default()
    });
    VolumeProjection {
        secret: Some(SecretProjection {
            name: name.into(),
            items: Some(items.into()),
            // Each has one of the two forms, and few have `endpoints`.
            optional: Some(true),
        }),
        ..VolumeProjection::default()
    }
}

/// A quantity in whole bytes.
fn bytes(quantity: &Quantity) -> Option<u64> {
    u64::try_from(thousandths(&quantity.0)? / 1000).ok()
}
