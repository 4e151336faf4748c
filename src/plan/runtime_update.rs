//! Whether a new revision would run with something other than the present one, which never changes by itself. Pure.

use super::{claim, runtime::DefaultRuntime, template};
use crate::{
    crd::{CLASS_ANNOTATION, RUNTIME_VERSION_ANNOTATION},
    observe::Observed,
    revision::{FrozenSource, frozen_claim, frozen_template},
    validate::{Target, ValidatedService},
};
use kube::ResourceExt as _;

/// What a new revision would run with, if that differs from the frozen template.
pub(super) fn runtime_update(
    service: &ValidatedService,
    observed: &Observed,
    runtime: &DefaultRuntime,
) -> Option<String> {
    let Target::Existing(live) = &service.target else {
        return None;
    };
    let class = observed.classes.get(live.annotations().get(CLASS_ANNOTATION)?)?;
    let frozen = frozen_template(live).ok()?;
    // Its source stays: the version was found once, and so was the way to the servers.
    let source = FrozenSource::of_template(&frozen)?.source;
    let mut fresh = template::template(service, class, &source, runtime);
    template::keep_startup_deadline(&mut fresh, &frozen);
    let claimed = frozen_claim(live, &frozen, observed.claim_template(&live.name_any())).ok()?;
    if fresh == frozen && claimed == claim::claim(service, class) {
        return None;
    }
    let (was, is) = (template::runtime_image(&frozen), template::runtime_image(&fresh));
    let made_by = live
        .annotations()
        .get(RUNTIME_VERSION_ANNOTATION)
        .map_or("an unknown version", |v| v);
    let what = if was == is {
        format!(
            "the pod template made by {made_by} differs from that of {}",
            runtime.version
        )
    } else {
        format!("this revision runs {was}, but a new one would run {is}")
    };
    Some(format!(
        "{what}; set spec.adoptRuntime to \"{}\" to switch to it",
        runtime.version
    ))
}
