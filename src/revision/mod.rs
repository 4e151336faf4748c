//! Revision: one immutable combination of model, runtime and settings. Its name, what its Deployment says about it,
//! and the pod template that was frozen when it was created. Pure.

mod canonical;
mod child;
mod claim;
mod deployment;
mod fallbacks;
mod hash;
mod quantity;
mod shape;
mod source;
mod template;

pub use child::{is_made_by, is_ours, placement_of, revision_of, selected_by};
pub use claim::{claimed_devices, freeze_claim, frozen_claim};
pub use deployment::{condition, exceeds_quota, is_available, number, refused_pods, wanted_replicas};
pub use fallbacks::{Fallback, count_fallbacks, freeze_fallbacks, frozen_fallbacks};
pub use hash::{asked_for, hash, hash_of_key, name};
pub use quantity::thousandths;
pub use source::{FrozenSource, Source, pinned, recreated};
pub use template::{Images, freeze, frozen_template, pod_labels};

#[cfg(test)]
mod tests;
