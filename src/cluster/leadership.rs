//! Leadership: elects the one active replica among several, with a `coordination.k8s.io/v1` Lease.
//!
//! kube-runtime has no leader election, and the crates that have it only say whether the lease is held: a replica
//! that was paused and resumes would still finish a write that it had prepared. So every write checks a permission
//! with a deadline: two thirds of the lease's duration after the last renewal was *sent*. Another replica takes over
//! the lease a full duration after the last change that it *saw*, on its own clock. Two clocks are never compared.
//! The clock keeps running while the machine sleeps (CLOCK_BOOTTIME).

use anyhow::Context as _;
use k8s_openapi::{
    api::{
        authentication::v1::SelfSubjectReview,
        coordination::v1::{Lease, LeaseSpec},
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, OwnerReference},
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use rustix::time::{ClockId, clock_gettime};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Whether writes may be sent now.
#[derive(Clone, Debug)]
pub struct Permission(Arc<AtomicU64>);

impl Permission {
    /// A permission for the only replica.
    #[must_use]
    pub fn always() -> Self {
        Self(Arc::new(AtomicU64::new(u64::MAX)))
    }

    /// A permission for a replica that does not hold the lease yet.
    #[must_use]
    pub fn none_yet() -> Self {
        Self(Arc::new(AtomicU64::new(0)))
    }

    /// Whether it is in force now.
    #[must_use]
    pub fn holds(&self) -> bool {
        now() < Duration::from_millis(self.0.load(Ordering::Acquire))
    }

    fn extend_to(&self, deadline: Duration) {
        self.0.store(
            u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
            Ordering::Release,
        );
    }

    /// Returns when it ends: at once if it is not in force, never if it has no end.
    async fn ended(&self) {
        loop {
            let deadline = Duration::from_millis(self.0.load(Ordering::Acquire));
            let Some(left) = deadline.checked_sub(now()).filter(|left| !left.is_zero()) else {
                return;
            };
            tokio::time::sleep(left.min(Duration::from_secs(1))).await;
        }
    }
}

/// Time since boot, including sleep.
fn now() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

/// The service account that this process runs as, if it is in the namespace. It owns the lease, so that the lease is
/// deleted together with it: uninstalling does not delete objects that the operator created.
///
/// # Errors
/// When the API server does not say.
pub async fn account(client: &Client, namespace: &str) -> kube::Result<Option<OwnerReference>> {
    let review = Api::<SelfSubjectReview>::all(client.clone())
        .create(&PostParams::default(), &SelfSubjectReview::default())
        .await?;
    let user = review
        .status
        .and_then(|status| status.user_info)
        .unwrap_or_default();
    let prefix = format!("system:serviceaccount:{namespace}:");
    let name = user
        .username
        .as_deref()
        .and_then(|name| name.strip_prefix(&prefix));
    Ok(name.zip(user.uid).map(|(name, uid)| OwnerReference {
        api_version: "v1".to_owned(),
        kind: "ServiceAccount".to_owned(),
        name: name.to_owned(),
        uid,
        ..OwnerReference::default()
    }))
}

/// A candidate for the lease.
pub struct Candidate {
    leases: Api<Lease>,
    name: String,
    /// The owner of a new lease.
    owner: Option<OwnerReference>,
    identity: String,
    duration: Duration,
    permission: Permission,
    /// Version of the lease after its last change, and when that was seen.
    seen: Option<(String, Duration)>,
}

impl Candidate {
    /// `client` must not need the permission itself.
    #[must_use]
    pub fn new(
        client: Client,
        namespace: &str,
        name: &str,
        owner: Option<OwnerReference>,
        duration: Duration,
        permission: Permission,
    ) -> Self {
        let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "modelservice-operator".to_owned());
        Self {
            leases: Api::namespaced(client, namespace),
            name: name.to_owned(),
            owner,
            // A restarted container has the host name of its predecessor, but must not silently take over its lease.
            identity: format!("{host}_{:016x}", fastrand::u64(..)),
            duration,
            permission,
            seen: None,
        }
    }

    /// Waits until the lease is held.
    pub async fn acquire(&mut self) {
        loop {
            match self.attempt().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => tracing::warn!(
                    error = format!("{error:#}"),
                    "could not try to acquire the \
                    lease"
                ),
            }
            // Jitter, so that candidates that started together do not stay synchronised.
            tokio::time::sleep(self.duration.div_f64(7.5).mul_f64(0.8 + fastrand::f64() * 0.4)).await;
        }
    }

    /// Renews the lease until renewals have failed for too long; returns when the permission has ended.
    pub async fn hold(&mut self) {
        let pause = self.duration / 6;
        loop {
            tokio::time::sleep(pause).await;
            let permission = self.permission.clone();
            tokio::select! {
                biased;
                () = permission.ended() => return,
                attempt = self.attempt() => match attempt {
                    Ok(true) => {}
                    // Another replica holds it, so there is nothing left to wait for.
                    Ok(false) => return permission.extend_to(Duration::ZERO),
                    Err(error) => tracing::warn!(error = format!("{error:#}"), "could not renew the lease; trying again"),
                },
            }
        }
    }

    /// Releases the lease, so that another replica does not have to wait until it expires.
    ///
    /// # Errors
    /// When the API server refuses, or does not answer in time.
    pub async fn release(&mut self) -> anyhow::Result<()> {
        self.permission.extend_to(Duration::ZERO);
        tokio::time::timeout(self.duration / 3, self.clear())
            .await
            .context("no answer in time")?
    }

    async fn clear(&self) -> anyhow::Result<()> {
        let Some(mut lease) = self.leases.get_opt(&self.name).await? else {
            return Ok(());
        };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(&self.identity) {
            return Ok(());
        }
        spec.holder_identity = None;
        spec.lease_duration_seconds = Some(1);
        self.leases
            .replace(&self.name, &PostParams::default(), &lease)
            .await
            .context("releasing the lease")?;
        Ok(())
    }

    /// Tries once to acquire or renew the lease; returns whether it is now held.
    async fn attempt(&mut self) -> anyhow::Result<bool> {
        let sent = now();
        let taken = tokio::time::timeout(self.duration / 3, self.take())
            .await
            .context("no answer in time")??;
        if taken {
            self.permission.extend_to(sent + self.duration * 2 / 3);
        }
        Ok(taken)
    }

    async fn take(&mut self) -> anyhow::Result<bool> {
        let Some(mut lease) = self.leases.get_opt(&self.name).await? else {
            if !self.may_make() {
                return Ok(false);
            }
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(self.name.clone()),
                    owner_references: self.owner.clone().map(|owner| vec![owner]),
                    ..ObjectMeta::default()
                },
                spec: Some(self.renewed(&LeaseSpec::default())),
            };
            return won(self.leases.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.take().unwrap_or_default();
        let is_ours = spec.holder_identity.as_deref() == Some(&self.identity);
        if !is_ours && !self.is_free(&lease, &spec) {
            return Ok(false);
        }
        lease.spec = Some(self.renewed(&spec));
        // The request carries the resource version that was read, so of two candidates only one succeeds.
        won(self
            .leases
            .replace(&self.name, &PostParams::default(), &lease)
            .await)
    }

    /// Whether a missing lease may be created. If another replica held it and somebody deleted it, that replica still
    /// relies on it and creates it again, so its duration has to pass first.
    fn may_make(&self) -> bool {
        let waits = |(_, since): &(String, Duration)| now() < *since + self.duration;
        self.permission.holds() || !self.seen.as_ref().is_some_and(waits)
    }

    /// Whether nobody holds it, or its holder has not renewed it for the full duration while we watched.
    fn is_free(&mut self, lease: &Lease, spec: &LeaseSpec) -> bool {
        if spec.holder_identity.as_deref().is_none_or(str::is_empty) {
            return true;
        }
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let theirs = spec
            .lease_duration_seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map(Duration::from_secs);
        match &self.seen {
            Some((known, since)) if *known == version => now() >= *since + theirs.unwrap_or(self.duration),
            _ => {
                self.seen = Some((version, now()));
                false
            }
        }
    }

    fn renewed(&self, spec: &LeaseSpec) -> LeaseSpec {
        let time = Some(MicroTime(Timestamp::now()));
        let is_ours = spec.holder_identity.as_deref() == Some(&self.identity);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.duration.as_secs()).ok(),
            acquire_time: if is_ours {
                spec.acquire_time.clone()
            } else {
                time.clone()
            },
            lease_transitions: Some(spec.lease_transitions.unwrap_or(0) + i32::from(!is_ours)),
            renew_time: time,
            ..LeaseSpec::default()
        }
    }
}

/// A conflict means that another candidate was faster, which is not an error.
fn won(answer: kube::Result<Lease>) -> anyhow::Result<bool> {
    match answer {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error.into()),
    }
}
