//! Watches: everything that triggers a reconcile. A child belongs to the service that its label names; an
//! AcceleratorClass triggers the services that name it.

use super::{
    context::ControllerContext,
    reconcile::{GuardedService, error_policy, reconcile},
};
use crate::{
    cache::{
        classes::GuardedClass,
        retention::drop_managed_fields,
        watch::{ok_or_warn, watched},
    },
    crd::ModelService,
};
use futures::{FutureExt as _, Stream, StreamExt as _, future, stream};
use k8s_openapi::{NamespaceResourceScope, api::resource::v1::ResourceClaimTemplate};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    runtime::{
        Controller, WatchStreamExt as _,
        controller::{self, Error},
        reflector::{self, ObjectRef, Store, store::Writer},
        watcher,
    },
};
use serde::de::DeserializeOwned;
use std::{collections::HashMap, fmt::Debug, future::Future, sync::Arc};

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

/// Reconciles until `shutdown`, then finishes current reconciles. `classes` writes the store in the context; `None`
/// if classes come from a file. `woken` are services to reconcile again.
pub async fn run(
    context: Arc<ControllerContext>,
    scope: Scope,
    classes: Option<Writer<GuardedClass>>,
    woken: impl Stream<Item = ObjectRef<ModelService>> + Send + 'static,
    shutdown: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let client = &context.client;
    let (reader, services) = services(&context, scope.api(client));
    let caches = &context.caches;
    let classes = match classes {
        Some(writer) => changed_classes(&context, writer, reader.clone()).boxed(),
        None => stream::empty().boxed(),
    };
    let triggers = stream::select_all([
        services.boxed(),
        classes,
        woken.boxed(),
        watched(caches.deployments.clone(), scope.api(client)).boxed(),
        watched(caches.endpoints.clone(), scope.api(client)).boxed(),
        watched(caches.autoscalers.clone(), scope.api(client)).boxed(),
        watched(caches.disruption_budgets.clone(), scope.api(client)).boxed(),
        claim_templates(&context, scope.api(client)).boxed(),
        watched(caches.pods.clone(), scope.api(client)).boxed(),
    ]);
    let (metrics, counted) = (context.metrics.clone(), context.metrics.clone());
    let inventory = context.inventory.clone();
    let triggers = triggers
        .inspect(move |service| {
            metrics.triggered(service);
            inventory.notify_one();
        })
        .map(|service| service.into_kind_unchecked::<GuardedService>(()));
    let shutdown = shutdown.shared();
    // The controller's own watch misses objects that are new in a repeated list; see `changed`.
    Controller::for_stream(stream::pending(), reader)
        .with_config(controller::Config::default().concurrency(PARALLEL))
        .reconcile_on(triggers)
        .graceful_shutdown_on(shutdown)
        .run(reconcile, error_policy, context)
        .for_each(|outcome| {
            match outcome {
                // Already logged.
                Ok(_) | Err(Error::ReconcilerFailed(..)) => {}
                // A child of a deleted service, or the service itself.
                Err(Error::ObjectNotFound(gone)) => {
                    counted.forget(&gone.into_kind_unchecked::<ModelService>(()));
                }
                Err(error) => tracing::warn!(%error, "a controller error; continuing"),
            }
            future::ready(())
        })
        .await;
}

/// The services themselves: a store, and the stream that fills it and yields those that changed.
fn services(
    context: &Arc<ControllerContext>,
    api: Api<GuardedService>,
) -> (
    Store<GuardedService>,
    impl Stream<Item = ObjectRef<ModelService>> + Send + 'static,
) {
    let (reader, writer) = reflector::store();
    let context = context.clone();
    let events = watched_into(writer, api).inspect(move |event| {
        if let watcher::Event::Delete(gone) = event {
            context.forget(
                &ObjectRef::from_obj(gone).into_kind_unchecked::<ModelService>(()),
                &gone.0,
            );
        }
    });
    (
        reader,
        changed(events).map(|service| service.into_kind_unchecked::<ModelService>(())),
    )
}

/// ResourceClaimTemplates, once the cluster has them.
fn claim_templates(
    context: &Arc<ControllerContext>,
    api: Api<ResourceClaimTemplate>,
) -> impl Stream<Item = ObjectRef<ModelService>> + Send + 'static {
    let (support, cache) = (context.support.clone(), context.caches.claim_templates.clone());
    let known = async move {
        if !support.has_dra() {
            cache.stay_empty();
        }
        support.wait_for_dra().await;
        watched(cache, api)
    };
    stream::once(known).flatten()
}

/// Fills the classes' store; yields the services that name a class of which more has changed than figures in its status.
fn changed_classes(
    context: &Arc<ControllerContext>,
    writer: Writer<GuardedClass>,
    services: Store<GuardedService>,
) -> impl Stream<Item = ObjectRef<ModelService>> + Send + 'static {
    let (inventory, mut known) = (context.inventory.clone(), HashMap::new());
    let events =
        watched_into(writer, Api::all(context.client.clone())).inspect(move |_| inventory.notify_one());
    let events = events.filter(move |event| future::ready(is_news(&mut known, event)));
    changed(events).flat_map(move |class| {
        let naming = services.state_filter(move |service| {
            service
                .0
                .as_ref()
                .is_ok_and(|service| service.spec.accelerators.contains(&class.name))
        });
        stream::iter(
            naming
                .into_iter()
                .map(|service| ObjectRef::from_obj(service.as_ref()).into_kind_unchecked::<ModelService>(())),
        )
    })
}

/// Whether services that name this class have to know.
fn is_news(known: &mut HashMap<String, String>, event: &watcher::Event<GuardedClass>) -> bool {
    let class = match event {
        watcher::Event::Apply(class) => class,
        watcher::Event::Delete(class) => {
            known.remove(&class.name_any());
            return true;
        }
        _ => return true,
    };
    let said = class.0.as_ref().map_or_else(
        |invalid| invalid.error.clone(),
        |class| format!("{:?} {:?}", class.metadata.generation, class.why_not_ready()),
    );
    known.insert(class.name_any(), said.clone()) != Some(said)
}

/// Watches into a store; an error does not end it.
fn watched_into<K>(writer: Writer<K>, api: Api<K>) -> impl Stream<Item = watcher::Event<K>> + Send + 'static
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    watcher(api, watcher::Config::default().streaming_lists())
        .modify(drop_managed_fields)
        .default_backoff()
        .reflect(writer)
        .filter_map(|event| future::ready(ok_or_warn(event)))
}

/// Objects that changed. Listed objects are yielded only once the list is complete: only then does the store show
/// them, and a reconcile that does not find its object there is dropped for good.
fn changed<K>(
    events: impl Stream<Item = watcher::Event<K>> + Send + 'static,
) -> impl Stream<Item = ObjectRef<K>> + Send + 'static
where
    K: Resource<DynamicType = ()> + Send + 'static,
{
    let mut listed = Vec::new();
    events.flat_map(move |event| {
        stream::iter(match event {
            watcher::Event::Init => {
                listed.clear();
                Vec::new()
            }
            watcher::Event::InitApply(object) => {
                listed.push(ObjectRef::from_obj(&object));
                Vec::new()
            }
            watcher::Event::InitDone => std::mem::take(&mut listed),
            watcher::Event::Apply(object) | watcher::Event::Delete(object) => {
                vec![ObjectRef::from_obj(&object)]
            }
        })
    })
}
