//! Inventory: which nodes have the devices of each AcceleratorClass, and how many of them servers hold. Writes the status
//! of classes, a few seconds after something has changed and only if it differs. Needs nodes, so an operator for single
//! namespaces does without.

mod demand;
mod node;
mod selection;
mod status;

use self::{
    demand::{Demand, demand},
    node::{DeviceClass, Node},
    status::{Supply, status},
};
use crate::{
    cache::{Caches, classes::Classes, watch::ok_or_warn},
    cluster::preflight::ClusterSupport,
    crd::{AcceleratorClass, AcceleratorClassStatus, FIELD_MANAGER},
};
use futures::{Stream, StreamExt as _, future, stream};
use jiff::Timestamp;
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
    runtime::{
        WatchStreamExt as _,
        reflector::{self, Store, store::Writer},
        watcher,
    },
};
use serde::de::DeserializeOwned;
use serde_json::json;
use std::{fmt::Debug, sync::Arc, time::Duration};
use tokio::sync::Notify;

/// How long to wait after a change: more of them often follow.
const SETTLES: Duration = Duration::from_secs(2);

/// What the statuses of classes are computed from.
pub struct Inventory {
    /// Refuses writes once the lease could have been lost.
    pub client: Client,
    /// Deployments and pods of every service.
    pub caches: Arc<Caches>,
    /// AcceleratorClasses.
    pub classes: Arc<Classes>,
    /// Whether the cluster has DeviceClasses.
    pub support: Arc<ClusterSupport>,
    /// Told when something of the above changes.
    pub changed: Arc<Notify>,
}

/// Whether this operator may read nodes. If it only has rights in namespaces, it may not.
///
/// # Errors
/// When the API server cannot be reached.
pub async fn may_read_nodes(client: &Client) -> kube::Result<bool> {
    let nodes: Api<Node> = Api::all(client.clone());
    match nodes.list_metadata(&ListParams::default().limit(1)).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(false),
        Err(error) => Err(error),
    }
}

impl Inventory {
    /// Keeps the statuses of classes correct, for ever.
    pub async fn run(&self) {
        let (nodes, node_writer) = reflector::store();
        let (device_classes, device_class_writer) = reflector::store();
        let watches = future::join(
            self.watch(node_writer, Node::trim),
            self.watch_device_classes(device_class_writer),
        );
        let writes = async {
            self.caches.wait_filled().await;
            self.classes.wait_filled().await;
            // It fails only when the watch has ended, and then the operator is shutting down.
            let _ = nodes.wait_until_ready().await;
            loop {
                self.write_all(&nodes, &device_classes).await;
                self.changed.notified().await;
                tokio::time::sleep(SETTLES).await;
            }
        };
        future::join(watches, writes).await;
    }

    async fn watch_device_classes(&self, writer: Writer<DeviceClass>) {
        self.support.wait_for_dra().await;
        self.watch(writer, DeviceClass::trim).await;
    }

    async fn watch<K>(&self, writer: Writer<K>, trim: fn(&mut K))
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        let events = watched(Api::all(self.client.clone()), trim).reflect(writer);
        let mut events = std::pin::pin!(events.filter_map(|event| future::ready(ok_or_warn(event))));
        while events.next().await.is_some() {
            self.changed.notify_one();
        }
    }

    async fn write_all(&self, nodes: &Store<Node>, device_classes: &Store<DeviceClass>) {
        let (nodes, device_classes) = (nodes.state(), device_classes.state());
        let supply = Supply {
            nodes: &nodes,
            device_classes: &device_classes,
            has_dra: self.support.has_dra(),
        };
        let classes = self.classes.in_cluster();
        let demand = demand(&self.caches, &classes);
        stream::iter(classes)
            .for_each(|class| self.write(class, &supply, &demand))
            .await;
    }

    async fn write(&self, class: Arc<AcceleratorClass>, supply: &Supply<'_>, demand: &Demand) {
        let wanted = status(&class, supply, demand, Timestamp::now());
        if class.status.as_ref() == Some(&wanted) {
            return;
        }
        if let Err(error) = self.patch(&class, &wanted).await {
            tracing::warn!(class = class.name_any(), %error, "could not write the status of the AcceleratorClass");
        }
    }

    async fn patch(&self, class: &AcceleratorClass, status: &AcceleratorClassStatus) -> kube::Result<()> {
        let classes: Api<AcceleratorClass> = Api::all(self.client.clone());
        let body = json!({
            "apiVersion": AcceleratorClass::api_version(&()),
            "kind": AcceleratorClass::kind(&()),
            "metadata": {"uid": class.metadata.uid},
            "status": status,
        });
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        match classes
            .patch_status(&class.name_any(), &parameters, &Patch::Apply(body))
            .await
        {
            Ok(_) => Ok(()),
            // It was deleted, or deleted and made anew.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn watched<K>(api: Api<K>, trim: fn(&mut K)) -> impl Stream<Item = watcher::Result<watcher::Event<K>>>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    watcher(api, watcher::Config::default().streaming_lists())
        .modify(trim)
        .default_backoff()
}
