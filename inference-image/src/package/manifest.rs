//! `model.yaml`: what a package says about its model's task, labels and pre-processing. Only parses:
//! `image::classifier` decides whether it fits the model.

use super::reading::refused;
use crate::config::yaml;
use crate::process::exit::{Fatal, OnProblem, noted};
use modelservice_contract::ExitReason;
use modelservice_package::{FileError, Files, MANIFEST_FILE, Most};
use serde::Deserialize;

// The comments of these types are what editors show: package/schema.rs makes a JSON Schema of them.

/// What a model package says about its model: what it does, its labels, and how an image becomes its input.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema, serde::Serialize))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    /// What the model does.
    pub task: Task,
    /// Name of the image input; optional if the model has one input.
    #[serde(default)]
    pub input: Option<String>,
    /// Name of the output with one value per class; optional if the model has one output.
    #[serde(default)]
    pub output: Option<String>,
    /// Names of the classes, in the order of the output.
    pub labels: Labels,
    /// From a decoded image to the input tensor.
    pub preprocessing: Preprocessing,
    /// From the output tensor to the classes.
    #[serde(default)]
    pub postprocessing: Postprocessing,
}

/// What a model does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema, serde::Serialize))]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// One image in, one value per class out.
    ImageClassification,
}

/// A list of labels, or the name of a file in the package with one label per line.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema, serde::Serialize))]
#[serde(untagged)]
pub enum Labels {
    /// The labels themselves.
    Inline(Vec<String>),
    /// Name of a file of the package, with one label per line.
    // [`read`] replaces it by its lines.
    File(String),
}

impl Labels {
    /// The labels; empty until [`read`] has read the file.
    #[must_use]
    pub fn names(&self) -> &[String] {
        match self {
            Self::Inline(names) => names,
            Self::File(_) => &[],
        }
    }
}

/// From a decoded image to the input tensor, in this order.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema, serde::Serialize))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Preprocessing {
    /// How to resize; without it the image must have the size of the crop or be larger.
    #[serde(default)]
    pub resize: Option<Resize>,
    /// Size to crop from the centre; without it the whole resized image is used.
    #[serde(default)]
    pub crop: Option<Size>,
    /// Order of the channels.
    #[serde(default)]
    pub color_order: ColorOrder,
    /// Order of the dimensions.
    #[serde(default)]
    pub layout: Layout,
    /// Factor applied to each 0–255 value first; 0.00392156862745098 is 1/255.
    #[serde(default = "one")]
    pub scale: f32,
    /// Subtracted after `scale`: one value per channel in `colorOrder`, or one for all.
    #[serde(default)]
    pub mean: Vec<f32>,
    /// Divisor after `mean`: one value per channel in `colorOrder`, or one for all.
    #[serde(default)]
    pub std: Vec<f32>,
}

fn one() -> f32 {
    1.0
}

fn yes() -> bool {
    true
}

/// How an image is resized.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema, serde::Serialize))]
#[serde(tag = "mode", rename_all = "camelCase", deny_unknown_fields)]
pub enum Resize {
    /// The shorter edge becomes `size` pixels, the aspect ratio stays.
    ShortestEdge {
        /// Pixels of the shorter edge.
        #[cfg_attr(test, schemars(range(min = 1)))]
        size: u32,
        /// Interpolation.
        #[serde(default)]
        filter: Filter,
        /// Antialiasing: whether all pixels count when an image is made smaller.
        #[serde(default = "yes")]
        antialias: bool,
    },
    /// Resizes to this width and height; the aspect ratio changes.
    Stretch {
        /// Width in pixels.
        #[cfg_attr(test, schemars(range(min = 1)))]
        width: u32,
        /// Height in pixels.
        #[cfg_attr(test, schemars(range(min = 1)))]
        height: u32,
        /// Interpolation.
        #[serde(default)]
        filter: Filter,
        /// Antialiasing: whether all pixels count when an image is made smaller.
        #[serde(default = "yes")]
        antialias: bool,
    },
}

impl Resize {
    /// Interpolation.
    #[must_use]
    pub const fn filter(&self) -> Filter {
        match self {
            Self::ShortestEdge { filter, .. } | Self::Stretch { filter, .. } => *filter,
        }
    }

    /// Antialiasing: whether all pixels count when an image is made smaller.
    #[must_use]
    pub const fn antialias(&self) -> bool {
        match self {
            Self::ShortestEdge { antialias, .. } | Self::Stretch { antialias, .. } => *antialias,
        }
    }
}

/// Interpolation: with antialiasing as in Pillow, without it as in OpenCV.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema, serde::Serialize))]
#[serde(rename_all = "camelCase")]
pub enum Filter {
    /// The pixel under the centre, no antialiasing.
    Nearest,
    /// Triangle filter; the default.
    #[default]
    Bilinear,
    /// Catmull-Rom (a = −0.5).
    Bicubic,
    /// Lanczos with three lobes.
    Lanczos,
}

/// Width and height in pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema, serde::Serialize))]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// Width in pixels.
    #[cfg_attr(test, schemars(range(min = 1)))]
    pub width: u32,
    /// Height in pixels.
    #[cfg_attr(test, schemars(range(min = 1)))]
    pub height: u32,
}

/// Order of the channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema, serde::Serialize))]
pub enum ColorOrder {
    /// Red, green, blue.
    #[default]
    #[serde(rename = "RGB")]
    Rgb,
    /// Blue, green, red (OpenCV's order).
    #[serde(rename = "BGR")]
    Bgr,
    /// One channel, ITU-R 601 luma.
    #[serde(rename = "Gray")]
    Gray,
}

