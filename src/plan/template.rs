//! The pod template of a revision: one restricted container with its model and cache, and before it, where the model is
//! fetched or verified, another one. Pure.

use super::{
    affinity::affinity, claim, fetch, meta, meta::DeploymentId, runtime::DefaultRuntime,
    server_config::server_config, volumes, volumes::RUNTIME_ID,
};
use crate::{
    crd::{AcceleratorClass, ModelServiceSpec, PullPolicy, SERVER_CONTAINER},
    revision::Source,
    validate::ValidatedService,
};
use k8s_openapi::{
    api::core::v1::{
        Capabilities, Container, ContainerPort, EnvVar, HTTPGetAction, Lifecycle, LifecycleHandler,
        PodSecurityContext, PodSpec, PodTemplateSpec, Probe, ResourceRequirements, SeccompProfile,
        SecurityContext, SleepAction, TopologySpreadConstraint,
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};
use kube::ResourceExt as _;
use modelservice_contract::{CONFIG_ENV, Drain, HTTP_PORT, LIVE_PATH, MANAGEMENT_PORT, READY_PATH};
use std::collections::BTreeMap;

/// Seconds before SIGTERM, in which every node learns that the pod is terminating.
const PRE_STOP_SECONDS: u32 = 5;
/// Name of the resource that logs and emptyDirs count against.
const EPHEMERAL_STORAGE: &str = "ephemeral-storage";
/// What the scheduler reserves: the size of a server's log that the kubelet keeps by default.
const EPHEMERAL_REQUEST: &str = "64Mi";
/// Room for the log and for a cache in an emptyDir, whose graph must also fit into the server's memory. A pod that
/// exceeds it is evicted.
const EPHEMERAL_LIMIT: &str = "10Gi";
/// Seconds by which the grace period exceeds everything that a terminating server does.
const GRACE_SLACK_SECONDS: u32 = 5;

/// Renders the template of a new revision.
pub(super) fn template(
    service: &ValidatedService,
    class: &AcceleratorClass,
    source: &Source,
    runtime: &DefaultRuntime,
) -> PodTemplateSpec {
    let spec = service.spec();
    let mut labels = spec.pod.labels.clone();
    labels.extend(meta::labels(service));
    labels.extend(DeploymentId::of_target(service, &class.name_any()).labels());
    // The user's own annotations win.
    let mut annotations: BTreeMap<_, _> = volumes::safe_to_evict(spec, source).into_iter().collect();
    annotations.extend(spec.pod.annotations.clone());
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels),
            annotations: some(&annotations),
            ..ObjectMeta::default()
        }),
        spec: Some(pod(service, class, source, runtime)),
    }
}

/// The startup deadline belongs to the revision, so it is copied before two templates are compared.
pub(super) fn keep_startup_deadline(fresh: &mut PodTemplateSpec, frozen: &PodTemplateSpec) {
    let probe = frozen
        .spec
        .as_ref()
        .and_then(|pod| pod.containers.first()?.startup_probe.clone());
    if let Some(container) = fresh.spec.as_mut().and_then(|pod| pod.containers.first_mut()) {
        container.startup_probe = probe;
    }
}

/// The runtime image of a template.
pub(super) fn runtime_image(template: &PodTemplateSpec) -> &str {
    template
        .spec
        .as_ref()
        .and_then(|pod| pod.containers.first()?.image.as_deref())
        .unwrap_or_default()
}

fn pod(
    service: &ValidatedService,
    class: &AcceleratorClass,
    source: &Source,
    runtime: &DefaultRuntime,
) -> PodSpec {
    let spec = service.spec();
    let settings = &spec.pod;
    let mut node_selector = settings.node_selector.clone();
    node_selector.extend(class.spec.node_selector.clone());
    let tolerations = [settings.tolerations.as_slice(), class.spec.tolerations.as_slice()].concat();
    let drain = Drain::default();
    let container = container(service, class, source, runtime);
    let limits = container
        .resources
        .as_ref()
        .and_then(|resources| resources.limits.as_ref());
    let storage_limit = limits.and_then(|limits| limits.get(EPHEMERAL_STORAGE));
    let volumes = volumes::volumes(spec, source, storage_limit);
    PodSpec {
        init_containers: fetch::init_containers(spec, source, runtime, storage_limit),
        containers: vec![container],
        volumes: Some(volumes),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(i64::from(
            PRE_STOP_SECONDS + drain.accept_seconds + drain.finish_seconds + GRACE_SLACK_SECONDS,
        )),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(RUNTIME_ID),
            run_as_group: Some(RUNTIME_ID),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".into(),
                localhost_profile: None,
            }),
            fs_group: volumes::fs_group(spec),
            ..PodSecurityContext::default()
        }),
        node_selector: some(&node_selector),
        tolerations: (!tolerations.is_empty()).then_some(tolerations),
        affinity: affinity(settings.affinity.as_ref(), class.spec.node_affinity.as_ref()),
        topology_spread_constraints: spread(service),
        priority_class_name: settings.priority_class_name.clone(),
        scheduler_name: settings.scheduler_name.clone(),
        service_account_name: settings.service_account_name.clone(),
        image_pull_secrets: (!settings.image_pull_secrets.is_empty())
            .then(|| settings.image_pull_secrets.clone()),
        runtime_class_name: class.spec.runtime_class_name.clone(),
        resource_claims: claim::of_pod(service, class),
        ..PodSpec::default()
    }
}

