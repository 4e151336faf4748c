//! Which version a source has.

use crate::download::{Settings, repeat};
use crate::error::FetchError;
use crate::source::{Found, Source};
use crate::store::Beats;
use modelservice_contract::{FetchConfig, FetchReason, Resolved, SourceIdentity};

/// Opens the source that a configuration names. Only called if the source is needed.
pub type Opener<'a> = dyn Fn(&FetchConfig) -> Result<Box<dyn Source>, FetchError> + Sync + 'a;

/// How a fetch behaves.
#[derive(Clone, Debug, Default)]
pub struct Behaviour {
    /// The download.
    pub download: Settings,
    /// The locks of the cache.
    pub beats: Beats,
}

/// Finds out which version the source has.
///
/// # Errors
/// The source's.
pub async fn resolve(
    config: &FetchConfig,
    open: &Opener<'_>,
    behaviour: &Behaviour,
) -> Result<Resolved, FetchError> {
    let source = open(config)?;
    let found = find(source.as_ref(), config.identity.as_ref(), behaviour).await?;
    Ok(Resolved {
        bytes: found.bytes()?,
        objects: found.objects.len() as u64,
        identity: found.identity,
    })
}

/// Finds what the source has, of a version that is given.
pub(crate) async fn find(
    source: &dyn Source,
    version: Option<&SourceIdentity>,
    behaviour: &Behaviour,
) -> Result<Found, FetchError> {
    let settings = &behaviour.download;
    let found = repeat(&settings.retries, async || {
        let answer = tokio::time::timeout(settings.slowest.answer * 4, source.find(version)).await;
        answer.unwrap_or_else(|_| Err(FetchError::unavailable("the source did not answer in time")))
    });
    let found = found.await?;
    match version {
        Some(wanted) if *wanted != found.identity => Err(FetchError::new(
            FetchReason::SourceChanged,
            format!(
                "the source has {}, but the revision was made from {}: make a new revision, with another spec.model.refresh",
                found.identity.value, wanted.value
            ),
        )),
        _ if found.objects.is_empty() => Err(FetchError::new(
            FetchReason::NotFound,
            "the source has no objects there",
        )),
        _ => Ok(found),
    }
}
