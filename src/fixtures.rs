//! Fixtures: services, plans and pods for unit tests.
#![allow(clippy::unwrap_used)]

use crate::{
    cache::pod::Pod,
    crd::{ATTEMPT_LABEL, AcceleratorClass, AcceleratorClassSpec, ModelService, RESOLVES_LABEL},
    observe::{Capabilities, Observed},
    plan::{DefaultRuntime, Plan, plan},
    revision::asked_for,
    validate::validate,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Service};
use serde_json::{Value, json};
use std::sync::Arc;

/// What the fixtures' new revisions run.
pub(crate) fn runtime() -> DefaultRuntime {
    DefaultRuntime {
        image: "runtime.example/server:1".into(),
        version: "9.9.9".into(),
    }
}

/// A service named `photos` in namespace `team-a`, observed before anything was created, with the class `cpu`.
pub(crate) fn observed(spec: Value) -> Observed {
    let mut spec = spec;
    if spec.get("model").is_none() {
        spec["model"] = json!({"image": "models.example/net@sha256:aa"});
    }
    let service = json!({
        "apiVersion": "serving.modelservice.dev/v1alpha1", "kind": "ModelService",
        "metadata": {"name": "photos", "namespace": "team-a", "uid": "service-uid", "generation": 4},
        "spec": spec,
    });
    let service: ModelService = serde_json::from_value(service).unwrap();
    Observed {
        service: Arc::new(service),
        classes: [(
            "cpu".to_owned(),
            Arc::new(AcceleratorClass::new("cpu", AcceleratorClassSpec::default())),
        )]
        .into(),
        deployments: Vec::new(),
        beside: Vec::new(),
        claim_templates: Vec::new(),
        endpoint: None,
        autoscaler: None,
        disruption_budget: None,
        pods: Vec::new(),
        resolvers: Vec::new(),
        reported: Default::default(),
        devices: Default::default(),
        scaling: None,
        cluster: Capabilities {
            no_image_volumes: None,
            has_dra: true,
        },
        now: "2026-01-02T03:04:05Z".parse::<Timestamp>().unwrap(),
    }
}

/// What a pod says that has found a model whose source keeps its versions, or not.
pub(crate) fn found(is_retained: bool) -> String {
    json!({"identity": {"kind": "ETag", "value": "\"e-1\"", "isRetained": is_retained}, "objects": 1, "bytes": 5})
        .to_string()
}

impl Observed {
    /// With a pod that has looked for the model of the revision that the spec asks for, whose container is like this.
    pub(crate) fn resolver(mut self, number: u32, state: Value) -> Self {
        let revision = asked_for(&self.service);
        let status = json!({"phase": "Running", "containerStatuses": [{"name": "resolve", "state": state}]});
        let name = format!("photos-{revision}-resolve-{number}");
        let pod = json!({"status": status, "metadata": {"name": name, "namespace": "team-a",
            "labels": {RESOLVES_LABEL: revision, ATTEMPT_LABEL: number.to_string()},
            "creationTimestamp": self.now}});
        self.resolvers
            .push(Arc::new(serde_json::from_value::<Pod>(pod).unwrap()));
        self
    }

    /// With a pod that has found it.
    pub(crate) fn found(self, is_retained: bool) -> Self {
        let finished = json!(self.now);
        self.resolver(
            1,
            json!({"terminated": {"exitCode": 0, "message": found(is_retained), "finishedAt": finished}}),
        )
    }

    pub(crate) fn planned(&self) -> Plan {
        plan(&validate(self).unwrap(), self, &runtime())
    }

    /// With this AcceleratorClass in the cluster.
    pub(crate) fn class(mut self, name: &str, spec: Value) -> Self {
        let class = AcceleratorClass::new(name, serde_json::from_value(spec).unwrap());
        self.classes.insert(name.to_owned(), Arc::new(class));
        self
    }

    /// With the Deployment of this plan in the cluster: `replicas` servers, `available` of them available.
    pub(crate) fn running(mut self, plan: &Plan, replicas: i32, available: i32) -> Self {
        let mut deployment: Deployment = plan.revisions[0].deployment.clone();
        deployment.metadata.generation = Some(1);
        deployment.spec.replicas = Some(replicas);
        let status = json!({"observedGeneration": 1, "replicas": replicas, "updatedReplicas": replicas,
            "readyReplicas": available, "availableReplicas": available});
        deployment.status = serde_json::from_value(status).unwrap();
        self.deployments.insert(0, Arc::new(deployment));
        self
    }

    /// With traffic to the revision of this plan.
    pub(crate) fn routed(mut self, plan: &Plan) -> Self {
        let endpoint: Service = plan.endpoint.clone();
        self.endpoint = Some(Arc::new(endpoint));
        self
    }

    /// With a pod of this plan's revision, created by its Deployment's ReplicaSet an hour ago.
    pub(crate) fn pod(self, plan: &Plan, status: Value) -> Self {
        self.pod_made(plan, 3600, status)
    }

    /// With a pod of this plan's revision, created this many seconds ago.
    pub(crate) fn pod_made(mut self, plan: &Plan, seconds_ago: i64, status: Value) -> Self {
        let deployment = &plan.revisions[0].deployment;
        let labels = deployment.spec.template.metadata.clone().unwrap().labels;
        let name = format!("photos-{}", self.pods.len());
        let pod = json!({"status": status, "metadata": {"name": name, "namespace": "team-a", "labels": labels,
            "creationTimestamp": self.now - SignedDuration::from_secs(seconds_ago),
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "controller": true, "uid": "set",
                "name": format!("{}-5d9c", deployment.metadata.name.as_deref().unwrap())}]}});
        self.pods
            .push(Arc::new(serde_json::from_value::<Pod>(pod).unwrap()));
        self
    }
}
