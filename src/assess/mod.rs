//! Assess: the status of a service, from what was observed and applied. Pure; `now` is passed in.
//!
//! `Available=True`: requests sent now are answered. `Ready=True`: the current spec's revision answers them.
//! `Reconciling` and `Stalled` are present only while True (kstatus). A message contains nothing that changes from
//! pass to pass, so that a rollout costs few status writes.

mod accelerator;
mod autoscaling;
mod cause;
mod claims;
mod conditions;
mod container;
mod diagnosis;
mod ended;
mod fetching;
mod model;
mod pull;
mod resolving;
mod rolling;
mod routing;
mod time;
mod verdict;

use self::{
    accelerator::accelerator,
    conditions::conditions,
    diagnosis::{class_of, diagnose, no_room},
    model::model,
    pull::patience,
    routing::{Answers, answered_by_another, answers},
    verdict::Verdict,
};
use crate::{
    apply::{Applied, Outcome},
    crd::{
        COMPONENT_LABEL, ModelServiceStatus, PLACEMENT_LABEL, REVISION_LABEL, RevisionStatus, SERVER,
        SERVICE_LABEL,
    },
    observe::{MARGIN, Observed},
    plan::{
        rollout::{Rollout, overdue_at},
        room::GivesWay,
    },
    reason::Reason,
    revision::{Images, Source, number, placement_of, revision_of, wanted_replicas},
};
use jiff::SignedDuration;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus};
use kube::ResourceExt as _;
use std::sync::Arc;

/// Computes the whole status.
#[must_use]
pub fn assess(observed: &Observed, applied: &Applied) -> ModelServiceStatus {
    let service = &observed.service;
    let previous = previous(observed);
    let rollout = applied.decision().map(|decision| &decision.rollout);
    let traffic = applied.traffic().map(str::to_owned);
    let serving = applied
        .traffic()
        .and_then(|revision| applied.deployment(revision));
    let rolling = rollout.and_then(|rollout| rollout.rolling.as_ref());
    let counted = answering(applied, serving, rolling.is_some());
    let able = counted.iter().copied().find(|able| available(Some(able)) > 0);
    let accelerator = serving.and_then(|deployment| accelerator(observed, &previous, deployment));
    let answers = answers(observed, applied, &previous, able.map(AsRef::as_ref));
    let namespace = service.namespace().unwrap_or_default();
    ModelServiceStatus {
        observed_generation: service.metadata.generation,
        conditions: conditions(
            observed,
            applied,
            &previous,
            verdict(observed, applied, &previous, &answers),
            answers,
            accelerator.as_ref(),
        ),
        url: applied
            .endpoint()
            .map(|_| format!("http://{}.{namespace}.svc", service.name_any())),
        replicas: sum(&counted, |status| status.replicas),
        ready_replicas: sum(&counted, |status| status.ready_replicas),
        autoscaling: autoscaling::status(
            observed,
            &previous,
            counted.iter().map(|deployment| wanted_replicas(deployment)).sum(),
            sum(&counted, |status| status.replicas),
        ),
        selector: traffic
            .as_ref()
            .map(|revision| selector(&service.name_any(), revision, serving, rolling.is_some())),
        model: traffic
            .as_deref()
            .and_then(|revision| model(observed, applied, &previous, revision)),
        accelerator,
        target_revision: rollout
            .map(|rollout| rollout.target.clone())
            .or(previous.target_revision),
        current_revision: traffic,
        revisions: applied.deployments().iter().filter_map(revision).collect(),
    }
}

/// Deployments whose servers get requests.
fn answering<'a>(
    applied: &'a Applied,
    serving: Option<&'a Arc<Deployment>>,
    is_rolling: bool,
) -> Vec<&'a Arc<Deployment>> {
    if is_rolling {
        applied.deployments().iter().collect()
    } else {
        serving.into_iter().collect()
    }
}

/// Selects those servers.
fn selector(service: &str, revision: &str, serving: Option<&Arc<Deployment>>, is_rolling: bool) -> String {
    if is_rolling {
        return format!("{SERVICE_LABEL}={service},{COMPONENT_LABEL}={SERVER}");
    }
    let class = serving.and_then(|serving| placement_of(serving.as_ref()));
    let class = class.map(|class| format!(",{PLACEMENT_LABEL}={class}"));
    let class = class.unwrap_or_default();
    format!("{SERVICE_LABEL}={service},{REVISION_LABEL}={revision}{class}")
}

