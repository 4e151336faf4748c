//! Events: announces each transition of a service once, after its status has been written.

use crate::{
    crd::{FIELD_MANAGER, ModelService, ModelServiceStatus},
    reason::Reason,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    Client, Resource as _,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use parking_lot::Mutex;
use std::{cmp::Ordering, collections::HashMap};

/// The API's limit for a note is 1 kB.
const MAX_NOTE: usize = 1000;

/// Publishes events.
pub struct Events {
    recorder: Recorder,
    /// In which direction the load last changed a service's size, by UID.
    directions: Mutex<HashMap<String, Ordering>>,
}

impl Events {
    /// Publishes through `client`, as the operator.
    #[must_use]
    pub fn new(client: Client) -> Self {
        let instance = std::env::var("HOSTNAME").ok();
        let reporter = Reporter {
            controller: FIELD_MANAGER.to_owned(),
            instance,
        };
        Self {
            recorder: Recorder::new(client, reporter),
            directions: Mutex::default(),
        }
    }

    /// Publishes what changed from one status to the next. A failure is only logged: events are optional.
    pub async fn publish(
        &self,
        service: &ModelService,
        before: Option<&ModelServiceStatus>,
        after: &ModelServiceStatus,
    ) {
        let turned = self.turned(service, before, after);
        for event in transition(before, after)
            .into_iter()
            .chain(notices(before, after))
            .chain(turned)
        {
            if let Err(error) = self.recorder.publish(&event, &service.object_ref(&())).await {
                tracing::warn!(%error, reason = event.reason, "could not publish the event");
            }
        }
    }
}

impl Events {
    /// Announces that a pod is replaced.
    pub async fn replaced(&self, service: &ModelService, why: &str) {
        let event = Event {
            type_: EventType::Warning,
            reason: Reason::DeviceLost.as_str().to_owned(),
            note: Some(why.to_owned()),
            action: "Delete".to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, &service.object_ref(&())).await {
            tracing::warn!(%error, reason = event.reason, "could not publish the event");
        }
    }

    /// Forgets a service that was deleted.
    pub fn forget(&self, uid: &str) {
        self.directions.lock().remove(uid);
    }

    /// An event if the load changes the size in another direction than last time: a rise in ten steps is one event.
    fn turned(
        &self,
        service: &ModelService,
        before: Option<&ModelServiceStatus>,
        after: &ModelServiceStatus,
    ) -> Option<Event> {
        let (before, after) = (before?.autoscaling.as_ref()?, after.autoscaling.as_ref()?);
        let spec = service.spec.autoscaling.as_ref()?;
        let direction = after.wanted.cmp(&before.wanted);
        if direction == Ordering::Equal || !spec.target.is_load() {
            return None;
        }
        let uid = service.metadata.uid.clone()?;
        let last = self.directions.lock().insert(uid, direction);
        let reason = match direction {
            Ordering::Greater => Reason::ScalingUp,
            _ => Reason::ScalingDown,
        };
        (last != Some(direction)).then(|| Event {
            type_: EventType::Normal,
            reason: reason.as_str().to_owned(),
            note: Some(format!("from {} to {}", before.wanted, after.message)),
            action: "Scale".to_owned(),
            secondary: None,
        })
    }
}

/// Conditions that are there only while something is to be told, and do not change what else is told.
const NOTICES: &[&str] = &["Synced", "AutoscalerActive", "ModelReported", "SourceNotRetained"];

/// An event for each of these conditions that was not there before.
fn notices(before: Option<&ModelServiceStatus>, after: &ModelServiceStatus) -> Vec<Event> {
    let was_there = |type_: &str| {
        let mut conditions = before.iter().flat_map(|before| &before.conditions);
        conditions.any(|condition| condition.type_ == type_)
    };
    let conditions = after.conditions.iter();
    conditions
        .filter(|condition| NOTICES.contains(&condition.type_.as_str()) && !was_there(&condition.type_))
        .map(|condition| event(EventType::Warning, condition))
        .collect()
}

/// An event if the reason of the most important condition has changed, unless the service is still progressing.
fn transition(before: Option<&ModelServiceStatus>, after: &ModelServiceStatus) -> Option<Event> {
    let (before, after) = (before.and_then(told), told(after)?);
    let same =
        before.is_some_and(|before| is_problem(before) == is_problem(after) && before.reason == after.reason);
    if same || after.reason == Reason::Progressing.as_str() {
        return None;
    }
    let type_ = if is_problem(after) {
        EventType::Warning
    } else {
        EventType::Normal
    };
    Some(event(type_, after))
}

fn event(type_: EventType, condition: &Condition) -> Event {
    let message = &condition.message;
    let end = message
        .char_indices()
        .map(|(at, _)| at)
        .take_while(|at| *at < MAX_NOTE)
        .last()
        .unwrap_or(0);
    let note = if message.len() > MAX_NOTE {
        message[..end].to_owned()
    } else {
        message.clone()
    };
    Event {
        type_,
        reason: condition.reason.clone(),
        note: Some(note),
        action: "Reconcile".to_owned(),
        secondary: None,
    }
}

/// The most important condition: why servers are missing, even if others answer, and otherwise `Ready`.
fn told(status: &ModelServiceStatus) -> Option<&Condition> {
    let find = |types: &[&str]| {
        let mut conditions = status.conditions.iter();
        conditions.find(|condition| types.contains(&condition.type_.as_str()))
    };
    find(&["Stalled", "Reconciling"])
        .filter(|condition| condition.reason != Reason::Progressing.as_str())
        .or_else(|| find(&["Ready"]))
}

fn is_problem(condition: &Condition) -> bool {
    condition.type_ != "Ready" || condition.status != "True"
}
