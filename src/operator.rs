//! Operator: puts the parts together and runs them until it is told to stop.

use crate::{
    cache::{Caches, classes::Classes},
    cli::Settings,
    cluster::{
        client, default_classes,
        leadership::{Candidate, Permission},
        preflight::{self, ClusterSupport, LOOK_AGAIN},
    },
    controller::{
        self, Scope, backoff::Backoff, bursts::Bursts, context::ControllerContext, events::Events,
        reports::Reports,
    },
    crd::AcceleratorClass,
    plan::Brings,
    process::health::{self, Health},
};
use anyhow::{Context as _, bail};
use futures::{FutureExt as _, StreamExt as _, stream};
use kube::{Client, Config, runtime::reflector};
use std::{
    future::Future,
    sync::{Arc, atomic::Ordering},
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};

/// Runs the operator until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start, or lost the lease: another replica works then, and this one starts afresh.
pub async fn run(settings: &Settings) -> anyhow::Result<()> {
    let stop = stop_signal()?;
    let listener = TcpListener::bind(settings.listen).await.with_context(|| {
        format!(
            "cannot listen on {}; choose another address with --listen",
            settings.listen
        )
    })?;
    let health = Health::default();
    tracing::info!(address = %listener.local_addr()?, "serving health and metrics");
    let server = axum::serve(listener, health::router(health.clone())).into_future();
    let config = Config::infer()
        .await
        .context("no cluster: run in a pod, or set KUBECONFIG")?;
    tokio::select! {
        outcome = work(settings, config, &health, stop) => outcome,
        outcome = server => outcome.context("serving health and metrics"),
    }
}

/// Resolves, in every clone, when the process is told to stop.
type Stop = watch::Receiver<bool>;

fn stop_signal() -> anyhow::Result<Stop> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        tracing::info!("stopping: reconciles under way are finished");
        sender.send_replace(true);
        // Dropped, the sender would look like a signal.
        std::future::pending::<()>().await;
    });
    Ok(receiver)
}

async fn stopped(mut stop: Stop) {
    // The sender is never dropped while the runtime runs.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn work(settings: &Settings, config: Config, health: &Health, stop: Stop) -> anyhow::Result<()> {
    let classes = default_classes::read(settings.accelerator_classes.as_deref())?;
    // Not refused by the permission: for reads, dry runs and the lease itself.
    let plain = client::build(config.clone(), Permission::always(), health.metrics.clone())?;
    tokio::select! {
        () = wait_for_definitions(&plain, &settings.namespaces) => {}
        () = stopped(stop.clone()) => return Ok(()),
    }
    health.ready.store(true, Ordering::Relaxed);
    if !settings.leader_elect {
        health.metrics.set_leading(true);
        return lead(settings, &plain, plain.clone(), classes, health, stopped(stop)).await;
    }
    let permission = Permission::none_yet();
    let client = client::build(config, permission.clone(), health.metrics.clone())?;
    let mut candidate = Candidate::new(
        plain.clone(),
        &settings.lease_namespace,
        &settings.lease_name,
        settings.lease_duration,
        permission,
    );
    tracing::info!(
        lease = settings.lease_name,
        namespace = settings.lease_namespace,
        "standing by for the lease"
    );
    tokio::select! {
        () = candidate.acquire() => {}
        () = stopped(stop.clone()) => return Ok(()),
    }
    tracing::info!("leading");
    health.metrics.set_leading(true);
    let outcome = tokio::select! {
        outcome = lead(settings, &plain, client, classes, health, stopped(stop)) => outcome,
        () = candidate.hold() => {
            health.metrics.set_leading(false);
            // A fresh process is the surest way to have no state of a leader left.
            bail!("lost the lease {:?}: another replica works now; starting afresh", settings.lease_name);
        }
    };
    candidate.release().await?;
    outcome
}

async fn wait_for_definitions(client: &Client, namespaces: &[String]) {
    while let Err(problem) = preflight::check_definitions(client, namespaces).await {
        tracing::error!("{problem}");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Reconciles every scope until `stop`.
async fn lead(
    settings: &Settings,
    plain: &Client,
    client: Client,
    classes: Vec<AcceleratorClass>,
    health: &Health,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
) -> anyhow::Result<()> {
    let support = Arc::new(ClusterSupport::default());
    let namespace = settings
        .namespaces
        .first()
        .unwrap_or(&settings.lease_namespace)
        .clone();
    support
        .check(plain, &namespace)
        .await
        .context("asking whether this cluster has image volumes")?;
    if let Some(problem) = support.problem() {
        tracing::error!("{problem}");
    }
    let reads_classes = default_classes::may_read(plain).await?;
    let from_file = if reads_classes {
        default_classes::create_missing(&client, &classes).await?
    } else {
        tracing::info!("may not read AcceleratorClasses: taking them from the file instead");
        classes
    };
    let brings = Brings {
        runtime_image: settings.runtime_image.clone(),
        runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let scopes = match settings.namespaces.as_slice() {
        [] => vec![Scope::Cluster],
        some => some.iter().cloned().map(Scope::Namespace).collect(),
    };
    let stop = stop.shared();
    let mut controllers = stream::FuturesUnordered::new();
    for scope in scopes {
        let (wake, woken) = mpsc::unbounded_channel();
        let (reader, writer) = if reads_classes {
            Some(reflector::store())
        } else {
            None
        }
        .unzip();
        let context = Arc::new(ControllerContext {
            client: client.clone(),
            caches: Caches::default(),
            classes: Classes::new(reader, &from_file),
            written: Default::default(),
            brings: brings.clone(),
            support: support.clone(),
            bursts: Bursts::new(wake.clone()),
            reports: Reports::new(wake),
            events: Events::new(client.clone()),
            metrics: health.metrics.clone(),
            backoff: Backoff::default(),
            unequal: Default::default(),
        });
        let woken = stream::unfold(woken, |mut woken| async { Some((woken.recv().await?, woken)) });
        controllers.push(controller::run(context, scope, writer, woken, stop.clone()));
    }
    let watch_support = look_again(plain.clone(), support, namespace);
    tokio::select! {
        () = async { while controllers.next().await.is_some() {} } => Ok(()),
        never = watch_support => match never {},
    }
}

/// A cluster that could not serve models may have been upgraded. The services come back by their back-off.
async fn look_again(
    client: Client,
    support: Arc<ClusterSupport>,
    namespace: String,
) -> std::convert::Infallible {
    loop {
        tokio::time::sleep(LOOK_AGAIN).await;
        if support.problem().is_none() {
            std::future::pending::<()>().await;
        }
        if let Err(error) = support.check(&client, &namespace).await {
            tracing::warn!(%error, "could not ask whether this cluster has image volumes");
        }
    }
}
