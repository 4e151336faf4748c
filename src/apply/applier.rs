//! Applier: applies one child where it differs from what is wanted, or deletes it. Compares with the caches and
//! updates them by what the API server answers.

use super::{
    difference::first_difference,
    mismatches::Mismatches,
    request::{Child, Requests},
};
use crate::{
    cache::{Caches, children::Children},
    crd::APPLIED_ANNOTATION,
    reason::Problem,
    revision,
    validate::ValidatedService,
};
use kube::{Client, ResourceExt as _};
use serde_json::Value;
use std::sync::Arc;

/// Applies the children of one service.
pub struct Applier<'a> {
    pub(super) caches: &'a Caches,
    pub(super) service: &'a ValidatedService,
    pub(super) requests: Requests<'a>,
    mismatches: &'a Mismatches,
}

impl<'a> Applier<'a> {
    /// For the children of `service`.
    #[must_use]
    pub const fn new(
        client: &'a Client,
        caches: &'a Caches,
        mismatches: &'a Mismatches,
        service: &'a ValidatedService,
    ) -> Self {
        Self {
            caches,
            service,
            requests: Requests { client, service },
            mismatches,
        }
    }

    /// Applies `wanted` where `live` differs from it; returns the object as it is then.
    pub(super) async fn ensure<K: Child>(
        &self,
        cache: &Children<K>,
        wanted: K,
        live: Option<&Arc<K>>,
    ) -> Result<Arc<K>, Problem> {
        let mut wanted = to_value(&wanted)?;
        let hash = revision::hash(&wanted);
        if let Some(live) = live
            && !self.differs(cache, &wanted, &hash, live)?
        {
            return Ok(live.clone());
        }
        wanted["metadata"]["annotations"][APPLIED_ANNOTATION] = hash.clone().into();
        let answer = match live {
            Some(live) => self.requests.change(&mut wanted, live.uid()).await?,
            None => self.requests.create(&mut wanted).await?,
        };
        let answer = cache.put(answer);
        self.compare_answer(cache, &wanted, &hash, answer.as_ref())?;
        Ok(answer)
    }

    /// Whether `live` lacks something of `wanted`, or still has something that was wanted once.
    fn differs<K: Child>(
        &self,
        cache: &Children<K>,
        wanted: &Value,
        hash: &str,
        live: &K,
    ) -> Result<bool, Problem> {
        if cache.is_settled(live, hash) {
            return Ok(false);
        }
        let value = to_value(live)?;
        let path = first_difference(wanted, &value);
        if live.annotations().get(APPLIED_ANNOTATION).map(String::as_str) == Some(hash) && path.is_none() {
            cache.settle(live, hash);
            return Ok(false);
        }
        if self.mismatches.is_known(live.meta().uid.as_deref(), hash, &value) {
            return Ok(false);
        }
        tracing::debug!(kind = %K::kind(&()), name = %live.name_any(), path, "differs from the plan");
        Ok(true)
    }

    /// Settles what the API server answered, or remembers that it is not what was applied.
    fn compare_answer<K: Child>(
        &self,
        cache: &Children<K>,
        wanted: &Value,
        hash: &str,
        answer: &K,
    ) -> Result<(), Problem> {
        let value = to_value(answer)?;
        let uid = answer.uid().unwrap_or_default();
        match first_difference(wanted, &value) {
            Some(path) => {
                tracing::warn!(kind = %K::kind(&()), name = %answer.name_any(), path, "the API server changed an applied field");
                self.mismatches.remember(uid, hash, &value);
            }
            None => {
                self.mismatches.forget(&uid);
                cache.settle(answer, hash);
            }
        }
        Ok(())
    }

    /// Deletes a child that is not wanted.
    pub(super) async fn prune<K: Child>(
        &self,
        cache: &Children<K>,
        live: Option<&Arc<K>>,
    ) -> Result<(), Problem> {
        let Some(live) = live.filter(|live| live.meta().deletion_timestamp.is_none()) else {
            return Ok(());
        };
        self.requests.delete(live.as_ref()).await?;
        cache.forget(live);
        Ok(())
    }
}

fn to_value<K: Child>(object: &K) -> Result<Value, Problem> {
    serde_json::to_value(object).map_err(|error| Problem::Api {
        verb: "encode",
        kind: K::kind(&()).into_owned(),
        message: error.to_string(),
    })
}
