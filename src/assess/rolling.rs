//! Rolling: what is said about a rolling update, while it goes on and after it has failed. Pure.

use super::{
    cause::Cause,
    diagnosis::{class_of, diagnose},
    verdict::Verdict,
};
use crate::{
    apply::Applied,
    observe::Observed,
    plan::rollout::Rollout,
    reason::Reason,
    revision::{recreated, wanted_replicas},
};
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt as _;

/// The verdict on a rolling update; `None` if there is none.
pub(super) fn verdict(observed: &Observed, applied: &Applied, rollout: &Rollout) -> Option<Verdict> {
    let target = applied.deployment(&rollout.target)?;
    let cause = || diagnose(observed, &rollout.target, target, class_of(observed, target));
    if rollout.gave_back.is_some() {
        return Some(gave_back(observed, rollout, target, cause()));
    }
    let rolling = rollout.rolling.as_ref()?;
    let (from, total) = (&rolling.from, rolling.total);
    let goes_on = format!(
        "{} of {total} servers are of revision {}, which replaces revision {from} one by one",
        wanted_replicas(target).min(total),
        rollout.target
    );
    Some(match cause() {
        Some(cause) => failed(
            cause.reason,
            format!("{goes_on}: {}", cause.message),
            cause.stalled,
        ),
        None if total == 1 => failed(
            Reason::ServiceInterrupted,
            format!(
                "the only server of revision {from} ends before that of revision {} starts, which needs its device \
                 (spec.rollout.strategy is Rolling): requests are not answered in between",
                rollout.target
            ),
            false,
        ),
        None => Verdict::Progressing(format!(
            "{goes_on}; meanwhile, one server less answers, for longer on a node that has to pull the images first"
        )),
    })
}

/// The verdict on a revision whose first server failed. Its pod is gone a moment later, so that what was said about it
/// stays.
fn gave_back(observed: &Observed, rollout: &Rollout, target: &Deployment, cause: Option<Cause>) -> Verdict {
    let keeps = format!("revision {} keeps serving", rollout.traffic);
    let Some(cause) = cause else {
        return said(observed, &rollout.target, &keeps).unwrap_or_else(|| {
            let name = target.name_any();
            let message = format!(
                "{} did not become ready and gave its device back; change the spec, or delete Deployment {name} to \
                 try it again{}; {keeps}",
                first_server(&rollout.target),
                recreated(observed.service.spec.model.uri.as_deref())
            );
            failed(Reason::ProgressDeadlineExceeded, message, true)
        });
    };
    let message = format!(
        "{} failed and gave its device back: {}; {keeps}",
        first_server(&rollout.target),
        cause.message
    );
    failed(cause.reason, message, true)
}

/// What was said before, if it was about the same.
fn said(observed: &Observed, target: &str, keeps: &str) -> Option<Verdict> {
    let conditions = &observed.service.status.as_ref()?.conditions;
    let stalled = conditions.iter().find(|condition| condition.type_ == "Stalled")?;
    let is_same = stalled.message.starts_with(&first_server(target)) && stalled.message.ends_with(keeps);
    let reason = Reason::ALL
        .iter()
        .find(|reason| reason.as_str() == stalled.reason)?;
    is_same.then(|| failed(*reason, stalled.message.clone(), true))
}

fn first_server(revision: &str) -> String {
    format!("the first server of revision {revision}")
}

fn failed(reason: Reason, message: String, stalled: bool) -> Verdict {
    Verdict::Failed {
        reason,
        message,
        stalled,
    }
}

#[cfg(test)]
mod tests;
