//! What the operator keeps of the cluster: label-selected watches into stores, `managedFields` stripped, and
//! of pods only what their status says. A write's answer stands in until the watch has caught up with it.

use k8s_openapi::{
    Metadata, NamespaceResourceScope, Resource,
    api::core::v1::{ContainerStatus, PodCondition},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

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
        self.condition("Ready").is_some_and(|condition| condition.status == "True")
    }

    /// A condition by its type.
    #[must_use]
    pub fn condition(&self, type_: &str) -> Option<&PodCondition> {
        self.status.conditions.iter().find(|condition| condition.type_ == type_)
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

/// How long a write's answer may stand in for a watch that has not seen it.
const STAND_IN: Duration = Duration::from_secs(10);

/// Answers of our own writes, by namespace and name, so that a reconcile that runs before the watch has seen
/// a write neither repeats it nor reads the object.
#[derive(Debug)]
pub struct Written<K> {
    answers: Mutex<HashMap<(String, String), (Arc<K>, Instant)>>,
}

impl<K> Default for Written<K> {
    fn default() -> Self {
        Self { answers: Mutex::default() }
    }
}

impl<K: kube::Resource> Written<K> {
    /// Remembers the answer of a write.
    pub fn put(&self, object: Arc<K>) {
        let key = key(object.as_ref());
        self.lock().insert(key, (object, Instant::now()));
    }

    /// Forgets an object that was deleted.
    pub fn forget(&self, namespace: &str, name: &str) {
        self.lock().remove(&(namespace.to_owned(), name.to_owned()));
    }

    /// The newer of what the cache has and what was answered.
    pub fn newest(&self, namespace: &str, name: &str, cached: Option<Arc<K>>) -> Option<Arc<K>> {
        let mut answers = self.lock();
        let key = (namespace.to_owned(), name.to_owned());
        let Some((answer, at)) = answers.get(&key) else { return cached };
        let caught_up = cached.as_ref().is_some_and(|cached| version(cached.as_ref()) >= version(answer.as_ref()));
        if caught_up || at.elapsed() > STAND_IN {
            answers.remove(&key);
            return cached;
        }
        Some(answer.clone())
    }

    /// Answers of a namespace that satisfy `wanted`.
    pub fn filter(&self, namespace: &str, wanted: impl Fn(&K) -> bool) -> Vec<Arc<K>> {
        let answers = self.lock();
        answers
            .iter()
            .filter(|((of, _), (object, at))| of == namespace && at.elapsed() <= STAND_IN && wanted(object))
            .map(|(_, (object, _))| object.clone())
            .collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(String, String), (Arc<K>, Instant)>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key<K: kube::Resource>(object: &K) -> (String, String) {
    let meta = object.meta();
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

/// Resource versions are comparable numbers (Kubernetes KEP-5504).
fn version<K: kube::Resource>(object: &K) -> u64 {
    object.meta().resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}
