//! Fills a cache of children by a watch.

use super::{children::Children, retention::Retention};
use crate::crd::{ModelService, SERVICE_LABEL};
use futures::{Stream, StreamExt as _, future, stream};
use kube::{
    Api, Resource,
    runtime::{WatchStreamExt as _, reflector::ObjectRef, watcher},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{fmt::Debug, sync::Arc};

/// Fills `cache` from a watch of the objects that carry a service's label; yields the services that changed.
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

/// The items of a watch; an error is logged, and the watch continues.
pub(crate) fn ok_or_warn<K: Resource<DynamicType = ()>>(
    event: watcher::Result<watcher::Event<K>>,
) -> Option<watcher::Event<K>> {
    event
        .inspect_err(
            |error| tracing::warn!(kind = %K::kind(&()), %error, "the watch was interrupted and continues"),
        )
        .ok()
}
