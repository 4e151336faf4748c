//! What sessions of a model are created from: the package's own file, or the graph that ONNX Runtime has optimised,
//! whose weights all sessions share.
//!
//! Initialisers that are passed in (`AddInitializer`) are shared: every session uses the same tensor, and the weights
//! that kernels repack go into one container. Initialisers that are read from a file are copied into each session.

use super::cache::{self, Entry};
use crate::onnx;
use crate::package::{ExternalFile, Package};
use crate::tensor::ALIGNMENT;
use bytes::Bytes;
use ndarray::{Array1, s};
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, PrepackedWeights, SessionBuilder};
use ort::value::{DynValue, PrimitiveTensorElementType, Tensor};
use prost::Message as _;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

/// Initialisers smaller than this stay in the graph, in bytes.
const SMALLEST_SHARED: usize = 1024;
/// A folder that does not exist.
const NOWHERE: &str = "/nonexistent";

/// What sessions are created from.
pub(crate) enum Source {
    /// `model.onnx` and the files that it names.
    Original {
        model: Bytes,
        external: Vec<ExternalFile>,
        /// Copies of the files that ONNX Runtime can only read from a folder.
        copies: Option<Arc<TempDir>>,
        /// The graph leaves sizes open, besides the number of rows.
        any_size: bool,
    },
    /// An optimised graph. ONNX Runtime requires the weights file in the folder, although it reads only the weights
    /// of conditions and loops from it.
    Optimised {
        graph: Bytes,
        weights: Vec<(String, Arc<DynValue>)>,
        /// The weights that kernels repack, if all kernels of the graph can share them.
        prepacked: Option<PrepackedWeights>,
        folder: PathBuf,
        /// As above.
        any_size: bool,
    },
}

impl Source {
    /// The package's files.
    ///
    /// # Errors
    /// When files that ONNX Runtime must read from a folder cannot be copied to one.
    pub(crate) fn original(package: &Package, onnx: &onnx::Model) -> io::Result<Self> {
        Ok(Self::Original {
            model: package.model.clone(),
            external: package.external.clone(),
            copies: copies(&onnx.inner_files(), &package.external)?.map(Arc::new),
            any_size: onnx.graph.as_ref().is_some_and(onnx::Graph::has_any_size),
        })
    }

    /// A graph from the cache; `None` if its weights cannot be shared, or are not in the entry's file.
    pub(crate) fn optimised(entry: Entry) -> Option<Self> {
        let model = onnx::Model::read(entry.graph.clone()).ok()?;
        if model
            .external_files()
            .iter()
            .any(|name| name != cache::WEIGHTS_FILE)
        {
            return None;
        }
        let graph = model.graph?;
        let any_size = graph.has_any_size();
        let shared = graph.initializers.into_iter().filter(onnx::Tensor::is_external);
        let weights: Option<Vec<_>> = shared
            .map(|one| {
                let elements = entry.weights.get(one.range()?)?;
                let weight = weight(one.data_type, &one.dims, elements)?;
                Some((onnx::text(&one.name), Arc::new(weight)))
            })
            .collect();
        Some(Self::Optimised {
            graph: entry.graph,
            weights: weights?,
            prepacked: Some(PrepackedWeights::new()),
            folder: entry.folder,
            any_size,
        })
    }

    /// Creates a session.
    pub(crate) fn session(&self, mut builder: SessionBuilder) -> ort::Result<Session> {
        if self.has_any_size() {
            // It would keep a plan for each combination of sizes that there was.
            builder = builder.with_memory_pattern(false)?;
        }
        match self {
            Self::Original {
                model,
                external,
                copies,
                ..
            } => {
                for ExternalFile { name, bytes, .. } in external {
                    builder = builder.with_external_initializer_file_in_memory(name, Arc::clone(bytes))?;
                }
                let folder = copies.as_ref().map_or(Path::new(NOWHERE), |copies| copies.path());
                with_folder(builder, folder)?.commit_from_memory(model)
            }
            Self::Optimised {
                graph,
                weights,
                prepacked,
                folder,
                ..
            } => {
                builder = builder.with_optimization_level(GraphOptimizationLevel::Disable)?;
                if let Some(prepacked) = prepacked {
                    builder = builder.with_prepacked_weights(prepacked)?;
                }
                for (name, weight) in weights {
                    builder = builder.with_initializer(name, Arc::clone(weight))?;
                }
                with_folder(builder, folder)?.commit_from_memory(graph)
            }
        }
    }

    /// The same, without sharing repacked weights: kernels for quantised convolutions cannot share them.
    pub(crate) fn without_packed(self) -> Self {
        match self {
            Self::Optimised {
                graph,
                weights,
                folder,
                any_size,
                ..
            } => Self::Optimised {
                graph,
                weights,
                prepacked: None,
                folder,
                any_size,
            },
            original @ Self::Original { .. } => original,
        }
    }