/// When the status changes although nothing happens: when a pull that fails is told as Stalled, or an autoscaler as
/// inactive.
#[must_use]
pub fn look_again(observed: &Observed) -> Option<SignedDuration> {
    let pods = observed.pods.iter().chain(&observed.resolvers);
    let failing = pods.filter(|pod| !pod.is_terminal() && pod.fails_to_pull());
    let pulls = failing.filter_map(|pod| patience(pod, observed.now));
    let left = pulls
        .chain(autoscaling::look_again(observed))
        .chain(claims::look_again(observed))
        .min()?;
    Some(left + MARGIN)
}

/// The previous status. A status that was restored from a backup describes another object, whose children do not
/// exist.
fn previous(observed: &Observed) -> ModelServiceStatus {
    let status = observed.service.status.clone().filter(|_| !observed.is_new());
    status.unwrap_or_default().without_foreign_conditions()
}

/// How many servers of a revision could answer requests.
fn available(deployment: Option<&Arc<Deployment>>) -> i32 {
    count(deployment, |status| status.available_replicas)
}

/// Whether the cluster is as the spec says.
fn verdict(
    observed: &Observed,
    applied: &Applied,
    previous: &ModelServiceStatus,
    answers: &Answers,
) -> Verdict {
    let rollout = match applied.outcome() {
        Outcome::Refused(problem) | Outcome::Stopped(problem, _) => {
            return Verdict::Failed {
                reason: problem.reason(),
                message: problem.to_string(),
                stalled: !problem.is_transient(),
            };
        }
        Outcome::Done(decision) => &decision.rollout,
    };
    let spec = &observed.service.spec;
    let none_left = applied
        .deployments()
        .iter()
        .all(|d| count(Some(d), |status| status.replicas) == 0);
    if spec.suspend || spec.replicas == Some(0) {
        let (reason, message) = if spec.suspend {
            (
                Reason::Suspended,
                "suspended: no server is running, and requests are not answered; remove spec.suspend to \
                 resume",
            )
        } else {
            (
                Reason::ScaledToZero,
                "spec.replicas is 0: no server is running, and requests are not answered",
            )
        };
        return if none_left {
            Verdict::Ready(reason, message.to_owned())
        } else {
            Verdict::Progressing("servers are shutting down".to_owned())
        };
    }
    let another = || answered_by_another(applied, previous, &rollout.traffic);
    if let Some(message) = answers.astray().map(str::to_owned).or_else(another) {
        return Verdict::Failed {
            reason: Reason::EndpointChanged,
            message,
            stalled: true,
        };
    }
    let Some(target) = applied.deployment(&rollout.target) else {
        return resolving::verdict(observed, rollout, &keeps_serving(applied, rollout))
            .unwrap_or_else(|| Verdict::Progressing("the revision is being created".to_owned()));
    };
    if rollout.is_settled() && available(Some(target)) > 0 {
        return serving(observed, rollout, target);
    }
    unready(observed, applied, rollout, target)
}

/// The verdict on a revision that answers requests: whether it has as many servers as wanted.
fn serving(observed: &Observed, rollout: &Rollout, target: &Arc<Deployment>) -> Verdict {
    let answers = format!("revision {} answers requests", rollout.target);
    let (available, wanted) = (
        count(Some(target), |status| status.available_replicas),
        wanted_size(observed, target),
    );
    if available >= wanted {
        return Verdict::Ready(Reason::Serving, answers);
    }
    let figures = format!(
        "{available} of {wanted} servers of revision {} are available",
        rollout.target
    );
    let allowed = wanted_replicas(target);
    let (reason, message, stalled) = if allowed < wanted && available >= allowed {
        let message = format!(
            "{figures}: spec.replicas of Deployment {} is {allowed}",
            target.name_any()
        );
        (Reason::Progressing, message, false)
    } else if let Some(cause) = diagnose(observed, &rollout.target, target, class_of(observed, target)) {
        (
            cause.reason,
            format!("{figures}: {}", cause.message),
            cause.stalled,
        )
    } else {
        (Reason::Progressing, figures, false)
    };
    // A class of a list is kept although not all servers have a device: what the spec says is not what runs.
    if placement_of(target.as_ref()).is_some() && reason == Reason::Unschedulable {
        return Verdict::Failed {
            reason,
            message,
            stalled,
        };
    }
    Verdict::Incomplete {
        answers,
        reason,
        message,
        stalled,
    }
}

/// Says that another revision answers requests, if one does.
fn keeps_serving(applied: &Applied, rollout: &Rollout) -> String {
    if rollout.is_settled() || available(applied.deployment(&rollout.traffic)) == 0 {
        String::new()
    } else {
        format!("; revision {} keeps serving", rollout.traffic)
    }
}

