//! Reads an optimised graph before it is known to be the right one: while one core computes the digest of
//! `model.onnx`, another reads the graph that probably belongs to this model and creates its first session. It is
//! used only if the digest turns out to match.

use super::cache::{self, Origin};
use super::optimised::Cache;
use super::source::Source;
use crate::engine::runtime::Runtime;
use crate::package::MODEL_FILE;
use ort::session::Session;
use std::path::Path;

/// A graph with its first session, and the model it belongs to.
pub struct Prefetched {
    pub(crate) origin: Origin,
    pub(crate) source: Source,
    pub(crate) session: Session,
}

impl Runtime {
    /// The graph that is probably wanted for the package in this folder, if there is one. Problems are not reported
    /// here: the lookup by digest runs into them again.
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
