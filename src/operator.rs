//! Operator: connects the parts and runs them until it is told to stop.

use crate::{
    cache::classes::Classes,
    cluster::{
        client, default_classes,
        leadership::{self, Candidate, Permission},
        preflight::{self, CHECK_INTERVAL, ClusterSupport, VOLUMES_INTERVAL},
    },
    controller::{
        self, Scope, backoff::Backoff, bursts::Bursts, context::ControllerContext, devices::Devices,
        events::Events, loads::Loads, reports::Reports,
    },
    crd::AcceleratorClass,
    inventory::{self, Inventory},
    plan::DefaultRuntime,
    process::{
        duration::duration,
        health::{self, Health},
        open_files,
    },
};
use anyhow::{Context as _, bail};
use clap::Args;
use futures::{FutureExt as _, StreamExt as _, stream};
use kube::{Client, Config, runtime::reflector};
use std::{
    future::Future,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};

/// How the operator runs.
#[derive(Clone, Debug, Args)]
pub struct Settings {
    /// Image of the inference server for AcceleratorClasses that do not name one
    #[arg(long, env = "RUNTIME_IMAGE", default_value = concat!("modelservice-server:", env!("CARGO_PKG_VERSION")))]
    pub runtime_image: String,
    /// Watch only these namespaces, separated by commas; all namespaces if absent
    #[arg(long = "namespace", env = "WATCH_NAMESPACE", value_delimiter = ',')]
    pub namespaces: Vec<String>,
    /// Elect one active replica with a Lease
    #[arg(long)]
    pub leader_elect: bool,
    /// Name of the Lease
    #[arg(long, default_value = "modelservice-operator")]
    pub lease_name: String,
    /// Namespace of the Lease, and of the dry run at startup
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    pub lease_namespace: String,
    /// How long the Lease stays valid without being renewed; at least 3s
    #[arg(long, default_value = "15s", value_parser = lease_duration)]
    pub lease_duration: Duration,
    /// Address that serves /healthz, /readyz and /metrics
    #[arg(long, default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// File with a YAML list of AcceleratorClasses to create at startup if they do not exist; without it, `cpu`
    #[arg(long, value_name = "FILE")]
    pub accelerator_classes: Option<PathBuf>,
}

/// Runs the operator until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start, or has lost the lease: then another replica is active, and this process has to restart.
pub async fn run(settings: &Settings) -> anyhow::Result<()> {
    let stop = stop_signal()?;
    open_files::raise_limit();
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
    let outcome = tokio::select! {
        outcome = work(settings, config, &health, stop.clone()) => outcome,
        outcome = server => outcome.context("serving health and metrics"),
    };
    match outcome {
        // Uninstalling removes the rights before the pod ends, so this is not a failure of the operator.
        Err(error) if *stop.borrow() => {
            tracing::warn!(error = format!("{error:#}"), "stopped, but not cleanly");
            Ok(())
        }
        outcome => outcome,
    }
}

/// Becomes true when the process is told to stop.
type Stop = watch::Receiver<bool>;

fn stop_signal() -> anyhow::Result<Stop> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        tracing::info!("stopping: finishing the current reconciles");
        sender.send_replace(true);
        // Dropping the sender would look like a signal.
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
    // A client that needs no permission, for reads, dry runs and the lease itself.
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
    let account = leadership::account(&plain, &settings.lease_namespace).await;
    let owner = account.unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot find out the operator's own service account: the lease will remain \
            when the operator is uninstalled");
        None
    });
    let mut candidate = Candidate::new(
        plain.clone(),
        &settings.lease_namespace,
        &settings.lease_name,
        owner,
        settings.lease_duration,
        permission,
    );
    tracing::info!(
        lease = settings.lease_name,
        namespace = settings.lease_namespace,
        "waiting for the lease"
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
            // A new process is the surest way to drop all of a leader's state.
            bail!("lost the lease {:?}: another replica is active now; restarting", settings.lease_name);
        }
    };
    candidate.release().await?;
    outcome
}

