//! Preflight: what this cluster can do. Checked at startup, and again for what it cannot do.

use crate::{crd::ModelService, observe::Capabilities};
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api, Client,
    api::{ListParams, PostParams},
    core::PartialObjectMeta,
};
use parking_lot::Mutex;
use serde_json::json;
use std::time::Duration;
use tokio::sync::watch;

/// How often a cluster that lacks the CRDs is checked again.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// How often a cluster without image volumes is checked again.
pub const VOLUMES_INTERVAL: Duration = Duration::from_secs(10 * 60);
/// How often a cluster without Dynamic Resource Allocation is checked again.
const DRA_INTERVAL: Duration = Duration::from_secs(10 * 60);
/// The API of Dynamic Resource Allocation.
const DRA: &str = "resource.k8s.io/v1";

/// What this cluster can do.
#[derive(Debug)]
pub struct ClusterSupport {
    problem: Mutex<Option<String>>,
    has_dra: watch::Sender<bool>,
}

impl Default for ClusterSupport {
    fn default() -> Self {
        Self {
            problem: Mutex::default(),
            has_dra: watch::Sender::new(false),
        }
    }
}

impl ClusterSupport {
    /// Why images cannot be mounted as volumes, and what to do.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().clone()
    }

    /// The same, and whether the cluster has Dynamic Resource Allocation.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        Capabilities {
            no_image_volumes: self.problem(),
            has_dra: self.has_dra(),
        }
    }

    /// Whether the cluster has Dynamic Resource Allocation.
    #[must_use]
    pub fn has_dra(&self) -> bool {
        *self.has_dra.borrow()
    }

    /// Returns once the cluster has Dynamic Resource Allocation.
    pub async fn wait_for_dra(&self) {
        // The sender lives as long as `self` does.
        let _ = self.has_dra.subscribe().wait_for(|has_dra| *has_dra).await;
    }

    /// Looks for Dynamic Resource Allocation.
    ///
    /// # Errors
    /// When the API server cannot be reached.
    pub async fn look_for_dra(&self, client: &Client) -> kube::Result<()> {
        match client.list_api_group_resources(DRA).await {
            Ok(_) => drop(self.has_dra.send_replace(true)),
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Looks for Dynamic Resource Allocation again until the cluster has it.
    pub async fn keep_looking_for_dra(&self, client: &Client) {
        while !self.has_dra() {
            tokio::time::sleep(DRA_INTERVAL).await;
            if let Err(error) = self.look_for_dra(client).await {
                tracing::warn!(%error, "could not find out whether this cluster has {DRA}");
            }
        }
    }

    /// Checks the cluster.
    ///
    /// # Errors
    /// When the API server cannot be reached.
    pub async fn check(&self, client: &Client, namespace: &str) -> kube::Result<()> {
        let problem = problem(client, namespace).await?;
        *self.problem.lock() = problem;
        Ok(())
    }
}

/// An API server without image volumes drops the unknown field, and then complains about a volume without a source.
async fn problem(client: &Client, namespace: &str) -> kube::Result<Option<String>> {
    let version = client.apiserver_version().await?.git_version;
    let probe: Deployment = serde_json::from_value(json!({
        "metadata": {"name": "modelservice-operator-image-volume-probe"},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"probe": "image-volume"}},
            "template": {
                "metadata": {"labels": {"probe": "image-volume"}},
                "spec": {
                    "containers": [{"name": "probe", "image": "probe"}],
                    "volumes": [{"name": "model", "image": {"reference": "probe"}}],
                },
            },
        },
    }))
    .map_err(kube::Error::SerdeError)?;
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    match Api::<Deployment>::namespaced(client.clone(), namespace)
        .create(&dry_run, &probe)
        .await
    {
        Ok(answer) if has_image_volume(&answer) => Ok(None),
        // A refusal by a policy or quota says nothing about image volumes.
        Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404 | 409) => {
            tracing::warn!(
                message = status.message,
                "could not find out whether image volumes are supported; continuing"
            );
            Ok(None)
        }
        Ok(_) => Ok(Some(unsupported(&version))),
        Err(kube::Error::Api(status)) if status.code == 422 => Ok(Some(unsupported(&version))),
        Err(error) => Err(error),
    }
}

fn has_image_volume(deployment: &Deployment) -> bool {
    let volumes = deployment
        .spec
        .template
        .spec
        .as_ref()
        .and_then(|spec| spec.volumes.as_ref());
    volumes.is_some_and(|volumes| volumes.iter().any(|volume| volume.image.is_some()))
}

fn unsupported(version: &str) -> String {
    format!(
        "this cluster ({version}) does not support image volumes: use Kubernetes 1.35 or newer, or turn on the feature \
         gate ImageVolume of the API server and the kubelets"
    )
}

/// Checks that the CRDs exist and may be read.
///
/// # Errors
/// What is missing and what to do.
pub async fn check_definitions(client: &Client, namespaces: &[String]) -> Result<(), String> {
    let api: Api<PartialObjectMeta<ModelService>> = match namespaces.first() {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    match api.list_metadata(&ListParams::default().limit(1)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Err(
            "the CRDs are missing: install the chart with crds.enabled=true, or `modelservice-operator crds | kubectl apply --server-side -f -`"
                .to_owned(),
        ),
        Err(kube::Error::Api(status)) if status.code == 403 => {
            Err(format!("the operator may not list ModelServices: {}; bind the chart's roles to its service account", status.message))
        }
        Err(error) => Err(format!("the API server cannot be reached: {error}")),
    }
}
