//! What the operator keeps of the cluster: label-selected watches into caches by service, `managedFields`
//! stripped, and of pods only what their status says. Answers of own writes go into the same cache, so that a
//! reconcile that runs before the watch has caught up neither repeats a write nor reads an object.

use crate::crd::{ModelService, SERVICE_LABEL};
use futures::{Stream, StreamExt as _, stream};
use k8s_openapi::{
    Metadata, NamespaceResourceScope, Resource,
    api::core::v1::{ContainerStatus, PodCondition},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, ResourceExt as _,
    runtime::{WatchStreamExt as _, reflector::ObjectRef, watcher},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    collections::{HashMap, HashSet},
    fmt::Debug,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;

/// A pod as far as its status matters to us.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pod {
    /// Name, labels and owner.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// Where it is and how it fares.
    #[serde(default)]
    pub status: PodStatus,
}

/// The part of a pod's status that we read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// Pending, Running, Succeeded, Failed or Unknown.
    pub phase: Option<String>,
    /// Why the pod as a whole failed, for example `Evicted`.
    pub reason: Option<String>,
    /// The same for a person.
    pub message: Option<String>,
    /// Address inside the cluster.
    #[serde(rename = "podIP")]
    pub pod_ip: Option<String>,
    /// PodScheduled, Ready and others.
    pub conditions: Vec<PodCondition>,
    /// Of the containers.
    pub container_statuses: Vec<ContainerStatus>,
}

impl Pod {
    /// Whether the kubelet calls the pod ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.condition("Ready")
            .is_some_and(|condition| condition.status == "True")
    }

    /// A condition by its type.
    #[must_use]
    pub fn condition(&self, type_: &str) -> Option<&PodCondition> {
        self.status
            .conditions
            .iter()
            .find(|condition| condition.type_ == type_)
    }
}

impl Resource for Pod {
    type Scope = NamespaceResourceScope;
    const API_VERSION: &'static str = "v1";
    const GROUP: &'static str = "";
    const KIND: &'static str = "Pod";
    const URL_PATH_SEGMENT: &'static str = "pods";
    const VERSION: &'static str = "v1";
}

impl Metadata for Pod {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// Namespace and name of a service.
type Key = (String, String);

/// Objects of one kind that carry a service's label, by service. Of two versions of an object the newer one
/// stays, whether it came from the watch or from an answer.
#[derive(Debug)]
pub struct Children<K> {
    groups: Mutex<HashMap<Key, Vec<Arc<K>>>>,
    listing: Mutex<HashMap<Key, Vec<Arc<K>>>>,
    filled: watch::Sender<bool>,
}

impl<K> Default for Children<K> {
    fn default() -> Self {
        Self {
            groups: Mutex::default(),
            listing: Mutex::default(),
            filled: watch::Sender::new(false),
        }
    }
}

impl<K: kube::Resource<DynamicType = ()> + Debug> Children<K> {
    /// Objects of a service, in no particular order.
    #[must_use]
    pub fn of(&self, namespace: &str, service: &str) -> Vec<Arc<K>> {
        let key = (namespace.to_owned(), service.to_owned());
        lock(&self.groups).get(&key).cloned().unwrap_or_default()
    }

    /// Takes in the answer of a write.
    pub fn put(&self, object: Arc<K>) {
        if let Some(key) = key(object.as_ref()) {
            insert(lock(&self.groups).entry(key).or_default(), object);
        }
    }

    /// Forgets an object that was deleted.
    pub fn forget(&self, object: &K) {
        if let Some(key) = key(object) {
            remove(&mut lock(&self.groups), &key, object);
        }
    }

    /// Returns once the first list is complete.
    pub async fn wait_filled(&self) {
        // The sender lives as long as `self`.
        let _ = self.filled.subscribe().wait_for(|filled| *filled).await;
    }

    /// Takes in a watch event and names the services that it is about.
    fn take(&self, event: watcher::Event<K>) -> Vec<Key> {
        match event {
            watcher::Event::Init => lock(&self.listing).clear(),
            watcher::Event::InitApply(object) => {
                if let Some(key) = key(&object) {
                    lock(&self.listing).entry(key).or_default().push(Arc::new(object));
                }
            }
            watcher::Event::InitDone => return self.replace(),
            watcher::Event::Apply(object) => {
                let Some(key) = key(&object) else {
                    return Vec::new();
                };
                insert(
                    lock(&self.groups).entry(key.clone()).or_default(),
                    Arc::new(object),
                );
                return vec![key];
            }
            watcher::Event::Delete(object) => {
                let Some(key) = key(&object) else {
                    return Vec::new();
                };
                remove(&mut lock(&self.groups), &key, &object);
                return vec![key];
            }
        }
        Vec::new()
    }

