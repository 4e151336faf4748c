//! One object in a cache of children, and which of two versions of it stays.

use super::retention::Retention;
use jiff::Timestamp;
use kube::Resource;
use serde::Serialize;
use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash as _, Hasher as _},
    sync::Arc,
};

#[derive(Debug)]
pub(super) struct Entry<K> {
    pub(super) object: Arc<K>,
    /// Hash of the object as it arrived, without its resource version.
    fingerprint: u64,
    /// Hash of the wanted object, once this one was found to match it.
    pub(super) settled: Option<String>,
}

impl<K: Retention + Clone> Entry<K> {
    pub(super) fn follow(&mut self, earlier: &Self) {
        Arc::make_mut(&mut self.object).follow(&earlier.object, Timestamp::now());
    }
}

impl<K: Retention + Resource + Serialize> Entry<K> {
    pub(super) fn new(mut object: K) -> Self {
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

pub(super) fn is_namesake<K: Resource>(one: &Entry<K>, other: &Entry<K>) -> bool {
    one.object.meta().name == other.object.meta().name
}

/// Whether both are the same version of the same object.
pub(super) fn is_same<K: Resource>(entry: &Entry<K>, object: &K) -> bool {
    let (known, meta) = (entry.object.meta(), object.meta());
    known.name == meta.name && known.uid == meta.uid && known.resource_version == meta.resource_version
}

/// Adds a version of an object; returns whether anything relevant changed.
pub(super) fn insert<K: Retention + Resource + Clone>(
    group: &mut Vec<Entry<K>>,
    mut entry: Entry<K>,
) -> bool {
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

/// Resource versions are comparable numbers (Kubernetes KEP-5504).
pub(super) fn version<K: Resource>(object: &K) -> u64 {
    object
        .meta()
        .resource_version
        .as_deref()
        .and_then(|version| version.parse().ok())
        .unwrap_or(0)
}
