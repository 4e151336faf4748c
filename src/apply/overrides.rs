//! Overrides: fields of children that others set again whenever the operator corrects them, and fields that admission
//! changes in every write. Correcting them at once would never end, so the operator waits, longer each time. This is not
//! a source of truth: after a restart, counting begins anew.

use super::{difference::Difference, field::Field};
use crate::{crd::ModelService, observe::until_next};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

/// How many times a field is corrected at once.
const AT_ONCE: u32 = 2;
const FIRST_WAIT: SignedDuration = SignedDuration::from_secs(2);
const LONGEST_WAIT: SignedDuration = SignedDuration::from_mins(5);
/// A correction that lasts this long ends the dispute: the next one is made at once.
const OVER: SignedDuration = SignedDuration::from_mins(10);
/// A field whose correction lasts this long is no longer reported as disputed.
const CALM: SignedDuration = SignedDuration::from_secs(30);

/// Disputed fields of every service's children, by the service's UID.
#[derive(Debug, Default)]
pub struct Overrides(Mutex<HashMap<String, BTreeMap<Place, Dispute>>>);

/// A child in one pass.
pub(super) struct Subject<'a> {
    pub service: &'a ModelService,
    pub kind: &'a str,
    pub name: &'a str,
    pub now: Timestamp,
}

/// A field of a child.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    kind: String,
    name: String,
    field: Field,
}

#[derive(Debug)]
struct Dispute {
    /// Hash of what we want.
    wanted: String,
    /// Generation of the service's spec that wanted it.
    generation: Option<i64>,
    corrections: u32,
    /// When it was last corrected.
    last: Timestamp,
    /// Whether the field was different when it was last looked at.
    is_open: bool,
    by: By,
    /// The number of corrections after which the operator last asked who sets it.
    asked_after: u32,
}

/// Who sets a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// A field manager.
    Manager(String),
    /// An admission policy or webhook, in our own writes.
    Admission,
    /// Unknown.
    Unknown,
}

/// A field that is not as it was applied, because of somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// Kind of the child.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Path of the field; empty for the child itself, which somebody deletes.
    pub field: String,
    /// Who sets it.
    pub by: By,
    /// Whether it is as applied at this moment, having just been corrected.
    pub is_corrected: bool,
}

impl Overrides {
    /// Whether what differs is left as it is for now.
    pub(super) fn holds(&self, subject: &Subject<'_>, differing: &[Difference]) -> bool {
        let mut all = self.0.lock();
        let Some(disputes) = all.get_mut(&subject.uid()) else {
            return false;
        };
        disputes.retain(|place, dispute| {
            if subject.is_of(place) {
                dispute.is_open = differing.iter().any(|differing| differing.field == place.field);
            }
            dispute.is_open || !dispute.is_over(subject.now)
        });
        // Our annotations change along with everything else: they matter only if nothing else differs.
        let only_annotations = differing.iter().all(|differing| differing.field.is_annotation());
        let mut decisive = differing
            .iter()
            .filter(|differing| only_annotations || !differing.field.is_annotation());
        !differing.is_empty()
            && decisive.all(|differing| {
                let place = subject.place(&differing.field);
                let known = disputes.get(&place);
                known.is_some_and(|dispute| dispute.holds(&place, differing, subject))
            })
    }

    /// Counts a correction, unless it carries out a new spec: nobody disputes that.
    pub(super) fn corrected(&self, subject: &Subject<'_>, differing: &[Difference]) {
        let told = subject.service.status.as_ref();
        let told = told.and_then(|status| status.observed_generation);
        let mut all = self.0.lock();
        if told != subject.service.metadata.generation {
            let disputes = all.get_mut(&subject.uid()).into_iter().flatten();
            let corrected = disputes.filter(|(place, _)| subject.is_of(place));
            corrected.for_each(|(_, dispute)| dispute.is_open = false);
            return;
        }
        all.retain(|_, disputes| {
            disputes.retain(|_, dispute| dispute.is_open || !dispute.is_over(subject.now));
            !disputes.is_empty()
        });
        let disputes = all.entry(subject.uid()).or_default();
        for differing in differing {
            let place = subject.place(&differing.field);
            let fresh = || Dispute::new(differing, subject);
            let dispute = disputes.entry(place).or_insert_with(fresh);
            if dispute.wanted != differing.wanted || dispute.is_over(subject.now) {
                *dispute = fresh();
            }
            dispute.generation = subject.service.metadata.generation;
            dispute.corrections = dispute.corrections.saturating_add(1);
            dispute.last = subject.now;
            dispute.is_open = false;
        }
    }

    /// Records how the API server's answer to a write differs from what was written.
    pub(super) fn answered(&self, subject: &Subject<'_>, differing: &[Difference]) {
        let mut all = self.0.lock();
        let disputes = all.entry(subject.uid()).or_default();
        disputes.retain(|place, dispute| !subject.is_of(place) || dispute.by != By::Admission);
        for differing in differing {
            let dispute = Dispute {
                is_open: true,
                by: By::Admission,
                ..Dispute::new(differing, subject)
            };
            disputes.insert(subject.place(&differing.field), dispute);
        }
        if disputes.is_empty() {
            all.remove(&subject.uid());
        }
    }

