//! `modelservice-server optimize`: stores the optimised graph in a package, so that no start has to create it.

use crate::engine::Runtime;
use crate::package::{self, BAKED_FOLDER, Parsed};
use crate::process::exit::Fatal;
use modelservice_contract::{ExecutionProvider, ModelConfig};
use std::path::{Path, PathBuf};

/// Optimises each package for this ONNX Runtime and this machine's processor. Returns the folders of the graphs. An
/// existing graph is left as it is.
///
/// # Errors
/// What is wrong with a package, or that its folder cannot be written.
pub(super) fn optimize(packages: &[PathBuf], library: &Path) -> Result<Vec<PathBuf>, Fatal> {
    let runtime = Runtime::load(library, &ExecutionProvider::default())?;
    let bake = |folder: &PathBuf| {
        let name = folder.display().to_string();
        let config = ModelConfig {
            path: name.clone(),
            name,
            ..ModelConfig::default()
        };
        let Parsed { package, onnx } = package::open(&config)?;
        runtime.bake(&package, onnx.unwrap_or_default(), &folder.join(BAKED_FOLDER))
    };
    packages.iter().map(bake).collect()
}
