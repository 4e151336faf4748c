//! Mounts: what the volumes of a pod have in common. Pure.

use k8s_openapi::api::core::v1::VolumeMount;

/// Name of the model's volume.
pub(super) const MODEL: &str = "model";

/// Where a container mounts a volume.
pub(super) fn mount(name: &str, path: &str, read_only: Option<bool>) -> VolumeMount {
    VolumeMount {
        name: name.into(),
        mount_path: path.into(),
        read_only,
        ..VolumeMount::default()
    }
}
