//! Inference requests that are not counted for any model.

use super::model::{OUTCOMES, Outcome};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    outcome: Outcome,
}

/// Requests for a model that is not served, and messages that could not be read up to the name of the model. Clones
/// share their values.
#[derive(Clone, Debug)]
pub struct Unassigned([Counter; OUTCOMES.len()]);

impl Unassigned {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let requests: Family<Labels, Counter> = Family::default();
        // All of them exist from the start: a rate over one that appears later would miss its first event.
        let metrics = Self(OUTCOMES.map(|outcome| requests.get_or_create(&Labels { outcome }).clone()));
        registry.register("unassigned_requests", "Requests for an unknown model", requests);
        metrics
    }

    /// Counts a request with this outcome.
    pub fn count(&self, outcome: Outcome) {
        self.0[outcome as usize].inc();
    }
}
