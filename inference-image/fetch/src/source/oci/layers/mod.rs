//! Which objects the layers of a manifest are: archives, or files. Pure: no client.
//!
//! - An image's layers are archives, whatever else they say.
//! - An artifact of ORAS has a layer for each file, whose path is in `org.opencontainers.image.title`; a folder is an
//!   archive that says so in `io.deis.oras.content.unpack`, with the folder's name in its entries' paths.
//! - An artifact of ModelPack (<https://github.com/modelpack/model-spec>) has a layer for each file or folder, whose media
//!   type says whether it is an archive, and whose path is in `org.cncf.model.filepath`.

use crate::{
    error::FetchError,
    source::api::{Form, Object},
};
use modelservice_contract::FetchReason;
use oci_spec::image::{Descriptor, ImageManifest};
use std::collections::BTreeSet;

/// Path of a file of ORAS.
const TITLE: &str = "org.opencontainers.image.title";
/// Whether a layer of ORAS is a folder.
const UNPACK: &str = "io.deis.oras.content.unpack";
/// Path of a file of ModelPack, under its name and under the project's earlier one.
const FILE_PATHS: [&str; 2] = ["org.cncf.model.filepath", "org.cnai.model.filepath"];
/// Beginnings of ModelPack's media types, under its name and under the project's earlier one.
const MODEL_PACK: [&str; 2] = ["application/vnd.cncf.model.", "application/vnd.cnai.model."];
/// Media types of an image's configuration.
const IMAGE_CONFIGS: [&str; 2] = [
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
];
/// Beginnings of the media types of an image's layers.
const IMAGE_LAYERS: [&str; 2] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.docker.image.rootfs.diff.tar",
];
/// A layer that stands for none.
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// Endings of the names of archives, which a file of an artifact with folders cannot have: it would be unpacked.
const ARCHIVES: [&str; 5] = [".tar", ".tar.gz", ".tgz", ".tar.zst", ".zip"];
/// More are refused: images have at most 127.
const MOST_LAYERS: usize = 10_000;

/// What a layer is.
#[derive(Debug, PartialEq, Eq)]
enum Layer {
    /// Ending of the archive's name.
    Archive(&'static str),
    /// Path in the package.
    File(String),
}

/// The objects of a manifest, in the order in which they are put into the package.
///
/// # Errors
/// `NotFound` without any; `PackageInvalid` for layers that are in no such form, or are not in the registry, or are
/// encrypted.
pub(super) fn objects(place: &str, manifest: &ImageManifest) -> Result<(Vec<Object>, Form), FetchError> {
    let invalid = |why: String| FetchError::new(FetchReason::PackageInvalid, format!("{place} {why}"));
    let is_image = IMAGE_CONFIGS.contains(&manifest.config().media_type().as_ref());
    let layers: Vec<&Descriptor> = manifest
        .layers()
        .iter()
        .filter(|layer| layer.media_type().as_ref() != EMPTY)
        .collect();
    if layers.is_empty() {
        return Err(FetchError::new(
            FetchReason::NotFound,
            format!("{place} has no files"),
        ));
    }
    if layers.len() > MOST_LAYERS {
        return Err(invalid(format!(
            "has {} layers, and at most {MOST_LAYERS} are fetched",
            layers.len()
        )));
    }
    let kinds = layers
        .iter()
        .map(|layer| kind(layer, is_image).map_err(invalid))
        .collect::<Result<Vec<_>, _>>()?;
    check_names(&kinds).map_err(invalid)?;
    let form = if kinds.iter().any(|kind| matches!(kind, Layer::Archive(_))) {
        Form::Layers
    } else {
        Form::Files
    };
    let mut objects: Vec<Object> = layers
        .iter()
        .zip(kinds)
        .enumerate()
        .map(|(number, (layer, kind))| object(number, layer, kind))
        .collect();
    if form == Form::Files {
        objects.sort_by(|one, other| one.name.cmp(&other.name));
    }
    Ok((objects, form))
}

fn kind(layer: &Descriptor, is_image: bool) -> Result<Layer, String> {
    let media_type = layer.media_type().as_ref();
    check_obtainable(layer)?;
    if is_image {
        let is_none = || {
            format!(
                "is an image with a layer of the type {media_type}, which is not a tar file, a gzipped tar file or a zstd \
                 tar file"
            )
        };
        return archive(media_type).map(Layer::Archive).ok_or_else(is_none);
    }
    if MODEL_PACK.iter().any(|prefix| media_type.starts_with(prefix)) {
        return model_pack(layer);
    }
    let title = annotation(layer, TITLE).filter(|title| !title.is_empty());
    let is_folder = annotation(layer, UNPACK) == Some("true");
    match (title, is_folder) {
        // ORAS packs folders with gzip, and lets the user name any media type.
        (Some(_), true) => Ok(Layer::Archive(archive(media_type).map_or(
            "tar.gz",
            |kind| match kind {
                "tar" => "tar.gz",
                kind => kind,
            },
        ))),
        (Some(title), false) => relative(title).map(Layer::File),
        (None, _) if IMAGE_LAYERS.iter().any(|prefix| media_type.starts_with(prefix)) => archive(media_type)
            .map(Layer::Archive)
            .ok_or_else(|| nameless(media_type)),
        (None, _) => Err(nameless(media_type)),
    }
}

fn nameless(media_type: &str) -> String {
    format!(
        "has a layer of the type {media_type} without the annotation {TITLE}, so that it is not known which file it is; push \
         the model's files with `oras push`, or with a tool for ModelPack"
    )
}

fn model_pack(layer: &Descriptor) -> Result<Layer, String> {
    let media_type = layer.media_type().as_ref();
    if let Some(kind) = archive(media_type) {
        return Ok(Layer::Archive(kind));
    }
    let path = FILE_PATHS
        .iter()
        .chain([&TITLE])
        .find_map(|key| annotation(layer, key));
    match path {
        Some(path) if media_type.ends_with(".raw") => relative(path).map(Layer::File),
        Some(_) => Err(format!(
            "has a layer of the type {media_type}, which is not one of ModelPack's"
        )),
        None => Err(format!(
            "has a layer of the type {media_type} without the annotation {}, so that it is not known which file it is",
            FILE_PATHS[0]
        )),
    }
}

/// Ending of an archive's name, from the end of its media type.
fn archive(media_type: &str) -> Option<&'static str> {
    let endings = [
        ("tar+gzip", "tar.gz"),
        ("tar.gzip", "tar.gz"),
        ("tar+zstd", "tar.zst"),
        ("tar.zstd", "tar.zst"),
        (".tar", "tar"),
    ];
    endings
        .iter()
        .find(|(ending, _)| media_type.ends_with(ending))
        .map(|(_, kind)| *kind)
}

