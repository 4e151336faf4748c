//! Children: the objects of one kind that carry a service's label, grouped by service. Answers to our own writes
//! go into the same cache, so that a reconcile that runs before the watch has caught up neither repeats a write nor
//! reads an object.

use super::retention::Retention;
use crate::crd::{ModelService, SERVICE_LABEL};
use futures::{Stream, StreamExt as _, future, stream};
use jiff::Timestamp;
use kube::{
    Api, Resource, ResourceExt as _,
    runtime::{WatchStreamExt as _, reflector::ObjectRef, watcher},
};
use parking_lot::Mutex;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    collections::{HashMap, HashSet, hash_map::DefaultHasher},
    fmt::Debug,
    hash::{Hash as _, Hasher as _},
    sync::Arc,
};
use tokio::sync::watch;

/// Namespace and name of a service.
type Key = (String, String);

/// Objects of one kind, by service. Of two versions of an object the newer one stays, whether it came from the
/// watch or from an answer.
#[derive(Debug)]
pub struct Children<K> {
    groups: Mutex<Groups<K>>,
    listing: Mutex<Groups<K>>,
    filled: watch::Sender<bool>,
}

type Groups<K> = HashMap<Key, Vec<Entry<K>>>;

#[derive(Debug)]
struct Entry<K> {
    object: Arc<K>,
    /// Hash of the object as it arrived, without its resource version.
    fingerprint: u64,
    /// Hash of what is wanted, once the object was found to have all of it.
    settled: Option<String>,
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

impl<K: Retention + Resource<DynamicType = ()> + Clone + Serialize + Debug> Children<K> {
    /// Objects of a service, in no particular order.
    #[must_use]
    pub fn of(&self, namespace: &str, service: &str) -> Vec<Arc<K>> {
        let key = (namespace.to_owned(), service.to_owned());
        let groups = self.groups.lock();
        groups
            .get(&key)
            .map(|group| group.iter().map(|entry| entry.object.clone()).collect())
            .unwrap_or_default()
    }

    /// Adds the answer to a write.
    pub fn put(&self, object: K) -> Arc<K> {
        let (key, entry) = (key(&object), Entry::new(object));
        let object = entry.object.clone();
        if let Some(key) = key {
            insert(self.groups.lock().entry(key).or_default(), entry);
        }
        object
    }

    /// Whether this version of an object was found to have all that is wanted; `wanted` is a hash of that.
    #[must_use]
    pub fn is_settled(&self, object: &K, wanted: &str) -> bool {
        let Some(key) = key(object) else { return false };
        let groups = self.groups.lock();
        let known = groups
            .get(&key)
            .into_iter()
            .flatten()
            .find(|entry| is_same(entry, object));
        known.is_some_and(|entry| entry.settled.as_deref() == Some(wanted))
    }

    /// Remembers that this version of an object has all that is wanted, and drops what was only needed to see that.
    pub fn settle(&self, object: &K, wanted: &str) {
        let Some(key) = key(object) else { return };
        let mut groups = self.groups.lock();
        if let Some(entry) = groups
            .get_mut(&key)
            .into_iter()
            .flatten()
            .find(|entry| is_same(entry, object))
        {
            let mut settled = entry.object.as_ref().clone();
            settled.settle();
            entry.object = Arc::new(settled);
            entry.settled = Some(wanted.to_owned());
        }
    }

    /// Forgets an object that was deleted.
    pub fn forget(&self, object: &K) {
        if let Some(key) = key(object) {
            remove(&mut self.groups.lock(), &key, object);
        }
    }

    /// Returns once the first list is complete.
    pub async fn wait_filled(&self) {
        // The sender lives as long as `self`.
        let _ = self.filled.subscribe().wait_for(|filled| *filled).await;
    }

    /// Applies a watch event; returns the services that it concerns.
    fn handle(&self, event: watcher::Event<K>) -> Vec<Key> {
        match event {
            watcher::Event::Init => self.listing.lock().clear(),
            watcher::Event::InitApply(object) => {
                if let Some(key) = key(&object) {
                    self.listing
                        .lock()
                        .entry(key)
                        .or_default()
                        .push(Entry::new(object));
                }
            }
            watcher::Event::InitDone => return self.replace(),
            watcher::Event::Apply(object) => {
                let Some(key) = key(&object) else {
                    return Vec::new();
                };
                let changed = insert(
                    self.groups.lock().entry(key.clone()).or_default(),
                    Entry::new(object),
                );
                return changed.then_some(key).into_iter().collect();
            }
            watcher::Event::Delete(object) => {
                let Some(key) = key(&object) else {
                    return Vec::new();
                };
                remove(&mut self.groups.lock(), &key, &object);
                return vec![key];
            }
        }
        Vec::new()
    }

