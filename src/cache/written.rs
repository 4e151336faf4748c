//! Written: services as they were after our own status writes.

use super::entry::version;
use crate::crd::ModelService;
use kube::ResourceExt as _;
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc};

/// Services as they were after our status writes, until the watch has caught up: a reconcile that runs before that
/// must not write the same status again.
#[derive(Debug, Default)]
pub struct Written(Mutex<HashMap<String, Arc<ModelService>>>);

impl Written {
    /// Remembers the answer to a status write.
    pub fn put(&self, service: Arc<ModelService>) {
        self.0.lock().insert(service.uid().unwrap_or_default(), service);
    }

    /// The newer of the version from the watch and the answer to our write.
    #[must_use]
    pub fn newest(&self, cached: Arc<ModelService>) -> Arc<ModelService> {
        let mut written = self.0.lock();
        let uid = cached.uid().unwrap_or_default();
        match written.get(&uid) {
            Some(answer) if version(answer.as_ref()) > version(cached.as_ref()) => answer.clone(),
            Some(_) => {
                written.remove(&uid);
                cached
            }
            None => cached,
        }
    }

    /// Forgets a service that was deleted.
    pub fn forget(&self, service: &ModelService) {
        self.0
            .lock()
            .remove(service.metadata.uid.as_deref().unwrap_or_default());
    }
}
