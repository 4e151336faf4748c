//! Children: the objects of one kind that carry a service's label, grouped by service. Answers to our own writes go
//! into the same cache, so that a reconcile that runs before the watch has caught up neither repeats a write nor has
//! to read an object.

use super::{
    entry::{Entry, insert, is_namesake, is_same, version},
    retention::Retention,
};
use crate::crd::SERVICE_LABEL;
use kube::{Resource, ResourceExt as _, runtime::watcher};
use parking_lot::Mutex;
use serde::Serialize;
use std::{
    collections::{HashMap, HashSet},
    fmt::Debug,
    sync::Arc,
};
use tokio::sync::watch;

/// Namespace and name of a service.
pub(super) type Key = (String, String);

/// Objects of one kind, by service. Of two versions of an object, the newer one is kept, whether it came from the
/// watch or from an answer.
#[derive(Debug)]
pub struct Children<K> {
    groups: Mutex<Groups<K>>,
    listing: Mutex<Groups<K>>,
    filled: watch::Sender<bool>,
}

type Groups<K> = HashMap<Key, Vec<Entry<K>>>;

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

    /// Every object.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<K>> {
        let groups = self.groups.lock();
        groups
            .values()
            .flatten()
            .map(|entry| entry.object.clone())
            .collect()
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

    /// Whether this version of an object was found to match the wanted one, whose hash is `wanted`.
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

    /// Remembers that this version of an object matches the wanted one, and drops what was only needed to find that
    /// out.
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

    /// Counts as filled although there is nothing to list: the cluster does not have this kind.
    pub fn stay_empty(&self) {
        self.filled.send_replace(true);
    }

    /// Returns once the first list is complete.
    pub async fn wait_filled(&self) {
        // The sender lives as long as `self` does.
        let _ = self.filled.subscribe().wait_for(|filled| *filled).await;
    }

    /// Applies a watch event; returns the affected services.
    pub(super) fn handle(&self, event: watcher::Event<K>) -> Vec<Key> {
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

    /// Replaces everything with a complete list.
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

fn key<K: Resource>(object: &K) -> Option<Key> {
    Some((object.namespace()?, object.labels().get(SERVICE_LABEL)?.clone()))
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

    /// Otherwise a lagging watch brings back an old object, and a write is repeated.
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

    /// Otherwise every status update of an autoscaler triggers a reconcile.
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