/// Order of the dimensions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema, serde::Serialize))]
pub enum Layout {
    /// Batch, channel, height, width (PyTorch).
    #[default]
    #[serde(rename = "NCHW")]
    Nchw,
    /// Batch, height, width, channel (TensorFlow).
    #[serde(rename = "NHWC")]
    Nhwc,
}

/// From the output tensor to the classes.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema, serde::Serialize))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Postprocessing {
    /// Applied to the output; `none` if the model already ends in a softmax.
    pub activation: Activation,
    /// How many classes an answer has, best first, unless the request says otherwise.
    #[cfg_attr(test, schemars(range(min = 1)))]
    pub top_k: usize,
}

impl Default for Postprocessing {
    fn default() -> Self {
        Self {
            activation: Activation::None,
            top_k: 5,
        }
    }
}

/// Turns scores into probabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema, serde::Serialize))]
#[serde(rename_all = "camelCase")]
pub enum Activation {
    /// The output already holds probabilities.
    #[default]
    None,
    /// The output holds logits.
    Softmax,
}

/// Reads `model.yaml` and the labels file that it names; `None` if the package has no `model.yaml`, or has one with a
/// problem that has been noted.
///
/// # Errors
/// `ModelInvalid`, with the line, or `SystemError`.
pub(super) fn read(files: &Files, on_problem: &mut OnProblem<'_>) -> Result<Option<Manifest>, Fatal> {
    let Some(mut manifest) = noted(read_text(files), on_problem)?.flatten() else {
        return Ok(None);
    };
    if let Labels::File(name) = &manifest.labels
        && let Some(labels) = noted(read_labels(files, name), on_problem)?
    {
        manifest.labels = Labels::Inline(labels);
    }
    Ok(Some(manifest))
}

fn read_text(files: &Files) -> Result<Option<Manifest>, Fatal> {
    let text = match files.read(MANIFEST_FILE, Most::text()) {
        Ok(bytes) => text(MANIFEST_FILE, bytes)?,
        Err(FileError::Missing) => return Ok(None),
        Err(error) => return Err(refused(MANIFEST_FILE, error)),
    };
    let manifest = parse(&text).map_err(|problem| invalid(format!("{MANIFEST_FILE}: {problem}")))?;
    Ok(Some(manifest))
}

fn text(name: &str, bytes: Vec<u8>) -> Result<String, Fatal> {
    String::from_utf8(bytes).map_err(|_| invalid(format!("{name} is not UTF-8 text")))
}

/// Parses the text of `model.yaml`; a labels file is not read.
///
/// # Errors
/// What is wrong, and where in the text.
pub fn parse(text: &str) -> Result<Manifest, String> {
    yaml::read(text)
}

fn read_labels(files: &Files, name: &str) -> Result<Vec<String>, Fatal> {
    let shown = format!("{MANIFEST_FILE} names labels {name:?}, which");
    let bytes = files.read(name, Most::text());
    let text = text(name, bytes.map_err(|error| refused(&shown, error))?)?;
    Ok(text.lines().map(|line| line.trim_end().to_owned()).collect())
}

fn invalid(message: String) -> Fatal {
    Fatal::new(
        ExitReason::ModelInvalid,
        format!("{message} (docs/server.md lists every key of {MANIFEST_FILE})"),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SMALLEST: &str = "task: image-classification\nlabels: [cat, dog]\npreprocessing: {}\n";

    #[test]
    fn the_smallest_manifest_gets_the_defaults() {
        let manifest = parse(SMALLEST).unwrap();
        assert_eq!(manifest.labels.names(), ["cat", "dog"]);
        assert_eq!(
            manifest.postprocessing,
            Postprocessing {
                activation: Activation::None,
                top_k: 5
            }
        );
        assert_eq!(manifest.preprocessing.layout, Layout::Nchw);
        assert_eq!(manifest.preprocessing.scale, 1.0);
    }

    #[test]
    fn every_key_is_understood() {
        let manifest = parse(
            "task: image-classification\ninput: x\noutput: y\nlabels: names.txt\n\
             preprocessing:\n  resize: {mode: shortestEdge, size: 256, filter: bicubic}\n  \
             crop: {width: 224, height: 200}\n  colorOrder: BGR\n  layout: NHWC\n  scale: 0.5\n  \
             mean: [1, 2, 3]\n  std: [4]\npostprocessing: {activation: softmax, topK: 3}\n",
        )
        .unwrap();
        assert_eq!(manifest.labels, Labels::File("names.txt".into()));
        let expected = Resize::ShortestEdge {
            size: 256,
            filter: Filter::Bicubic,
            antialias: true,
        };
        assert_eq!(manifest.preprocessing.resize, Some(expected));
        assert_eq!(
            manifest.preprocessing.crop,
            Some(Size {
                width: 224,
                height: 200
            })
        );
        assert_eq!(
            manifest.postprocessing,
            Postprocessing {
                activation: Activation::Softmax,
                top_k: 3
            }
        );
    }

    // A typo must not silently give wrong results.
    #[test]
    fn an_unknown_key_is_named() {
        for (text, key) in [
            (format!("{SMALLEST}colour: RGB\n"), "colour"),
            (SMALLEST.replace("{}", "{meen: [1]}"), "did you mean `mean`?"),
            (
                SMALLEST.replace("{}", "{resize: {mode: stretch, width: 1, height: 1, sise: 2}}"),
                "unknown key `sise` at preprocessing.resize",
            ),
        ] {
            let problem = parse(&text).unwrap_err();
            assert!(problem.contains(key), "{problem}");
        }
    }

    #[test]
    fn labels_may_not_leave_the_package() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["../labels.txt", "/etc/passwd", ""] {
            let files = Files::of(folder.path()).unwrap();
            let fatal = read_labels(&files, name).unwrap_err();
            assert_eq!(fatal.reason, ExitReason::ModelInvalid);
        }
    }
}