/// A constraint without a selector means this service's revision.
fn spread(service: &ValidatedService) -> Option<Vec<TopologySpreadConstraint>> {
    let mut constraints = service.spec().pod.topology_spread_constraints.clone();
    for constraint in &mut constraints {
        constraint.label_selector.get_or_insert_with(|| LabelSelector {
            match_labels: Some(meta::revision_selector(service, &service.revision)),
            ..LabelSelector::default()
        });
    }
    (!constraints.is_empty()).then_some(constraints)
}

fn container(
    service: &ValidatedService,
    class: &AcceleratorClass,
    source: &Source,
    runtime: &DefaultRuntime,
) -> Container {
    let spec = service.spec();
    let port = |name: &str, number: u16| ContainerPort {
        name: Some(name.into()),
        container_port: i32::from(number),
        protocol: Some("TCP".into()),
        ..ContainerPort::default()
    };
    Container {
        name: SERVER_CONTAINER.into(),
        image: Some(
            class
                .spec
                .runtime
                .image
                .clone()
                .unwrap_or_else(|| runtime.image.clone()),
        ),
        image_pull_policy: Some(pull_policy(class).as_str().into()),
        env: Some(environment(service, class)),
        ports: Some(vec![port("http", HTTP_PORT), port("management", MANAGEMENT_PORT)]),
        resources: Some(resources(spec, class)),
        startup_probe: Some(probe(READY_PATH, 1, spec.rollout.startup_deadline_seconds)),
        readiness_probe: Some(probe(READY_PATH, 1, 2)),
        liveness_probe: Some(probe(LIVE_PATH, 10, 3)),
        lifecycle: Some(Lifecycle {
            pre_stop: Some(LifecycleHandler {
                sleep: Some(SleepAction {
                    seconds: i64::from(PRE_STOP_SECONDS),
                }),
                ..LifecycleHandler::default()
            }),
            ..Lifecycle::default()
        }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".into()]),
                add: None,
            }),
            ..SecurityContext::default()
        }),
        termination_message_policy: Some("FallbackToLogsOnError".into()),
        volume_mounts: Some(volumes::mounts(spec, source)),
        ..Container::default()
    }
}

fn pull_policy(class: &AcceleratorClass) -> PullPolicy {
    class
        .spec
        .runtime
        .image_pull_policy
        .unwrap_or(PullPolicy::IfNotPresent)
}

/// The server's configuration, then the class's variables, then the user's: a variable can refer to earlier ones.
fn environment(service: &ValidatedService, class: &AcceleratorClass) -> Vec<EnvVar> {
    let fixed = |name: &str, value: String| EnvVar {
        name: name.into(),
        value: Some(value),
        value_from: None,
    };
    let of_class = class.spec.env.iter();
    let is_free = |variable: &&EnvVar| !class.spec.env.iter().any(|set| set.name == variable.name);
    std::iter::once(fixed(CONFIG_ENV, server_config(service, class)))
        .chain(of_class.map(|variable| fixed(&variable.name, variable.value.clone())))
        .chain(service.spec().pod.env.iter().filter(is_free).cloned())
        .collect()
}

fn probe(path: &str, period_seconds: i32, failure_threshold: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.into()),
            port: IntOrString::String("management".into()),
            scheme: Some("HTTP".into()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        timeout_seconds: Some(2),
        failure_threshold: Some(failure_threshold),
        ..Probe::default()
    }
}

/// What the user requests, ephemeral storage unless they mention it, and the class's extended resource, which
/// Kubernetes requires as request and limit.
fn resources(spec: &ModelServiceSpec, class: &AcceleratorClass) -> ResourceRequirements {
    let (mut requests, mut limits) = (spec.resources.requests.clone(), spec.resources.limits.clone());
    // Setting only one of them could contradict the user's value of the other.
    if !requests.contains_key(EPHEMERAL_STORAGE) && !limits.contains_key(EPHEMERAL_STORAGE) {
        requests.insert(EPHEMERAL_STORAGE.into(), Quantity(EPHEMERAL_REQUEST.into()));
        limits.insert(EPHEMERAL_STORAGE.into(), Quantity(EPHEMERAL_LIMIT.into()));
    }
    if let Some(device) = &class.spec.resource {
        let count = Quantity(device.count.to_string());
        requests.insert(device.name.clone(), count.clone());
        limits.insert(device.name.clone(), count);
    }
    ResourceRequirements {
        requests: some(&requests),
        limits: some(&limits),
        claims: claim::of_container(class),
    }
}

fn some<K: Clone + Ord, V: Clone>(map: &BTreeMap<K, V>) -> Option<BTreeMap<K, V>> {
    (!map.is_empty()).then(|| map.clone())
}