    /// Replaces everything by a complete list.
    fn replace(&self) -> Vec<Key> {
        let mut listed = std::mem::take(&mut *self.listing.lock());
        let mut groups = self.groups.lock();
        for (key, group) in &mut listed {
            for known in groups.get(key).into_iter().flatten() {
                let mut namesakes = group.iter_mut();
                if let Some(entry) = namesakes.find(|entry| is_namesake(entry, known)) {
                    entry.follow(known);
                }
            }
        }
        let touched: HashSet<Key> = groups.keys().chain(listed.keys()).cloned().collect();
        *groups = listed;
        drop(groups);
        self.filled.send_replace(true);
        touched.into_iter().collect()
    }
}

impl<K: Retention + Clone> Entry<K> {
    fn follow(&mut self, earlier: &Self) {
        Arc::make_mut(&mut self.object).follow(&earlier.object, Timestamp::now());
    }
}

impl<K: Retention + Resource + Serialize> Entry<K> {
    fn new(mut object: K) -> Self {
        object.trim();
        let version = object.meta_mut().resource_version.take();
        let mut hasher = DefaultHasher::new();
        // Our kinds serialise infallibly.
        serde_json::to_vec(&object).unwrap_or_default().hash(&mut hasher);
        object.meta_mut().resource_version = version;
        Self {
            object: Arc::new(object),
            fingerprint: hasher.finish(),
            settled: None,
        }
    }
}

fn is_namesake<K: Resource>(one: &Entry<K>, other: &Entry<K>) -> bool {
    one.object.meta().name == other.object.meta().name
}

/// Whether both are the same version of the same object.
fn is_same<K: Resource>(entry: &Entry<K>, object: &K) -> bool {
    let (known, meta) = (entry.object.meta(), object.meta());
    known.name == meta.name && known.uid == meta.uid && known.resource_version == meta.resource_version
}

/// Fills `cache` by a watch of the objects that carry a service's label; yields the services that changed.
pub fn watched<K>(cache: Arc<Children<K>>, api: Api<K>) -> impl Stream<Item = ObjectRef<ModelService>> + Send
where
    K: Retention
        + Resource<DynamicType = ()>
        + Clone
        + Serialize
        + DeserializeOwned
        + Debug
        + Send
        + Sync
        + 'static,
{
    let config = watcher::Config::default().labels(SERVICE_LABEL).streaming_lists();
    watcher(api, config)
        .default_backoff()
        .filter_map(|event| future::ready(ok_or_warn(event)))
        .flat_map(move |event| stream::iter(cache.handle(event)))
        .map(|(namespace, name)| ObjectRef::new(&name).within(&namespace))
}

/// What a watch yields; an error is logged, and the watch goes on.
pub(crate) fn ok_or_warn<K: Resource<DynamicType = ()>>(
    event: watcher::Result<watcher::Event<K>>,
) -> Option<watcher::Event<K>> {
    event
        .inspect_err(
            |error| tracing::warn!(kind = %K::kind(&()), %error, "the watch was interrupted and continues"),
        )
        .ok()
}

/// Drops the managed fields, which nobody reads and which are most of a small object.
pub fn drop_managed_fields<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

fn key<K: Resource>(object: &K) -> Option<Key> {
    Some((object.namespace()?, object.labels().get(SERVICE_LABEL)?.clone()))
}

/// Adds a version of an object; whether anything of meaning changed.
fn insert<K: Retention + Resource + Clone>(group: &mut Vec<Entry<K>>, mut entry: Entry<K>) -> bool {
    let known = group.iter_mut().find(|known| is_namesake(known, &entry));
    match known {
        Some(known) if version(known.object.as_ref()) > version(entry.object.as_ref()) => return false,
        Some(known) if known.fingerprint == entry.fingerprint => {
            let version = entry.object.meta().resource_version.clone();
            Arc::make_mut(&mut known.object).meta_mut().resource_version = version;
            return false;
        }
        Some(known) => {
            entry.follow(known);
            *known = entry;
        }
        None => group.push(entry),
    }
    true
}

fn remove<K: Resource>(groups: &mut Groups<K>, key: &Key, gone: &K) {
    let Some(group) = groups.get_mut(key) else { return };
    group.retain(|known| {
        known.object.meta().name != gone.meta().name || version(known.object.as_ref()) > version(gone)
    });
    if group.is_empty() {
        groups.remove(key);
    }
}

/// Resource versions are comparable numbers (Kubernetes KEP-5504).
pub fn version<K: Resource>(object: &K) -> u64 {
    object
        .meta()
        .resource_version
        .as_deref()
        .and_then(|version| version.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::cache::pod::Pod;
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

    /// Otherwise a watch that lags behind brings back an old object, and a write is repeated.
    #[test]
    fn of_two_versions_the_newer_one_stays() {
        let cache = Children::default();
        cache.put(pod("a", 9));
        cache.handle(Event::Apply(pod("a", 10)));
        cache.handle(Event::Apply(pod("a", 7)));
        assert_eq!(versions(&cache), [10]);
        cache.handle(Event::Delete(pod("a", 8)));
        assert_eq!(versions(&cache), [10], "made anew since");
        cache.handle(Event::Delete(pod("a", 11)));
        assert!(versions(&cache).is_empty());
    }

    /// Otherwise every status update of an autoscaler wakes a reconcile.
    #[test]
    fn a_version_in_which_nothing_changed_wakes_nobody_and_stays_settled() {
        let cache = Children::default();
        let first = cache.put(pod("a", 9));
        cache.settle(&first, "hash");
        assert!(cache.handle(Event::Apply(pod("a", 10))).is_empty());
        assert_eq!(versions(&cache), [10]);
        assert!(cache.is_settled(&pod("a", 10), "hash") && !cache.is_settled(&pod("a", 10), "other"));
        let mut changed = pod("a", 11);
        changed.status.pod_ip = Some("198.18.0.9".into());
        assert_eq!(cache.handle(Event::Apply(changed)).len(), 1);
        assert!(!cache.is_settled(&pod("a", 11), "hash"));
    }

    /// Otherwise objects that were deleted while a watch was down stay for ever.
    #[test]
    fn a_new_list_replaces_what_was_there_and_names_every_service_concerned() {
        let cache = Children::default();
        cache.put(pod("a", 9));
        cache.handle(Event::Init);
        assert_eq!(
            versions(&cache),
            [9],
            "readers see the old list until the new one is complete"
        );
        assert_eq!(
            cache.handle(Event::InitDone),
            [("team".to_owned(), "photos".to_owned())]
        );
        assert!(versions(&cache).is_empty());
    }
}
