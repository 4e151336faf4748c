//! Revision: one immutable combination of model, runtime and settings. What names it, what its Deployment says of
//! it, and the pod template that was frozen when it was made. Pure.

mod child;
mod deployment;
mod hash;
mod template;

pub use child::{is_ours, revision_of};
pub use deployment::{is_available, number, wanted_replicas};
pub use hash::{hash, name};
pub use template::{Images, freeze, frozen_template};
