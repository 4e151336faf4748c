//! What is counted of requests for inference that are counted for no model.

use super::model::{OUTCOMES, Outcome};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    outcome: Outcome,
}

/// Requests for a model that is not served, and messages that could not be read as far as the model's name. Clones
/// share their values.
#[derive(Clone, Debug)]
pub struct Unassigned([Counter; OUTCOMES.len()]);

impl Unassigned {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let requests: Family<Labels, Counter> = Family::default();
        // All are there from the start, since a rate over one that appears later would miss its first.
        let metrics = Self(OUTCOMES.map(|outcome| requests.get_or_create(&Labels { outcome }).clone()));
        registry.register("unassigned_requests", "Requests for no known model", requests);
        metrics
    }

    /// Counts a request that ended so.
    pub fn count(&self, outcome: Outcome) {
        self.0[outcome as usize].inc();
    }
}
