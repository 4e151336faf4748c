//! Source: where the model of a new revision comes from, and whether its version is known. Pure.

use crate::{
    crd::{Delivery, Model},
    observe::Observed,
    reason::Problem,
    resolution::{self, Next},
    revision::{Source, pinned},
};

/// The source of a new revision, as far as it is known.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Known {
    /// With its version.
    Source(Source),
    /// Without.
    Unresolved(Next),
}

/// The source that the spec names for a new revision.
///
/// # Errors
/// [`Problem::InvalidSpec`] for not exactly one source, or a signature that binds nothing; [`Problem::UnsupportedCluster`] for image volumes that are asked
/// for where there are none.
pub(super) fn source(observed: &Observed, revision: &str) -> Result<Known, Problem> {
    let model = &observed.service.spec.model;
    match (&model.image, &model.uri, &model.volume_claim) {
        (Some(image), None, None) => image_source(model, image, observed).map(Known::Source),
        (None, None, Some(folder)) => {
            verification_binds(model)?;
            Ok(Known::Source(Source::Claim(folder.clone())))
        }
        (None, Some(uri), None) => Ok(of_uri(observed, revision, uri)),
        // Repeats the CRD's rule: a spec may be older than it is.
        _ => Err(Problem::InvalidSpec(
            "set exactly one of image, uri and volumeClaim in spec.model".to_owned(),
        )),
    }
}

/// Whoever may write to a claim can change the package after its signature was checked: init containers do not run again
/// when a server's container restarts. The server itself checks a digest. Repeats the CRD's rule.
fn verification_binds(model: &Model) -> Result<(), Problem> {
    if model.verification.is_none() || model.digest.is_some() {
        return Ok(());
    }
    Err(Problem::InvalidSpec(
        "spec.model.verification of a volumeClaim needs spec.model.digest, which the server checks at each load: a signature \
         is checked only when a pod starts"
            .to_owned(),
    ))
}

/// How an image gets to the servers is decided now, and frozen with the revision.
fn image_source(model: &Model, image: &str, observed: &Observed) -> Result<Source, Problem> {
    match (model.delivery, &observed.cluster.no_image_volumes) {
        (Delivery::ImageVolume, Some(why)) => Err(Problem::UnsupportedCluster(format!(
            "spec.model.delivery is ImageVolume, but {why}; or set it to Auto, which fetches the image"
        ))),
        (Delivery::Fetch, _) | (Delivery::Auto, Some(_)) => Ok(Source::fetched_image(image)),
        (Delivery::ImageVolume | Delivery::Auto, None) => Ok(Source::ImageVolume(image.to_owned())),
    }
}

fn of_uri(observed: &Observed, revision: &str, uri: &str) -> Known {
    let fetched = |identity| {
        Known::Source(Source::Fetched {
            uri: uri.to_owned(),
            identity,
        })
    };
    if let Some(identity) = pinned(uri) {
        return fetched(identity);
    }
    let attempts = resolution::attempts(&observed.resolvers, revision);
    match resolution::next(&attempts, observed.now) {
        Next::Known(found) => fetched(found.identity),
        next => Known::Unresolved(next),
    }
}
