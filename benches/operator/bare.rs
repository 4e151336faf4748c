//! The lower bound: a client without an operator creates the same objects with plain requests, as many at once as the
//! operator reconciles. Its time is what this control plane on this machine needs for them.

use crate::{
    audit::{BARE, children_exist_after},
    plane,
    processes::Usage,
    until_all,
};
use futures::{StreamExt as _, stream};
use k8s_openapi::{
    api::{apps::v1::Deployment, autoscaling::v2::HorizontalPodAutoscaler, core::v1::Service},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{ListParams, PostParams},
};
use modelservice_operator::crd::{ModelService, SERVICE_LABEL};
use serde::{Serialize, de::DeserializeOwned};
use std::{fmt::Debug, time::Instant};

/// As many as the operator's concurrent reconciles.
const PARALLEL: usize = 32;

/// A service and the children that the operator created for it.
pub(crate) struct Made {
    service: ModelService,
    endpoint: Service,
    deployment: Deployment,
    autoscaler: HorizontalPodAutoscaler,
}

/// Reads back what the operator created.
pub(crate) async fn read_back(client: &Client) -> Vec<Made> {
    let services: Vec<ModelService> = list(client, "").await;
    let (endpoints, deployments, autoscalers) = (
        list::<Service>(client, SERVICE_LABEL).await,
        list::<Deployment>(client, SERVICE_LABEL).await,
        list::<HorizontalPodAutoscaler>(client, SERVICE_LABEL).await,
    );
    let made = services.into_iter().map(|mut service| {
        let name = service.name_any();
        service.status = None;
        let mut endpoint = of(&endpoints, &name);
        endpoint.status = None;
        if let Some(spec) = &mut endpoint.spec {
            (spec.cluster_ip, spec.cluster_ips) = (None, None);
        }
        let mut deployment = of(&deployments, &name);
        deployment.status = None;
        let mut autoscaler = of(&autoscalers, &name);
        autoscaler.status = None;
        clean(service.meta_mut());
        Made {
            service,
            endpoint,
            deployment,
            autoscaler,
        }
    });
    made.collect()
}

async fn list<K>(client: &Client, label: &str) -> Vec<K>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned,
{
    let api: Api<K> = Api::default_namespaced(client.clone());
    api.list(&ListParams::default().labels(label))
        .await
        .unwrap()
        .items
}

fn of<K: Resource + Clone>(children: &[K], service: &str) -> K {
    let child = children
        .iter()
        .find(|child| child.labels().get(SERVICE_LABEL).map(String::as_str) == Some(service));
    let mut child = child.unwrap().clone();
    clean(child.meta_mut());
    child
}

fn clean(metadata: &mut ObjectMeta) {
    let full = std::mem::take(metadata);
    *metadata = ObjectMeta {
        name: full.name,
        namespace: full.namespace,
        labels: full.labels,
        annotations: full.annotations,
        owner_references: full.owner_references,
        ..ObjectMeta::default()
    };
}

/// Seconds until the last child exists, and until every Deployment has its server.
pub(crate) async fn measure(made: Vec<Made>) -> (f64, f64) {
    let count = made.len();
    let plane = plane::start(count);
    let client = plane::client(&plane, BARE).await;
    let before = Usage::now(&plane);
    println!("a bare client makes the same objects ...");
    let began = Instant::now();
    let ready = tokio::spawn(until_all(client.clone(), count, is_available));
    stream::iter(made)
        .for_each_concurrent(PARALLEL, |made| make(&client, made))
        .await;
    ready.await.unwrap();
    let all_ready_after = began.elapsed().as_secs_f64();
    before.explain(&plane, None);
    let log = plane.folder().join("audit.log");
    (children_exist_after(&log, BARE), all_ready_after)
}

async fn make(client: &Client, made: Made) {
    let service = create(client, made.service).await;
    let (mut endpoint, mut deployment, mut autoscaler) = (made.endpoint, made.deployment, made.autoscaler);
    let owned = [endpoint.meta_mut(), deployment.meta_mut(), autoscaler.meta_mut()];
    for owner in owned
        .into_iter()
        .flat_map(|meta| meta.owner_references.iter_mut().flatten())
    {
        owner.uid = service.uid().unwrap();
    }
    create(client, endpoint).await;
    create(client, deployment).await;
    create(client, autoscaler).await;
}

async fn create<K>(client: &Client, object: K) -> K
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned,
{
    let api: Api<K> = Api::default_namespaced(client.clone());
    api.create(&PostParams::default(), &object).await.unwrap()
}

fn is_available(deployment: &Deployment) -> bool {
    let status = deployment.status.as_ref();
    status.and_then(|status| status.available_replicas).unwrap_or(0) > 0
}
