//! Graphs that ONNX Runtime has optimised: found in the cache, or made and kept there.

use super::cache::{self, Entry, Origin};
use super::source::Source;
use crate::engine::runtime::Runtime;
use crate::package::{BAKED_FOLDER, Package};
use crate::process::exit::Fatal;
use ort::session::Session;
use std::path::{Path, PathBuf};

/// Where optimised graphs are stored.
#[derive(Clone, Debug, Default)]
pub struct Cache {
    /// Folder for graphs that are optimised at start; without one, none are stored.
    pub path: Option<PathBuf>,
}

impl Cache {
    /// Where to look for graphs: first among those baked into the package in this folder.
    pub(crate) fn folders(&self, package: &Path) -> Vec<PathBuf> {
        let baked = package.join(BAKED_FOLDER);
        // Its name is trusted and may be a link, but it must not contain any links.
        let whole = |path: &PathBuf| path.canonicalize().unwrap_or_else(|_| path.clone());
        std::iter::once(baked)
            .chain(self.path.as_ref().map(whole))
            .collect()
    }

    /// The same, without the package's own graphs if its digest does not cover them.
    pub(crate) fn trusted_folders(&self, package: &Package) -> Vec<PathBuf> {
        let mut folders = self.folders(&package.folder);
        if !package.vouches_for_graphs() && folders.first().is_some_and(|baked| baked.exists()) {
            let baked = folders.remove(0);
            tracing::warn!(
                "the optimised graph in {} is not used: the given digest covers only model.onnx; ask for \
                 that of the whole package (modelservice-server digest FOLDER)",
                baked.display()
            );
        }
        folders
    }
}

impl Runtime {
    /// `None`, after a warning, if the graph cannot be stored: the server works without it.
    pub(crate) fn optimise(
        &self,
        original: &Source,
        origin: &Origin,
        folder: &Path,
    ) -> Result<Option<(Source, Session)>, Fatal> {
        let made = cache::write(folder, origin, |new| {
            let builder = self.builder(1)?;
            original
                .optimise(builder, new)
                .map_err(|error| self.explain(&error.to_string()))
        });
        match made {
            Ok(Ok(entry)) => Ok(self.shared(entry)),
            // Not every graph can be written, so this does not mean that the model cannot be loaded.
            Ok(Err(fatal)) => match self.session(original, 1) {
                Ok(_) => {
                    tracing::warn!("the optimised graph cannot be stored: {}", fatal.message);
                    Ok(None)
                }
                Err(fatal) => Err(fatal),
            },
            Err(error) => {
                not_kept(folder, &error);
                Ok(None)
            }
        }
    }

    /// What sessions are created from, sharing as much as the kernels of the graph can share, and the first session;
    /// `None`, after a warning, if no session can be created.
    pub(crate) fn shared(&self, entry: Entry) -> Option<(Source, Session)> {
        let folder = entry.folder.clone();
        let Some(source) = Source::optimised(entry) else {
            tracing::warn!(
                "the optimised graph in {} is not used: it has weights of a type that cannot be shared",
                folder.display()
            );
            return None;
        };
        if let Ok(session) = self.session(&source, 1) {
            return Some((source, session));
        }
        let source = source.without_packed();
        match self.session(&source, 1) {
            Ok(session) => Some((source, session)),
            Err(fatal) => {
                tracing::warn!("the optimised graph is not used: {}", fatal.message);
                None
            }
        }
    }

    pub(crate) fn origin(&self, package: &Package) -> Origin {
        Origin::new(&package.identity(), package.model.len() as u64, &self.build())
    }
}

pub(crate) fn not_kept(folder: &Path, error: &std::io::Error) {
    tracing::warn!(
        "cannot store the optimised graph in {}: {error}; each session loads its own weights",
        folder.display()
    );
}
