//! The volumes of a server: the model package and the tokens, which it reads, and the cache, which it writes. Pure.

use crate::crd::ModelServiceSpec;
use k8s_openapi::{
    api::core::v1::{
        EmptyDirVolumeSource, ImageVolumeSource, KeyToPath, PersistentVolumeClaimVolumeSource,
        SecretVolumeSource, Volume, VolumeMount,
    },
    apimachinery::pkg::api::resource::Quantity,
};
use modelservice_contract::{CACHE_PATH, MODEL_PATH};

/// Name of the cache's volume.
const CACHE: &str = "cache";
/// Name of the model's volume.
const MODEL: &str = "model";
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

/// The volumes of a pod whose container may use this much ephemeral storage.
pub(super) fn volumes(spec: &ModelServiceSpec, storage_limit: Option<&Quantity>) -> Vec<Volume> {
    let model = Volume {
        name: MODEL.into(),
        image: Some(ImageVolumeSource {
            reference: Some(spec.model.image.clone()),
            pull_policy: Some("IfNotPresent".into()),
        }),
        ..Volume::default()
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
    [model, cache].into_iter().chain(tokens).collect()
}

/// Where the container mounts them.
pub(super) fn mounts(spec: &ModelServiceSpec) -> Vec<VolumeMount> {
    let mount = |name: &str, path: &str, read_only| VolumeMount {
        name: name.into(),
        mount_path: path.into(),
        read_only,
        ..VolumeMount::default()
    };
    let tokens = spec.server.auth.as_ref();
    [
        mount(MODEL, MODEL_PATH, Some(true)),
        mount(CACHE, CACHE_PATH, None),
    ]
    .into_iter()
    .chain(tokens.map(|_| mount(TOKENS, TOKEN_FOLDER, Some(true))))
    .collect()
}

/// The group that owns mounted volumes. With most kinds of storage, only its group can write to a claim's root.
pub(super) fn fs_group(spec: &ModelServiceSpec) -> Option<i64> {
    let claimed = spec.server.cache.volume_claim.is_some();
    spec.pod.fs_group.or_else(|| claimed.then_some(RUNTIME_ID))
}

/// The annotation that lets the cluster autoscaler remove the pod's node.
pub(super) fn safe_to_evict(spec: &ModelServiceSpec) -> Option<(String, String)> {
    let local = spec.server.cache.volume_claim.is_none();
    local.then(|| (SAFE_TO_EVICT.to_owned(), CACHE.to_owned()))
}