async fn wait_for_definitions(client: &Client, namespaces: &[String]) {
    while let Err(problem) = preflight::check_definitions(client, namespaces).await {
        tracing::error!("{problem}");
        tokio::time::sleep(CHECK_INTERVAL).await;
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
        .context("checking whether this cluster has image volumes")?;
    support
        .look_for_dra(plain)
        .await
        .context("checking whether this cluster has Dynamic Resource Allocation")?;
    if let Some(problem) = support.problem() {
        tracing::info!("models are fetched, because {problem}");
    }
    let reads_classes = default_classes::may_read(plain).await?;
    let from_file = if reads_classes {
        default_classes::create_missing(&client, &classes).await?
    } else {
        tracing::info!("not allowed to read AcceleratorClasses; using those from the file instead");
        classes
    };
    let runtime = DefaultRuntime {
        image: settings.runtime_image.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let scopes = match settings.namespaces.as_slice() {
        [] => vec![Scope::Cluster],
        some => some.iter().cloned().map(Scope::Namespace).collect(),
    };
    let stop = stop.shared();
    let mut controllers = stream::FuturesUnordered::new();
    let mut inventories = Vec::new();
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
            caches: Arc::default(),
            classes: Arc::new(Classes::new(reader, &from_file)),
            written: Default::default(),
            runtime: runtime.clone(),
            support: support.clone(),
            bursts: Bursts::new(wake.clone()),
            reports: Reports::new(wake.clone()),
            devices: Devices::new(client.clone(), wake.clone()),
            loads: Loads::new(wake, health.metrics.clone()),
            events: Events::new(client.clone()),
            metrics: health.metrics.clone(),
            backoff: Backoff::default(),
            overrides: Default::default(),
            inventory: Arc::default(),
        });
        if scope == Scope::Cluster && reads_classes {
            inventories.extend(inventory(plain, &context).await?);
        }
        let woken = stream::unfold(woken, |mut woken| async { Some((woken.recv().await?, woken)) });
        controllers.push(controller::run(context, scope, writer, woken, stop.clone()));
    }
    let looks = support.clone();
    let checks = check_again(plain.clone(), support, namespace);
    let beside = async {
        let runs = inventories.iter().map(Inventory::run);
        futures::future::join(futures::future::join_all(runs), looks.keep_looking_for_dra(plain)).await;
        std::future::pending::<std::convert::Infallible>().await
    };
    tokio::select! {
        () = async { while controllers.next().await.is_some() {} } => Ok(()),
        never = beside => match never {},
        never = checks => match never {},
    }
}

/// What keeps the statuses of classes, if the operator may read nodes.
async fn inventory(plain: &Client, context: &ControllerContext) -> anyhow::Result<Option<Inventory>> {
    if !inventory::may_read_nodes(plain).await? {
        tracing::info!("not allowed to read nodes: AcceleratorClasses get no status");
        return Ok(None);
    }
    Ok(Some(Inventory {
        client: context.client.clone(),
        caches: context.caches.clone(),
        classes: context.classes.clone(),
        support: context.support.clone(),
        changed: context.inventory.clone(),
    }))
}

/// Checks again whether a cluster without image volumes has been upgraded. New revisions then use them.
async fn check_again(
    client: Client,
    support: Arc<ClusterSupport>,
    namespace: String,
) -> std::convert::Infallible {
    loop {
        tokio::time::sleep(VOLUMES_INTERVAL).await;
        if support.problem().is_none() {
            std::future::pending::<()>().await;
        }
        if let Err(error) = support.check(&client, &namespace).await {
            tracing::warn!(%error, "could not check whether this cluster has image volumes");
        }
    }
}

fn lease_duration(text: &str) -> Result<Duration, String> {
    let duration = duration(text)?;
    if duration < Duration::from_secs(3) {
        Err("at least 3s".to_owned())
    } else {
        Ok(duration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shorter lease could not be renewed in time.
    #[test]
    fn a_lease_is_held_for_three_seconds_at_least() {
        assert_eq!(lease_duration("3s"), Ok(Duration::from_secs(3)));
        assert!(lease_duration("1s").is_err());
    }
}
