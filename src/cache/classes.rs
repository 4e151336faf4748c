//! Classes: AcceleratorClasses from the cluster or, if the operator may not read them, from a file.

use crate::crd::AcceleratorClass;
use kube::{
    ResourceExt as _,
    core::DeserializeGuard,
    runtime::reflector::{ObjectRef, Store},
};
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::OnceCell;

/// AcceleratorClasses, each parsed on its own.
pub type GuardedClass = DeserializeGuard<AcceleratorClass>;

/// Where AcceleratorClasses come from.
#[derive(Default)]
pub struct Classes {
    cluster: Option<(Store<GuardedClass>, OnceCell<()>)>,
    file: BTreeMap<String, Arc<AcceleratorClass>>,
}

impl Classes {
    /// Classes in the cluster, if the operator may read them, and classes in `file` that are not in the cluster.
    #[must_use]
    pub fn new(cluster: Option<Store<GuardedClass>>, file: &[AcceleratorClass]) -> Self {
        Self {
            cluster: cluster.map(|store| (store, OnceCell::new())),
            file: file
                .iter()
                .map(|class| (class.name_any(), Arc::new(class.clone())))
                .collect(),
        }
    }

    /// A class by its name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<AcceleratorClass>> {
        let found = self
            .cluster
            .as_ref()
            .and_then(|(store, _)| store.get(&ObjectRef::new(name)));
        match found {
            Some(class) => class.0.clone().ok().map(Arc::new),
            None => self.file.get(name).cloned(),
        }
    }

    /// The classes in the cluster that can be read.
    #[must_use]
    pub fn in_cluster(&self) -> Vec<Arc<AcceleratorClass>> {
        let stored = self.cluster.iter().flat_map(|(store, _)| store.state());
        stored
            .filter_map(|class| class.0.clone().ok().map(Arc::new))
            .collect()
    }

    /// Returns once the first list is complete.
    pub async fn wait_filled(&self) {
        if let Some((store, filled)) = &self.cluster {
            // Only one task may wait for a store, which wakes only the last waiter (kube-runtime 5.0). This fails
            // only when the watch has ended, and then the operator is shutting down.
            filled
                .get_or_init(async || drop(store.wait_until_ready().await))
                .await;
        }
    }
}