    /// Optimises the package's graph and writes it into a folder.
    pub(crate) fn optimise(&self, builder: SessionBuilder, folder: &Path) -> ort::Result<()> {
        let builder = builder
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_optimized_model_path(folder.join(cache::GRAPH_FILE))?
            .with_config_entry(
                "session.optimized_model_external_initializers_file_name",
                cache::WEIGHTS_FILE,
            )?
            .with_config_entry(
                "session.optimized_model_external_initializers_min_size_in_bytes",
                SMALLEST_SHARED.to_string(),
            )?;
        self.session(builder).map(drop)
    }

    /// The package's graph; `None` for an optimised one.
    pub(crate) fn original_graph(&self) -> Option<onnx::Graph> {
        match self {
            Self::Original { model, .. } => onnx::Model::read(model.clone()).ok()?.graph,
            Self::Optimised { .. } => None,
        }
    }

    /// The package's files with these values as further outputs, of whatever type; `None` for an optimised graph.
    pub(crate) fn with_outputs(&self, names: impl Iterator<Item = String>) -> Option<Self> {
        let Self::Original {
            model,
            external,
            copies,
            ..
        } = self
        else {
            return None;
        };
        let port = |name: String| onnx::Port {
            name: name.into(),
            r#type: None,
        };
        let graph = onnx::Graph {
            outputs: names.map(port).collect(),
            ..onnx::Graph::default()
        };
        let added = onnx::Model {
            graph: Some(graph),
            ..onnx::Model::default()
        };
        // Messages that follow each other are one message, whose lists are theirs together.
        let both = [&model[..], &added.encode_to_vec()].concat();
        Some(Self::Original {
            model: both.into(),
            external: external.clone(),
            copies: copies.clone(),
            any_size: true,
        })
    }

    const fn has_any_size(&self) -> bool {
        match self {
            Self::Original { any_size, .. } | Self::Optimised { any_size, .. } => *any_size,
        }
    }

    /// The cache entry that it comes from.
    pub(crate) fn folder(&self) -> Option<&PathBuf> {
        match self {
            Self::Optimised { folder, .. } => Some(folder),
            Self::Original { .. } => None,
        }
    }
}

/// Sets the folder in which ONNX Runtime looks for files that a model names and that were not passed in; without a
/// folder it would look in the working directory, which in a container is `/`.
fn with_folder(builder: SessionBuilder, folder: &Path) -> ort::Result<SessionBuilder> {
    let builder = builder.with_config_entry(
        "session.model_external_initializers_file_folder_path",
        folder.to_string_lossy(),
    )?;
    Ok(builder)
}

/// A folder with the named files; `None` if there are none.
fn copies(names: &BTreeSet<String>, files: &[ExternalFile]) -> io::Result<Option<TempDir>> {
    if names.is_empty() {
        return Ok(None);
    }
    let folder = tempfile::tempdir()?;
    let wanted = |file: &&ExternalFile| names.contains(&file.name);
    for ExternalFile { name, bytes, .. } in files.iter().filter(wanted) {
        let place = folder.path().join(name);
        if let Some(parent) = place.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(place, bytes)?;
    }
    Ok(Some(folder))
}

/// A tensor with a copy of these elements; `None` for a type that is not shared. It is aligned to cache lines: ONNX
/// Runtime's convolutions take 6 to 8 % longer with unaligned weights. We own its memory, because sessions share only
/// memory that they do not own.
#[must_use]
pub fn weight(data_type: i32, dims: &[i64], bytes: &[u8]) -> Option<DynValue> {
    fn typed<T: PrimitiveTensorElementType + bytemuck::AnyBitPattern + bytemuck::NoUninit + Debug>(
        dims: &[i64],
        bytes: &[u8],
    ) -> Option<DynValue> {
        let size = size_of::<T>();
        let shape: Vec<usize> = dims
            .iter()
            .map(|&dim| usize::try_from(dim).ok())
            .collect::<Option<_>>()?;
        let count = bytes.len() / size;
        let room = vec![T::zeroed(); count + ALIGNMENT / size];
        let start = room.as_ptr().align_offset(ALIGNMENT);
        // Unlike a `Vec`, an array may begin anywhere in its allocation.
        let mut array = Array1::from_vec(room).slice_move(s![start..start + count]);
        let elements: &mut [u8] = bytemuck::cast_slice_mut(array.as_slice_mut()?);
        if elements.len() != bytes.len() {
            return None;
        }
        elements.copy_from_slice(bytes);
        let array = array.into_shape_with_order(shape).ok()?;
        Tensor::from_array(array).ok().map(Tensor::into_dyn)
    }
    // `TensorProto.DataType`.
    match data_type {
        1 => typed::<f32>(dims, bytes),
        2 => typed::<u8>(dims, bytes),
        3 => typed::<i8>(dims, bytes),
        4 => typed::<u16>(dims, bytes),
        5 => typed::<i16>(dims, bytes),
        6 => typed::<i32>(dims, bytes),
        7 => typed::<i64>(dims, bytes),
        10 => typed::<half::f16>(dims, bytes),
        11 => typed::<f64>(dims, bytes),
        12 => typed::<u32>(dims, bytes),
        13 => typed::<u64>(dims, bytes),
        16 => typed::<half::bf16>(dims, bytes),
        _ => None,
    }
}