/// Layers that a registry does not have, or that nobody can read without a key.
fn check_obtainable(layer: &Descriptor) -> Result<(), String> {
    let media_type = layer.media_type().as_ref();
    if media_type.contains("+encrypted") {
        return Err(format!(
            "has an encrypted layer ({media_type}), and the fetcher has no keys for layers; push it unencrypted"
        ));
    }
    let is_foreign = media_type.contains(".foreign.") || media_type.contains(".nondistributable.");
    if is_foreign || layer.urls().as_ref().is_some_and(|urls| !urls.is_empty()) {
        return Err(format!(
            "has a layer that is kept outside of the registry ({media_type}), which is not fetched; push it with its \
             layers"
        ));
    }
    if layer.as_digest_sha256().is_none() {
        return Err(format!(
            "has a layer with the digest {}, and only sha256 is supported",
            layer.digest()
        ));
    }
    Ok(())
}

/// A path that stays within the package.
fn relative(path: &str) -> Result<String, String> {
    let trimmed = path.trim_start_matches("./");
    let is_part = |part: &str| !matches!(part, "" | "." | "..") && !part.chars().any(char::is_control);
    if trimmed.split('/').all(is_part) && !path.contains('\\') {
        Ok(trimmed.to_owned())
    } else {
        Err(format!(
            "has a layer for the file {path:?}, which is not a path within a package"
        ))
    }
}

fn check_names(kinds: &[Layer]) -> Result<(), String> {
    let has_archives = kinds.iter().any(|kind| matches!(kind, Layer::Archive(_)));
    let mut seen = BTreeSet::new();
    for kind in kinds {
        let Layer::File(name) = kind else { continue };
        if has_archives && ARCHIVES.iter().any(|ending| name.ends_with(ending)) {
            return Err(format!(
                "has the archive {name} as a file beside folders; push its content instead"
            ));
        }
        if !seen.insert(name) {
            return Err(format!("has two layers for the file {name}; push each file once"));
        }
    }
    Ok(())
}

fn annotation<'a>(layer: &'a Descriptor, key: &str) -> Option<&'a str> {
    layer.annotations().as_ref()?.get(key).map(String::as_str)
}

fn object(number: usize, layer: &Descriptor, kind: Layer) -> Object {
    Object {
        name: match kind {
            // The order of the layers is the order of their names.
            Layer::Archive(ending) => format!("{number:04}.{ending}"),
            Layer::File(path) => path,
        },
        key: layer.digest().to_string(),
        size: Some(layer.size()),
        version: None,
        sha256: layer.as_digest_sha256().map(str::to_owned),
    }
}

#[cfg(test)]
mod tests;
