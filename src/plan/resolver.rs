//! Resolver: the pod that finds out which version of its model a new revision gets, once per attempt. Pure; when the next
//! attempt begins is decided in src/resolution/.

use super::{affinity::affinity, fetch, meta, runtime::DefaultRuntime, volumes::RUNTIME_ID};
use crate::{
    cache::pod::Pod,
    crd::{ATTEMPT_LABEL, COMPONENT_LABEL, RESOLVER, RESOLVES_LABEL},
    observe::{Observed, until_next},
    resolution::{Next, attempts, outdated},
    validate::{Target, ValidatedService},
};
use jiff::SignedDuration;
use k8s_openapi::{
    api::core::v1::{self as core, Affinity, PodSecurityContext, PodSpec, SeccompProfile},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use std::{collections::BTreeMap, sync::Arc};

/// Prefixes of labels with which clouds and meshes choose pods, and no Service does. Other labels of servers are not
/// for this pod, which answers no requests.
const IDENTITY_LABELS: [&str; 2] = ["azure.workload.identity/", "sidecar.istio.io/"];

/// What happens to the pods that look for the version of a new revision's model.
#[derive(Clone, Debug, Default)]
pub struct Resolver {
    /// The next attempt, if it has to begin now.
    pub wanted: Option<core::Pod>,
    /// Attempts that have been read.
    pub retired: Vec<Arc<Pod>>,
    /// How long until the next attempt is due.
    pub(super) look_again: Option<SignedDuration>,
}

/// Decides about these pods.
pub(super) fn decide(service: &ValidatedService, observed: &Observed, runtime: &DefaultRuntime) -> Resolver {
    let all = &observed.resolvers;
    let Target::Unresolved(next) = &service.target else {
        return Resolver {
            retired: all.clone(),
            ..Resolver::default()
        };
    };
    let attempts = attempts(all, &service.revision);
    let others = all.iter().filter(|pod| {
        let mut its = attempts.iter();
        !its.any(|attempt| attempt.pod.metadata.name == pod.metadata.name)
    });
    let begins = |number| (!service.spec().suspend).then(|| pod(service, number, runtime));
    Resolver {
        retired: others.chain(outdated(&attempts)).cloned().collect(),
        wanted: match next {
            Next::Begin(number) => begins(*number),
            Next::Known(_) | Next::Wait | Next::WaitUntil(_) => None,
        },
        look_again: match next {
            Next::WaitUntil(due) => until_next([*due], observed.now),
            Next::Known(_) | Next::Begin(_) | Next::Wait => None,
        },
    }
}

/// The pod of an attempt.
fn pod(service: &ValidatedService, number: u32, runtime: &DefaultRuntime) -> core::Pod {
    let spec = service.spec();
    let suffix = if number == 1 {
        String::new()
    } else {
        format!("-{number}")
    };
    let name = format!("{}-{}-resolve{suffix}", service.name, service.revision);
    let annotations = spec.pod.annotations.clone();
    core::Pod {
        metadata: ObjectMeta {
            labels: Some(labels(service, number)),
            annotations: (!annotations.is_empty()).then_some(annotations),
            ..meta::meta(service, name)
        },
        spec: Some(pod_spec(service, runtime)),
        status: None,
    }
}

/// No selector of a Service, a disruption budget or a Deployment of ours has these.
fn labels(service: &ValidatedService, number: u32) -> BTreeMap<String, String> {
    let mut labels = meta::labels(service);
    labels.extend([
        (COMPONENT_LABEL.to_owned(), RESOLVER.to_owned()),
        (RESOLVES_LABEL.to_owned(), service.revision.clone()),
        (ATTEMPT_LABEL.to_owned(), number.to_string()),
    ]);
    let users = service.spec().pod.labels.iter();
    let identity = users.filter(|(key, _)| IDENTITY_LABELS.iter().any(|prefix| key.starts_with(prefix)));
    labels.extend(identity.map(|(key, value)| (key.clone(), value.clone())));
    labels
}

/// Scheduled as the service's servers are, but without their device and apart from them.
fn pod_spec(service: &ValidatedService, runtime: &DefaultRuntime) -> PodSpec {
    let spec = service.spec();
    let settings = &spec.pod;
    let uri = spec.model.uri.clone().unwrap_or_default();
    let volumes = fetch::credential_volumes(spec, &uri);
    let node_affinity = settings
        .affinity
        .as_ref()
        .and_then(|all| all.node_affinity.clone());
    let near_nodes = node_affinity.map(|node_affinity| Affinity {
        node_affinity: Some(node_affinity),
        ..Affinity::default()
    });
    PodSpec {
        containers: vec![fetch::resolve(spec, runtime)],
        volumes: (!volumes.is_empty()).then_some(volumes),
        restart_policy: Some("Never".into()),
        active_deadline_seconds: Some(spec.rollout.fetch_deadline_seconds.into()),
        termination_grace_period_seconds: Some(5),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(RUNTIME_ID),
            run_as_group: Some(RUNTIME_ID),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".into(),
                localhost_profile: None,
            }),
            fs_group: settings.fs_group,
            ..PodSecurityContext::default()
        }),
        node_selector: (!settings.node_selector.is_empty()).then(|| settings.node_selector.clone()),
        tolerations: (!settings.tolerations.is_empty()).then(|| settings.tolerations.clone()),
        affinity: affinity(near_nodes.as_ref(), None),
        priority_class_name: settings.priority_class_name.clone(),
        scheduler_name: settings.scheduler_name.clone(),
        service_account_name: settings.service_account_name.clone(),
        image_pull_secrets: (!settings.image_pull_secrets.is_empty())
            .then(|| settings.image_pull_secrets.clone()),
        ..PodSpec::default()
    }
}

#[cfg(test)]
mod tests;
