//! An optimised graph that is read before it is known to be wanted: while one core computes the digest of
//! `model.onnx`, another reads the graph that is probably this model's and makes the first session of it. Nothing of
//! it is used unless the digest turns out to be that of its origin.

use super::cache::{self, Origin};
use super::onnx::{Cache, Runtime};
use super::source::Source;
use crate::package::MODEL_FILE;
use ort::session::Session;
use std::path::Path;

/// A graph with its first session, of a model that is named by the origin.
pub struct Prefetched {
    pub(super) origin: Origin,
    pub(super) source: Source,
    pub(super) session: Session,
}

impl Runtime {
    /// What is probably wanted for the package in this folder; `None` if nothing is. What is wrong with it is not said
    /// here: whoever looks for it by its digest meets it again.
    #[must_use]
    pub fn prefetch(&self, folder: &Path, cache: &Cache) -> Option<Prefetched> {
        if !self.is_cpu() {
            return None;
        }
        let bytes = std::fs::metadata(folder.join(MODEL_FILE)).ok()?.len();
        let (origin, entry) = cache::guess(&cache.folders(folder), bytes, &self.build())?;
        let (source, session) = self.shared(entry)?;
        Some(Prefetched {
            origin,
            source,
            session,
        })
    }
}
