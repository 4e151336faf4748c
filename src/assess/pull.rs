//! Pull: images that cannot be pulled, and nodes that cannot mount them. Pure.

use super::cause::{Cause, brief};
use crate::{
    cache::pod::{PULLED_AGAIN, Pod},
    reason::Reason,
    revision::Images,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ContainerStateWaiting;

/// How long a pull must have failed before it is reported as Stalled. By then the kubelet has tried four times: a
/// restarting registry must not end a deployment that is waiting for it.
const PATIENCE: SignedDuration = SignedDuration::from_secs(60);

/// Waiting reasons of a container whose image the kubelet does not try to pull again.
const PULLED_ONCE: &[&str] = &[
    "InvalidImageName",
    "ErrImageNeverPull",
    "SignatureValidationFailed",
];

/// How long until failing pulls of this pod are reported as Stalled; `None` once they are.
pub(super) fn patience(pod: &Pod, now: Timestamp) -> Option<SignedDuration> {
    let created = || Some(pod.metadata.creation_timestamp.as_ref()?.0);
    let left = pod.pull_fails_since.or_else(created)? + PATIENCE - now;
    SignedDuration::try_from(left)
        .ok()
        .filter(|left| left.is_positive())
}

/// A container runtime that does not support image volumes either says so or tries to create a folder at the missing
/// host path: containerd 2.0 says `failed to mkdir "": mkdir : no such file or directory`.
pub(super) fn no_image_volumes(waiting: &ContainerStateWaiting) -> Option<Cause> {
    let message = waiting.message.as_deref().unwrap_or_default();
    let lower = message.to_lowercase();
    let is_refused = lower.contains("image volume")
        && ["not supported", "unsupported", "not support", "not implemented"]
            .iter()
            .any(|words| lower.contains(words));
    let is_mistaken = waiting.reason.as_deref() == Some("CreateContainerError")
        && lower.contains("failed to mkdir")
        && !["no space left", "read-only", "permission denied"]
            .iter()
            .any(|words| lower.contains(words));
    (is_refused || is_mistaken).then(|| {
        Cause::stalled(
            Reason::UnsupportedCluster,
            format!(
                "the node's container runtime cannot mount image volumes: containerd 2.1 or newer, or CRI-O 1.31 or newer, is needed (`kubectl get nodes -o wide` shows each node's); upgrade it, or keep the servers off such nodes with spec.pod.nodeSelector ({})",
                brief(message)
            ),
        )
    })
}

/// An image that cannot be pulled.
pub(super) struct Pull<'a> {
    /// The same for an attempt and for its back-off, so that the status does not change between the two.
    pub said: &'a str,
    /// Whether the kubelet tries again and may succeed.
    pub is_repeated: bool,
}

impl<'a> Pull<'a> {
    pub(super) fn of(waiting: &'a ContainerStateWaiting) -> Option<Self> {
        let reason = waiting.reason.as_deref()?;
        let is_repeated = PULLED_AGAIN.contains(&reason);
        if !is_repeated && !PULLED_ONCE.contains(&reason) {
            return None;
        }
        let message = waiting.message.as_deref().unwrap_or_default();
        let said = message
            .split_once("ErrImagePull: ")
            .map_or(message, |(_, said)| said);
        Some(Self { said, is_repeated })
    }

    fn cause(&self, is_patient: bool, reason: Reason, message: String) -> Cause {
        let message = format!("{message} ({})", brief(self.said));
        if is_patient && self.is_repeated {
            Cause::waiting(reason, message)
        } else {
            Cause::stalled(reason, message)
        }
    }
}

/// An image volume and the container's own image fail with the same reasons; the message tells them apart.
pub(super) fn model_pull(
    waiting: &ContainerStateWaiting,
    images: &Images,
    is_patient: bool,
) -> Option<Cause> {
    let (pull, message) = (Pull::of(waiting)?, waiting.message.as_deref()?);
    let image = images.model.as_deref()?;
    (message.contains(image) && image != images.runtime).then(|| {
        let message = format!(
            "the model image {image} cannot be pulled: check spec.model.image, that the registry is reachable from the nodes, and spec.pod.imagePullSecrets"
        );
        pull.cause(is_patient, Reason::ModelFetchFailed, message)
    })
}

pub(super) fn runtime_pull(
    waiting: &ContainerStateWaiting,
    images: &Images,
    is_patient: bool,
) -> Option<Cause> {
    let message = format!(
        "the runtime image {} cannot be pulled: check the AcceleratorClass's runtime image or the operator's --runtime-image, and spec.pod.imagePullSecrets",
        images.runtime
    );
    Some(Pull::of(waiting)?.cause(is_patient, Reason::ImagePullFailed, message))
}
