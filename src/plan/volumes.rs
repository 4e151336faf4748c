//! The volumes of a server: the model package and the tokens, which it reads, and the cache, which it writes. Pure.

use super::{
    fetch,
    mount::{MODEL, mount},
};
use crate::{
    crd::{FetchVolume, ModelServiceSpec},
    revision::Source,
};
use k8s_openapi::{
    api::core::v1::{
        EmptyDirVolumeSource, EphemeralVolumeSource, ImageVolumeSource, KeyToPath, PersistentVolumeClaimSpec,
        PersistentVolumeClaimTemplate, PersistentVolumeClaimVolumeSource, SecretVolumeSource, Volume,
        VolumeMount, VolumeResourceRequirements,
    },
    apimachinery::pkg::api::resource::Quantity,
};
use modelservice_contract::{CACHE_PATH, MODEL_PATH};

/// Name of the cache's volume.
const CACHE: &str = "cache";
/// Name of the tokens' volume.
const TOKENS: &str = "tokens";
/// Where the tokens are mounted.
const TOKEN_FOLDER: &str = "/etc/modelservice/auth";
/// The key of the Secret that is mounted, and its file.
const TOKEN_KEY: &str = "tokens";
/// Its path.
pub(super) const TOKEN_FILE: &str = "/etc/modelservice/auth/tokens";
/// User and group of the runtime image. A claim's files belong to this group unless `spec.pod.fsGroup` names another.
pub(super) const RUNTIME_ID: i64 = 65532;
/// Annotation of a pod: volumes that the cluster autoscaler may delete together with their node.
const SAFE_TO_EVICT: &str = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes";

/// The volumes of a pod with this model, whose container may use this much ephemeral storage.
pub(super) fn volumes(
    spec: &ModelServiceSpec,
    source: &Source,
    storage_limit: Option<&Quantity>,
) -> Vec<Volume> {
    let model = model(spec, source, storage_limit);
    let credentials = match source {
        Source::Fetched { uri, .. } => fetch::volumes(spec, uri),
        Source::ImageVolume(_) | Source::Claim(_) => Vec::new(),
    };
    let cache = Volume {
        name: CACHE.into(),
        ..match &spec.server.cache.volume_claim {
            Some(claim) => Volume {
                persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                    claim_name: claim.name.clone(),
                    read_only: None,
                }),
                ..Volume::default()
            },
            // It counts towards the container's limit anyway; a smaller limit of its own would only cause earlier
            // evictions.
            None => Volume {
                empty_dir: Some(EmptyDirVolumeSource {
                    size_limit: storage_limit.cloned(),
                    ..EmptyDirVolumeSource::default()
                }),
                ..Volume::default()
            },
        }
    };
    let tokens = spec.server.auth.as_ref().map(|auth| Volume {
        name: TOKENS.into(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(auth.token_secret_name.clone()),
            // Nothing else in the Secret is mounted.
            items: Some(vec![KeyToPath {
                key: TOKEN_KEY.into(),
                path: TOKEN_KEY.into(),
                ..KeyToPath::default()
            }]),
            // If the Secret is missing, the server reports that in the status; the kubelet would silently wait for
            // it.
            optional: Some(true),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    });
    [model, cache]
        .into_iter()
        .chain(tokens)
        .chain(credentials)
        .collect()
}

/// The volume with the model: what the kubelet mounts, or where it is fetched to.
fn model(spec: &ModelServiceSpec, source: &Source, storage_limit: Option<&Quantity>) -> Volume {
    let mut volume = Volume {
        name: MODEL.into(),
        ..Volume::default()
    };
    match (source, &spec.fetch.volume) {
        (Source::ImageVolume(image), _) => {
            volume.image = Some(ImageVolumeSource {
                reference: Some(image.clone()),
                pull_policy: Some("IfNotPresent".into()),
            });
        }
        // Read-only as a whole, so that the kubelet neither makes a folder that is missing nor gives files a new owner.
        (Source::Claim(folder), _) => {
            volume.persistent_volume_claim = Some(PersistentVolumeClaimVolumeSource {
                claim_name: folder.name.clone(),
                read_only: Some(true),
            });
        }
        (Source::Fetched { .. }, Some(settings)) => volume.ephemeral = Some(ephemeral(settings)),
        (Source::Fetched { .. }, None) => {
            volume.empty_dir = Some(EmptyDirVolumeSource {
                size_limit: storage_limit.cloned(),
                ..EmptyDirVolumeSource::default()
            });
        }
    }
    volume
}

fn ephemeral(settings: &FetchVolume) -> EphemeralVolumeSource {
    EphemeralVolumeSource {
        volume_claim_template: Some(PersistentVolumeClaimTemplate {
            metadata: None,
            spec: PersistentVolumeClaimSpec {
                access_modes: Some(vec!["ReadWriteOnce".into()]),
                storage_class_name: settings.storage_class_name.clone(),
                resources: Some(VolumeResourceRequirements {
                    requests: Some([("storage".to_owned(), settings.size.clone())].into()),
                    limits: None,
                }),
                ..PersistentVolumeClaimSpec::default()
            },
        }),
    }
}

/// Where the server's container mounts them.
pub(super) fn mounts(spec: &ModelServiceSpec, source: &Source) -> Vec<VolumeMount> {
    let tokens = spec.server.auth.as_ref();
    let model = VolumeMount {
        sub_path: fetch::sub_path(source),
        ..mount(MODEL, MODEL_PATH, Some(true))
    };
    [model, mount(CACHE, CACHE_PATH, None)]
        .into_iter()
        .chain(tokens.map(|_| mount(TOKENS, TOKEN_FOLDER, Some(true))))
        .collect()
}

/// The group that owns mounted volumes. With most kinds of storage, only its group can write to a claim's root.
pub(super) fn fs_group(spec: &ModelServiceSpec) -> Option<i64> {
    let claimed = [
        spec.server.cache.volume_claim.is_some(),
        spec.fetch.cache.is_some(),
        spec.fetch.volume.is_some(),
    ];
    spec.pod
        .fs_group
        .or_else(|| claimed.contains(&true).then_some(RUNTIME_ID))
}

/// The annotation that lets the cluster autoscaler remove the pod's node.
pub(super) fn safe_to_evict(spec: &ModelServiceSpec, source: &Source) -> Option<(String, String)> {
    let is_fetched = matches!(source, Source::Fetched { .. });
    let has_model = is_fetched && spec.fetch.volume.is_none();
    let model = has_model.then_some(MODEL);
    let cache = spec.server.cache.volume_claim.is_none().then_some(CACHE);
    let local: Vec<&str> = cache.into_iter().chain(model).collect();
    (!local.is_empty()).then(|| (SAFE_TO_EVICT.to_owned(), local.join(",")))
}