    /// Disputed fields of a child for which the operator has yet to find out who sets them.
    pub(super) fn to_be_asked(&self, subject: &Subject<'_>) -> Vec<Field> {
        let mut all = self.0.lock();
        let disputes = all.get_mut(&subject.uid()).into_iter().flatten();
        disputes
            .filter(|(place, dispute)| subject.is_of(place) && dispute.is_open)
            .filter(|(_, dispute)| dispute.by != By::Admission && dispute.asked_after < dispute.corrections)
            .map(|(place, dispute)| {
                dispute.asked_after = dispute.corrections;
                place.field.clone()
            })
            .collect()
    }

    /// Remembers who sets a field.
    pub(super) fn set_by(&self, subject: &Subject<'_>, field: &Field, manager: String) {
        let mut all = self.0.lock();
        let disputes = all.get_mut(&subject.uid());
        if let Some(dispute) = disputes.and_then(|disputes| disputes.get_mut(&subject.place(field))) {
            dispute.by = By::Manager(manager);
        }
    }

    /// Forgets a child that we deleted.
    pub(super) fn forget_child(&self, subject: &Subject<'_>) {
        if let Some(disputes) = self.0.lock().get_mut(&subject.uid()) {
            disputes.retain(|place, _| !subject.is_of(place));
        }
    }

    /// Forgets a service that was deleted.
    pub fn forget(&self, uid: &str) {
        self.0.lock().remove(uid);
    }

    /// What others set otherwise, in a fixed order.
    pub(super) fn of(&self, service: &ModelService, now: Timestamp) -> Vec<Override> {
        let all = self.0.lock();
        let disputes = all.get(&service.uid().unwrap_or_default()).into_iter().flatten();
        disputes
            .filter(|(_, dispute)| dispute.is_told(now))
            .map(|(place, dispute)| Override {
                kind: place.kind.clone(),
                name: place.name.clone(),
                field: place.field.to_string(),
                by: dispute.by.clone(),
                is_corrected: !dispute.is_open,
            })
            .collect()
    }

    /// When to look again although nothing happens: to correct a field, or to stop reporting it as disputed.
    #[must_use]
    pub fn look_again(&self, service: &ModelService, now: Timestamp) -> Option<SignedDuration> {
        let all = self.0.lock();
        let disputes = all.get(&service.uid().unwrap_or_default()).into_iter().flatten();
        let times = disputes.filter_map(|(place, dispute)| dispute.next(place, now));
        until_next(times, now)
    }
}

impl Subject<'_> {
    fn uid(&self) -> String {
        self.service.uid().unwrap_or_default()
    }

    fn place(&self, field: &Field) -> Place {
        Place {
            kind: self.kind.to_owned(),
            name: self.name.to_owned(),
            field: field.clone(),
        }
    }

    fn is_of(&self, place: &Place) -> bool {
        place.kind == self.kind && place.name == self.name
    }
}

impl Dispute {
    fn new(differing: &Difference, subject: &Subject<'_>) -> Self {
        Self {
            wanted: differing.wanted.clone(),
            generation: subject.service.metadata.generation,
            corrections: 0,
            last: subject.now,
            is_open: false,
            by: By::Unknown,
            asked_after: 0,
        }
    }

    /// When the next correction is made. A pod template that admission changes is left as it is: each write might change
    /// it in a different way and replace the pods.
    fn due(&self, place: &Place) -> Option<Timestamp> {
        match self.by {
            By::Admission if place.field.is_template() => None,
            By::Admission => Some(self.last + LONGEST_WAIT),
            By::Manager(_) | By::Unknown => Some(self.last + self.wait()),
        }
    }

    /// How long after the last correction the next one is made, if admission does not interfere.
    fn wait(&self) -> SignedDuration {
        match self.corrections.checked_sub(AT_ONCE) {
            None => SignedDuration::ZERO,
            Some(further) => {
                let factor = 2_i32.saturating_pow(further);
                FIRST_WAIT
                    .checked_mul(factor)
                    .map_or(LONGEST_WAIT, |wait| wait.min(LONGEST_WAIT))
            }
        }
    }

    /// A person's change of the spec does not wait.
    fn holds(&self, place: &Place, differing: &Difference, subject: &Subject<'_>) -> bool {
        self.wanted == differing.wanted
            && self.generation == subject.service.metadata.generation
            && self.due(place).is_none_or(|due| subject.now < due)
    }

    fn is_over(&self, now: Timestamp) -> bool {
        self.by == By::Admission || now > self.last + OVER
    }

    fn is_told(&self, now: Timestamp) -> bool {
        if self.is_open {
            self.by == By::Admission || self.corrections >= AT_ONCE
        } else {
            self.corrections > AT_ONCE && now < self.calm_at()
        }
    }

    fn calm_at(&self) -> Timestamp {
        self.last + self.wait().min(CALM)
    }

    fn next(&self, place: &Place, now: Timestamp) -> Option<Timestamp> {
        let next = if self.is_open {
            self.due(place)?
        } else {
            self.calm_at()
        };
        self.is_told(now).then_some(next)
    }
}

impl fmt::Display for Override {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            name,
            field,
            by,
            is_corrected: _,
        } = self;
        write!(formatter, "{kind} {name}: ")?;
        let who = match by {
            By::Admission => return write!(formatter, "an admission policy or webhook changes {field}"),
            By::Manager(manager) => format!("\"{manager}\""),
            By::Unknown => "somebody".to_owned(),
        };
        if field.is_empty() {
            write!(
                formatter,
                "{who} deletes it, or takes its labels, each time that the operator makes it"
            )
        } else {
            write!(
                formatter,
                "{who} changes {field} each time that the operator corrects it"
            )
        }
    }
}

#[cfg(test)]
mod tests;
