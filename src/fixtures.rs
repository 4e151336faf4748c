//! Fixtures: services, plans and pods for unit tests.
#![allow(clippy::unwrap_used)]

use crate::{
    cache::pod::Pod,
    crd::{AcceleratorClass, AcceleratorClassSpec, ModelService},
    observe::Observed,
    plan::{DefaultRuntime, Plan, plan},
    validate::validate,
};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Service};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;

/// What the fixtures' new revisions run.
pub(crate) fn runtime() -> DefaultRuntime {
    DefaultRuntime {
        image: "runtime.example/server:1".into(),
        version: "9.9.9".into(),
    }
}

/// A service named `photos` in namespace `team-a`, observed before anything was made, with the class `cpu`.
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
        endpoint: None,
        autoscaler: None,
        disruption_budget: None,
        pods: Vec::new(),
        reports: Default::default(),
        unsupported: None,
        now: "2026-01-02T03:04:05Z".parse::<Timestamp>().unwrap(),
    }
}

impl Observed {
    pub(crate) fn planned(&self) -> Plan {
        plan(&validate(self).unwrap(), self, &runtime())
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

    /// With a pod of this plan's revision.
    pub(crate) fn pod(mut self, plan: &Plan, status: Value) -> Self {
        let labels = plan.revisions[0]
            .deployment
            .spec
            .template
            .metadata
            .clone()
            .unwrap()
            .labels;
        let name = format!("photos-{}", self.pods.len());
        let pod =
            json!({"metadata": {"name": name, "namespace": "team-a", "labels": labels}, "status": status});
        self.pods
            .push(Arc::new(serde_json::from_value::<Pod>(pod).unwrap()));
        self
    }
}
