//! Watches: everything that wakes a reconcile. A service's children are found by its label; AcceleratorClasses
//! wake the services that name them.

use super::{Guarded, ToService as _, error_policy, reconcile};
use crate::{
    cache::{strip, watched},
    context::ControllerContext,
    crd::{AcceleratorClass, ModelService},
};
use futures::{FutureExt as _, Stream, StreamExt as _, future};
use k8s_openapi::NamespaceResourceScope;
use kube::{
    Api, Client, Resource,
    core::DeserializeGuard,
    runtime::{
        Controller, WatchStreamExt as _,
        controller::{self, Error},
        reflector::{ObjectRef, Store, store::Writer},
        watcher,
    },
};
use std::{future::Future, sync::Arc};

/// Reconciles that run at the same time.
const PARALLEL: u16 = 32;

/// Which namespaces are watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All of them.
    Cluster,
    /// One.
    Namespace(String),
}

impl Scope {
    fn api<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(&self, client: &Client) -> Api<K> {
        match self {
            Self::Cluster => Api::all(client.clone()),
            Self::Namespace(namespace) => Api::namespaced(client.clone(), namespace),
        }
    }
}

/// AcceleratorClasses, each parsed on its own.
pub type GuardedClass = DeserializeGuard<AcceleratorClass>;

/// Reconciles until `shutdown`; then finishes the reconciles under way. `classes` is the writer of the store in
/// the context, or `None` where classes come from a file. `woken` are services to look at again.
pub async fn run(
    context: Arc<ControllerContext>,
    scope: Scope,
    classes: Option<Writer<GuardedClass>>,
    woken: impl Stream<Item = ObjectRef<ModelService>> + Send + 'static,
    shutdown: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let client = &context.client;
    let (reader, stream) = services(&context, scope.api(client));
    let caches = &context.caches;
    let children = futures::stream::select_all([
        watched(caches.deployments.clone(), scope.api(client)).boxed(),
        watched(caches.endpoints.clone(), scope.api(client)).boxed(),
        watched(caches.autoscalers.clone(), scope.api(client)).boxed(),
        watched(caches.disruption_budgets.clone(), scope.api(client)).boxed(),
        watched(caches.pods.clone(), scope.api(client)).boxed(),
        woken.boxed(),
        classes.map_or_else(
            || futures::stream::empty().boxed(),
            |writer| changed_classes(client, writer, reader.clone()).boxed(),
        ),
    ]);
    let metrics = context.metrics.clone();
    let children = children
        .inspect(move |service| metrics.triggered(service))
        .map(guarded);
    let shutdown = shutdown.shared();
    Controller::for_stream(stream, reader)
        .with_config(controller::Config::default().concurrency(PARALLEL))
        .reconcile_on(children)
        .graceful_shutdown_on(shutdown)
        .run(reconcile, error_policy, context)
        .for_each(|outcome| {
            match outcome {
                // Told where they happened; a deleted object is no error.
                Ok(_) | Err(Error::ReconcilerFailed(..) | Error::ObjectNotFound(_)) => {}
                Err(error) => tracing::warn!(%error, "watch of ModelServices interrupted; going on"),
            }
            future::ready(())
        })
        .await;
}

/// The services themselves: a store and the stream that fills it.
fn services(
    context: &Arc<ControllerContext>,
    api: Api<Guarded>,
) -> (
    Store<Guarded>,
    impl Stream<Item = Result<Guarded, watcher::Error>> + Send + 'static,
) {
    let (reader, writer) = kube::runtime::reflector::store();
    let (metrics, forgetful) = (context.metrics.clone(), context.clone());
    let stream = watcher(api, watcher::Config::default().streaming_lists())
        .modify(strip)
        .default_backoff()
        .inspect(move |event| {
            if let Ok(watcher::Event::Delete(gone)) = event {
                forgetful.forget(&ObjectRef::from_obj(gone).erase_to_service(), &gone.0);
            }
        })
        .reflect(writer)
        .applied_objects()
        .inspect(move |object| {
            if let Ok(object) = object {
                metrics.triggered(&ObjectRef::from_obj(object).erase_to_service());
            }
        });
    (reader, stream)
}

/// Keeps the classes' store and yields the services that name a class that changed.
fn changed_classes(
    client: &Client,
    writer: Writer<GuardedClass>,
    services: Store<Guarded>,
) -> impl Stream<Item = ObjectRef<ModelService>> + Send + 'static {
    let api: Api<GuardedClass> = Api::all(client.clone());
    watcher(api, watcher::Config::default().streaming_lists())
        .modify(strip)
        .default_backoff()
        .reflect(writer)
        .touched_objects()
        .filter_map(|class| {
            future::ready(
                class
                    .inspect_err(
                        |error| tracing::warn!(%error, "watch of AcceleratorClasses interrupted; going on"),
                    )
                    .ok(),
            )
        })
        .flat_map(move |class| {
            let name = Resource::meta(&class).name.clone().unwrap_or_default();
            let naming = services.state_filter(move |service| {
                service
                    .0
                    .as_ref()
                    .is_ok_and(|service| service.spec.accelerators.contains(&name))
            });
            futures::stream::iter(
                naming
                    .into_iter()
                    .map(|service| ObjectRef::from_obj(service.as_ref()).erase_to_service()),
            )
        })
}

fn guarded(service: ObjectRef<ModelService>) -> ObjectRef<Guarded> {
    let mut reference = ObjectRef::new(&service.name);
    reference.namespace = service.namespace;
    reference
}