fn unready(observed: &Observed, applied: &Applied, rollout: &Rollout, target: &Deployment) -> Verdict {
    if let Some(pod) = &rollout.waits_for {
        return ending(observed, rollout, pod);
    }
    if let Some(verdict) = rolling::verdict(observed, applied, rollout) {
        return verdict;
    }
    let active = applied.deployment(&rollout.traffic);
    let mut beside = keeps_serving(applied, rollout);
    match (&rollout.gives_way, active) {
        (Some(GivesWay { size: 0, .. }), Some(active)) => return waiting_for_room(observed, rollout, active),
        (Some(GivesWay { size, full, .. }), _) if size < full => {
            beside += &format!(
                "; there is no room for all servers of both, so revision {} has {size} of {full}",
                rollout.target
            );
        }
        _ => {}
    }
    if let Some(class) = &rollout.trial {
        beside += &format!("; AcceleratorClass \"{class}\" is being tried");
    }
    match diagnose(observed, &rollout.target, target, class_of(observed, target)) {
        Some(cause) => Verdict::Failed {
            reason: cause.reason,
            message: format!("revision {}: {}{beside}", rollout.target, cause.message),
            stalled: cause.stalled,
        },
        None => Verdict::Progressing(format!(
            "servers of revision {} are starting{beside}",
            rollout.target
        )),
    }
}

/// The verdict on a rollout whose new revision has no server, for the sake of the one that serves.
fn waiting_for_room(observed: &Observed, rollout: &Rollout, active: &Deployment) -> Verdict {
    let message = format!(
        "revision {} has no server until revision {}, which keeps serving, has room for all of its own",
        rollout.target, rollout.traffic
    );
    match no_room(observed, &rollout.traffic, active, class_of(observed, active)) {
        Some(cause) => Verdict::Failed {
            reason: cause.reason,
            message: format!("{message}: {}", cause.message),
            stalled: cause.stalled,
        },
        None => Verdict::Progressing(message),
    }
}

/// The verdict on a rollout that is waiting for a pod to terminate.
fn ending(observed: &Observed, rollout: &Rollout, pod: &str) -> Verdict {
    let message = format!(
        "revision {} starts when the servers of revision {} have stopped (spec.rollout.strategy is \
         Recreate): waiting for pod {pod}",
        rollout.target, rollout.traffic
    );
    let mut remaining = observed.remaining_pods_of(&rollout.traffic);
    let overdue = remaining
        .find(|remaining| remaining.name_any() == pod)
        .and_then(|pod| overdue_at(pod, &observed.service.spec));
    if overdue.is_some_and(|overdue| overdue <= observed.now) {
        Verdict::Failed {
            reason: Reason::ProgressDeadlineExceeded,
            message: format!(
                "{message}, which does not terminate: its node may be unreachable, or a finalizer is \
                 blocking it; see `kubectl describe pod {pod}`"
            ),
            stalled: true,
        }
    } else {
        Verdict::Progressing(message)
    }
}

/// How many servers there should be: what the spec says, or what the autoscaler wants within its range.
fn wanted_size(observed: &Observed, target: &Deployment) -> i32 {
    let spec = &observed.service.spec;
    match &spec.autoscaling {
        Some(range) if range.target.external.is_none() => {
            wanted_replicas(target).max(range.min_replicas.unwrap_or(1))
        }
        _ => spec.replicas.unwrap_or(1),
    }
}

fn sum(deployments: &[&Arc<Deployment>], field: impl Fn(&DeploymentStatus) -> Option<i32> + Copy) -> i32 {
    deployments
        .iter()
        .map(|deployment| count(Some(deployment), field))
        .sum()
}

fn count(deployment: Option<&Arc<Deployment>>, field: impl Fn(&DeploymentStatus) -> Option<i32>) -> i32 {
    deployment
        .and_then(|deployment| field(deployment.status.as_ref()?))
        .unwrap_or(0)
}

fn revision(deployment: &Arc<Deployment>) -> Option<RevisionStatus> {
    let images = Images::of(deployment);
    Some(RevisionStatus {
        name: revision_of(deployment.as_ref())?.to_owned(),
        number: number(deployment),
        model_image: images.model,
        source: images.source.and_then(|frozen| match frozen.source {
            Source::ImageVolume(_) => None,
            source => Some(source.uri()),
        }),
        replicas: wanted_replicas(deployment),
        // Servers that are being stopped do not count, which saves a write for every draining revision.
        ready_replicas: count(Some(deployment), |status| status.ready_replicas)
            .min(wanted_replicas(deployment)),
    })
}

#[cfg(test)]
mod tests;
