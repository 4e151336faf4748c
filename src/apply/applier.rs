//! Applier: applies one child if it differs from the plan, or deletes it. Compares with the caches and updates them
//! with the API server's answers.

use super::{
    difference::{Difference, differences},
    managers,
    overrides::{Override, Overrides, Subject},
    request::{Child, Requests},
};
use crate::{
    cache::{Caches, children::Children},
    crd::APPLIED_ANNOTATION,
    reason::Problem,
    revision,
    validate::ValidatedService,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use kube::{Client, ResourceExt as _};
use serde_json::Value;
use std::sync::Arc;

/// Applies the children of one service.
pub struct Applier<'a> {
    pub(super) caches: &'a Caches,
    pub(super) service: &'a ValidatedService,
    pub(super) requests: Requests<'a>,
    overrides: &'a Overrides,
    now: Timestamp,
}

impl<'a> Applier<'a> {
    /// For the children of `service`, in a pass at `now`.
    #[must_use]
    pub const fn new(
        client: &'a Client,
        caches: &'a Caches,
        overrides: &'a Overrides,
        service: &'a ValidatedService,
        now: Timestamp,
    ) -> Self {
        Self {
            caches,
            service,
            requests: Requests { client, service },
            overrides,
            now,
        }
    }

    /// Applies `wanted` where `live` differs from it, unless somebody else sets it otherwise each time; returns the
    /// object as it is then.
    pub(super) async fn ensure<K: Child>(
        &self,
        cache: &Children<K>,
        wanted: K,
        live: Option<&Arc<K>>,
    ) -> Result<Option<Arc<K>>, Problem> {
        let mut wanted = to_value(&wanted)?;
        let hash = revision::hash(&wanted);
        wanted["metadata"]["annotations"][APPLIED_ANNOTATION] = hash.clone().into();
        let differing = match live {
            Some(live) => differing(cache, &wanted, &hash, live)?,
            None => vec![Difference::missing()],
        };
        let name = wanted["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let is_held = self.is_held::<K>(&name, &differing).await;
        if is_held || differing.is_empty() {
            return Ok(live.cloned());
        }
        let answer = match live {
            Some(live) => self.requests.change(&mut wanted, live.uid()).await?,
            None => self.requests.create(&mut wanted).await?,
        };
        self.corrected::<K>(&name, &differing);
        let answer = cache.put(answer);
        self.compare_answer(cache, &wanted, &hash, answer.as_ref())?;
        Ok(Some(answer))
    }

    /// Whether what differs is left as it is for now, because somebody sets it again each time.
    pub(super) async fn is_held<K: Child>(&self, name: &str, differing: &[Difference]) -> bool {
        let kind = K::kind(&());
        let subject = self.subject(&kind, name);
        let is_held = self.overrides.holds(&subject, differing);
        let fields = self.overrides.to_be_asked(&subject);
        if is_held && !fields.is_empty() {
            match self.requests.managers::<K>(name).await {
                Ok(managers) => fields.iter().for_each(|field| {
                    if let Some(manager) = managers::owner(&managers, field) {
                        self.overrides.set_by(&subject, field, manager);
                    }
                }),
                Err(error) => tracing::debug!(%kind, name, %error, "cannot read who changes it"),
            }
        }
        is_held
    }

    /// Counts a correction.
    pub(super) fn corrected<K: Child>(&self, name: &str, differing: &[Difference]) {
        let kind = K::kind(&());
        for Difference { field, .. } in differing {
            tracing::debug!(%kind, name, %field, "was not as planned");
        }
        self.overrides.corrected(&self.subject(&kind, name), differing);
    }

    /// What others set otherwise.
    pub(super) fn overridden(&self) -> Vec<Override> {
        self.overrides.of(&self.service.source, self.now)
    }

    fn subject<'b>(&'b self, kind: &'b str, name: &'b str) -> Subject<'b> {
        Subject {
            service: &self.service.source,
            kind,
            name,
            now: self.now,
        }
    }

    /// Settles the object that the API server returned, or remembers that it is not what was applied.
    fn compare_answer<K: Child>(
        &self,
        cache: &Children<K>,
        wanted: &Value,
        hash: &str,
        answer: &K,
    ) -> Result<(), Problem> {
        let (kind, name) = (K::kind(&()), answer.name_any());
        let differing = differences(wanted, &to_value(answer)?);
        for Difference { field, .. } in &differing {
            tracing::warn!(%kind, name, %field, "the API server changed an applied field");
        }
        self.overrides.answered(&self.subject(&kind, &name), &differing);
        if differing.is_empty() {
            cache.settle(answer, hash);
        }
        Ok(())
    }

    /// Starts a pod that looks for the version of a model.
    pub(super) async fn start(&self, pod: &core::Pod) -> Result<(), Problem> {
        let answer = self.requests.start(pod).await?;
        self.caches.pods.put(answer);
        Ok(())
    }

    /// Deletes a child that is no longer wanted.
    pub(super) async fn prune<K: Child>(
        &self,
        cache: &Children<K>,
        live: Option<&Arc<K>>,
    ) -> Result<(), Problem> {
        let Some(live) = live.filter(|live| live.meta().deletion_timestamp.is_none()) else {
            return Ok(());
        };
        self.requests.delete(live.as_ref()).await?;
        let (kind, name) = (K::kind(&()), live.name_any());
        self.overrides.forget_child(&self.subject(&kind, &name));
        cache.forget(live);
        Ok(())
    }
}

/// What `live` lacks of `wanted`, or still has although it is not wanted any more.
fn differing<K: Child>(
    cache: &Children<K>,
    wanted: &Value,
    hash: &str,
    live: &K,
) -> Result<Vec<Difference>, Problem> {
    if cache.is_settled(live, hash) {
        return Ok(Vec::new());
    }
    let differing = differences(wanted, &to_value(live)?);
    if differing.is_empty() {
        cache.settle(live, hash);
    }
    Ok(differing)
}

fn to_value<K: Child>(object: &K) -> Result<Value, Problem> {
    serde_json::to_value(object).map_err(|error| Problem::Api {
        verb: "encode",
        kind: K::kind(&()).into_owned(),
        message: error.to_string(),
    })
}
