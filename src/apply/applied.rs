//! Applied: the state of the cluster after apply. Data only.

use super::overrides::Override;
use crate::{
    observe::Observed,
    plan::{Lost, rollout::Rollout},
    reason::Problem,
    revision::{revision_of, selected_by},
};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Service};
use std::sync::Arc;

/// The state of the cluster after apply: everything that a status may be computed from.
#[derive(Clone, Debug)]
pub struct Applied {
    outcome: Outcome,
    deployments: Vec<Arc<Deployment>>,
    pub(super) endpoint: Option<Arc<Service>>,
    pub(super) overrides: Vec<Override>,
    pub(super) lost: Option<Lost>,
}

/// How far apply got.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The spec cannot be met: there was no plan, and nothing was changed.
    Refused(Problem),
    /// The plan was carried out in part.
    Stopped(Problem, Decision),
    /// The plan was carried out.
    Done(Decision),
}

/// What a plan decided and a status reports.
#[derive(Clone, Debug)]
pub struct Decision {
    /// Which revision has the traffic, and the size of each revision.
    pub rollout: Rollout,
    /// What a new revision would run with, if that differs from the present one.
    pub runtime_update: Option<String>,
}

impl Applied {
    /// Nothing was applied because the spec cannot be met.
    #[must_use]
    pub fn refused(problem: Problem, observed: &Observed) -> Self {
        Self::new(Outcome::Refused(problem), observed)
    }

    /// Everything already is as planned.
    #[must_use]
    pub fn as_observed(rollout: Rollout, runtime_update: Option<String>, observed: &Observed) -> Self {
        let decision = Decision {
            rollout,
            runtime_update,
        };
        Self::new(Outcome::Done(decision), observed)
    }

    fn new(outcome: Outcome, observed: &Observed) -> Self {
        Self {
            outcome,
            deployments: observed.deployments.clone(),
            endpoint: observed.endpoint.clone(),
            overrides: Vec::new(),
            lost: None,
        }
    }

    /// The same, but the rest of the plan could not be carried out.
    #[must_use]
    pub fn stopped_by(mut self, problem: Problem) -> Self {
        self.outcome = match self.outcome {
            Outcome::Stopped(_, decision) | Outcome::Done(decision) => Outcome::Stopped(problem, decision),
            Outcome::Refused(_) => Outcome::Refused(problem),
        };
        self
    }

    /// How far apply got.
    #[must_use]
    pub const fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// What could not be done.
    #[must_use]
    pub const fn problem(&self) -> Option<&Problem> {
        match &self.outcome {
            Outcome::Refused(problem) | Outcome::Stopped(problem, _) => Some(problem),
            Outcome::Done(_) => None,
        }
    }

    /// What the plan decided, if there was one.
    #[must_use]
    pub const fn decision(&self) -> Option<&Decision> {
        match &self.outcome {
            Outcome::Refused(_) => None,
            Outcome::Stopped(_, decision) | Outcome::Done(decision) => Some(decision),
        }
    }

    /// Deployments as they are now, newest revision first.
    #[must_use]
    pub fn deployments(&self) -> &[Arc<Deployment>] {
        &self.deployments
    }

    /// The Service as it is now.
    #[must_use]
    pub const fn endpoint(&self) -> Option<&Arc<Service>> {
        self.endpoint.as_ref()
    }

    /// The revision that has the traffic: the one that the Service sends requests to, or else the one that it should.
    #[must_use]
    pub fn traffic(&self) -> Option<&str> {
        let selected = self.endpoint.as_ref().and_then(|endpoint| selected_by(endpoint));
        let exists = |revision: &&str| self.deployment(revision).is_some();
        let planned = || self.decision().map(|decision| decision.rollout.traffic.as_str());
        selected.filter(exists).or_else(planned).or(selected)
    }

    /// The Deployment of a revision as it is now.
    #[must_use]
    pub fn deployment(&self, revision: &str) -> Option<&Arc<Deployment>> {
        let mut deployments = self.deployments.iter();
        deployments.find(|deployment| revision_of(deployment.as_ref()) == Some(revision))
    }

    /// The pod that was deleted because its device is lost.
    #[must_use]
    pub const fn lost(&self) -> Option<&Lost> {
        self.lost.as_ref()
    }

    /// What others set otherwise, in a fixed order.
    #[must_use]
    pub fn overrides(&self) -> &[Override] {
        &self.overrides
    }

    pub(super) fn replace(&mut self, deployment: Arc<Deployment>) {
        match self
            .deployments
            .iter_mut()
            .find(|known| known.metadata.name == deployment.metadata.name)
        {
            Some(known) => *known = deployment,
            None => self.deployments.insert(0, deployment),
        }
    }

    pub(super) fn remove(&mut self, deployment: &Deployment) {
        self.deployments
            .retain(|known| known.metadata.uid != deployment.metadata.uid);
    }
}