    /// Puts a complete list in the place of what was there.
    fn replace(&self) -> Vec<Key> {
        let listed = std::mem::take(&mut *lock(&self.listing));
        let mut groups = lock(&self.groups);
        let touched: HashSet<Key> = groups.keys().chain(listed.keys()).cloned().collect();
        *groups = listed;
        drop(groups);
        self.filled.send_replace(true);
        touched.into_iter().collect()
    }
}

/// Watches the objects that carry a service's label into `cache`; yields the services that changed.
pub fn watched<K>(cache: Arc<Children<K>>, api: Api<K>) -> impl Stream<Item = ObjectRef<ModelService>> + Send
where
    K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let config = watcher::Config::default().labels(SERVICE_LABEL).streaming_lists();
    watcher(api, config)
        .modify(strip)
        .default_backoff()
        .filter_map(async |event| {
            event
                .inspect_err(
                    |error| tracing::warn!(kind = %K::kind(&()), %error, "watch interrupted; going on"),
                )
                .ok()
        })
        .flat_map(move |event| stream::iter(cache.take(event)))
        .map(|(namespace, name)| ObjectRef::new(&name).within(&namespace))
}

/// Drops what nobody reads and what is most of a small object.
pub fn strip<K: kube::Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

fn key<K: kube::Resource>(object: &K) -> Option<Key> {
    Some((object.namespace()?, object.labels().get(SERVICE_LABEL)?.clone()))
}

fn insert<K: kube::Resource>(group: &mut Vec<Arc<K>>, object: Arc<K>) {
    match group
        .iter_mut()
        .find(|known| known.meta().name == object.meta().name)
    {
        Some(known) if version(known.as_ref()) > version(object.as_ref()) => {}
        Some(known) => *known = object,
        None => group.push(object),
    }
}

fn remove<K: kube::Resource>(groups: &mut HashMap<Key, Vec<Arc<K>>>, key: &Key, gone: &K) {
    let Some(group) = groups.get_mut(key) else { return };
    group.retain(|known| known.meta().name != gone.meta().name || version(known.as_ref()) > version(gone));
    if group.is_empty() {
        groups.remove(key);
    }
}

/// Resource versions are comparable numbers (Kubernetes KEP-5504).
pub fn version<K: kube::Resource>(object: &K) -> u64 {
    object
        .meta()
        .resource_version
        .as_deref()
        .and_then(|version| version.parse().ok())
        .unwrap_or(0)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use kube::runtime::watcher::Event;

    fn pod(name: &str, version: u64) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.name = Some(name.into());
        pod.metadata.namespace = Some("team".into());
        pod.metadata.labels = Some([(SERVICE_LABEL.to_owned(), "photos".to_owned())].into());
        pod.metadata.resource_version = Some(version.to_string());
        pod
    }

    fn versions(cache: &Children<Pod>) -> Vec<u64> {
        cache
            .of("team", "photos")
            .iter()
            .map(|pod| version(pod.as_ref()))
            .collect()
    }

    /// Otherwise a watch that lags behind brings an old object back and a write is repeated.
    #[test]
    fn of_two_versions_the_newer_one_stays() {
        let cache = Children::default();
        cache.put(Arc::new(pod("a", 9)));
        cache.take(Event::Apply(pod("a", 10)));
        cache.take(Event::Apply(pod("a", 7)));
        assert_eq!(versions(&cache), [10]);
        cache.take(Event::Delete(pod("a", 8)));
        assert_eq!(versions(&cache), [10], "made anew since");
        cache.take(Event::Delete(pod("a", 11)));
        assert!(versions(&cache).is_empty());
    }

    /// Otherwise objects that went while a watch was down stay for ever.
    #[test]
    fn a_new_list_replaces_what_was_there_and_names_every_service_concerned() {
        let cache = Children::default();
        cache.put(Arc::new(pod("a", 9)));
        cache.take(Event::Init);
        assert_eq!(
            versions(&cache),
            [9],
            "readers see the old list until the new one is complete"
        );
        assert_eq!(
            cache.take(Event::InitDone),
            [("team".to_owned(), "photos".to_owned())]
        );
        assert!(versions(&cache).is_empty());
    }
}
