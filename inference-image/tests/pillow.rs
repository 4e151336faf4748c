//! Pre-processing agrees with Pillow, with which most models are trained, and without antialiasing with OpenCV.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use modelservice_server::engine::Port;
use modelservice_server::image::Pipeline;
use modelservice_server::package::manifest;
use modelservice_server::tensor::{DataType, InputError, InputProblem};
use serde_json::Value;
use support::{example, floats, image};

const PHOTOS: [&str; 3] = ["cat", "coffee", "flower"];

/// Differences between our input tensor and the reference, in steps of the 8-bit pixels.
fn differences(package: &str, image: &str, size: i64, step: f32, name: &str) -> Vec<f32> {
    let manifest = support::manifest(package);
    let port = Port::new("images", DataType::Fp32, vec![-1, 3, size, size]);
    let pipeline = Pipeline::new(&manifest.preprocessing, &port, 1 << 24).unwrap();
    let tensor = pipeline.tensor(&std::fs::read(example(image)).unwrap()).unwrap();
    let values = tensor.elements::<f32>().unwrap();
    let reference = floats(&example(&format!("reference/{package}/{name}.tensor")));
    assert_eq!(values.len(), reference.len());
    values
        .iter()
        .zip(reference)
        .map(|(value, expected)| (value - expected).abs() / step)
        .collect()
}

fn largest(differences: &[f32]) -> f32 {
    differences.iter().copied().fold(0.0, f32::max)
}

fn mean(differences: &[f32]) -> f32 {
    differences.iter().sum::<f32>() / differences.len() as f32
}

/// The same pixels give the same tensor, except for the last bit of a few roundings.
#[test]
fn resizing_cropping_and_normalising_are_pillows() {
    for name in PHOTOS {
        for (package, size, step) in [
            ("efficientnet-lite0", 224, 1.0 / 128.0),
            ("tiny", 32, 1.0 / 127.5),
            ("colors", 16, 1.0 / 255.0),
        ] {
            for image in [format!("reference/{name}.png"), format!("photos/{name}.jpg")] {
                let differences = differences(package, &image, size, step, name);
                let (mean, largest) = (mean(&differences), largest(&differences));
                assert!(
                    largest < 1.01 && mean < 0.02,
                    "{package}: {image}: mean {mean}, largest {largest}"
                );
            }
        }
    }
}

/// The pixels of an image as seen by a model that takes them unchanged.
fn pixels(preprocessing: &str, channels: i64, bytes: &[u8]) -> (Vec<i64>, Vec<u8>) {
    try_pixels(preprocessing, channels, bytes).unwrap()
}

fn try_pixels(preprocessing: &str, channels: i64, bytes: &[u8]) -> Result<(Vec<i64>, Vec<u8>), InputError> {
    let text =
        format!("task: image-classification\nlabels: [a]\npreprocessing: {{layout: NHWC, {preprocessing}}}");
    let port = Port::new("images", DataType::Uint8, vec![-1, -1, -1, channels]);
    let steps = manifest::parse(&text).unwrap().preprocessing;
    let tensor = Pipeline::new(&steps, &port, 1 << 24).unwrap().tensor(bytes)?;
    Ok((tensor.shape().to_vec(), tensor.elements::<u8>().unwrap().to_vec()))
}

/// Mean and largest difference.
fn compare(ours: &[u8], theirs: &[u8]) -> (f64, u8) {
    assert_eq!(ours.len(), theirs.len());
    let differences = ours.iter().zip(theirs).map(|(a, b)| a.abs_diff(*b));
    let sum: f64 = differences.clone().map(f64::from).sum();
    (sum / ours.len() as f64, differences.max().unwrap_or(0))
}

/// How far the mean and the largest difference from Pillow's pixels may go. Pillow does not round when it converts five
/// bits to eight; everything else is exact.
fn tolerance(name: &str) -> (f64, u8) {
    if name == "sixteen-bit.bmp" {
        (0.6, 1)
    } else {
        (0.0, 0)
    }
}

fn list(name: &str) -> Vec<Value> {
    serde_json::from_str(&std::fs::read_to_string(image(name)).unwrap()).unwrap()
}

/// What is wrong with an image of a list, if anything is.
fn difference(entry: &Value) -> Option<String> {
    let name = entry["name"].as_str().unwrap();
    let (shape, ours) = match try_pixels("", 3, &std::fs::read(image(name)).unwrap()) {
        Ok(pixels) => pixels,
        Err(error) => return Some(format!("{name}: {error}")),
    };
    let (width, height) = (
        entry["width"].as_i64().unwrap(),
        entry["height"].as_i64().unwrap(),
    );
    if shape != [1, height, width, 3] {
        return Some(format!("{name}: {shape:?}"));
    }
    let (mean, largest) = compare(&ours, &std::fs::read(image(&format!("{name}.rgb"))).unwrap());
    let (mean_allowed, largest_allowed) = tolerance(name);
    let wrong = mean > mean_allowed || largest > largest_allowed;
    wrong.then(|| format!("{name}: mean {mean:.3}, largest {largest}"))
}

/// If a decoder produces other pixels than those a model was trained with, results are silently wrong.
#[test]
fn every_kind_of_image_has_pillows_pixels() {
    let images = list("images.json");
    assert!(images.len() >= 120);
    let wrong: Vec<String> = images.iter().filter_map(difference).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Samplings, orders of scans, markers, IDs, restart intervals and trailing data: a file that Pillow reads may be
/// refused, if necessary, but must not be decoded differently.
#[test]
fn every_jpeg_that_a_header_can_describe_has_pillows_pixels_or_none() {
    let (images, refused) = (list("jpegs.json"), list("refused.json"));
    assert!(images.len() >= 250 && refused.len() >= 10);
    let wrong: Vec<String> = images.iter().filter_map(difference).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    for name in refused {
        let name = name.as_str().unwrap();
        let error = try_pixels("", 3, &std::fs::read(image(name)).unwrap()).unwrap_err();
        assert_eq!(error.problem, InputProblem::Unsupported, "{name}: {error}");
    }
}

#[test]
fn grey_is_pillows_luma() {
    let (_, ours) = pixels(
        "colorOrder: Gray",
        1,
        &std::fs::read(image("colour.png")).unwrap(),
    );
    assert_eq!(ours, std::fs::read(image("colour.png.grey")).unwrap());
}

/// Pillow 13 resizes in the other order, columns first, if an image becomes much flatter; earlier versions, with
/// which models were trained, never do. It makes a difference of one step in some pixels.
#[test]
fn every_filter_is_pillows() {
    for entry in list("resized.json") {
        let (width, height) = (&entry["width"], &entry["height"]);
        let name = entry["name"].as_str().unwrap();
        for filter in ["nearest", "bilinear", "bicubic", "lanczos"] {
            let steps =
                format!("resize: {{mode: stretch, width: {width}, height: {height}, filter: {filter}}}");
            let (_, ours) = pixels(&steps, 3, &std::fs::read(image(name)).unwrap());
            let theirs = std::fs::read(image(&format!("{name}.{width}x{height}.{filter}"))).unwrap();
            let (mean, largest) = compare(&ours, &theirs);
            println!("{filter} {width}x{height}: mean {mean:.3}, largest {largest}");
            let flatter = width.as_u64() > Some(67) && height.as_u64() < Some(45);
            let exact = filter != "nearest" || largest == 0;
            assert!(
                exact && largest <= 1 && (mean < 0.02 || flatter),
                "{filter} {entry}: mean {mean}, largest {largest}"
            );
        }
    }
}

/// Many models are trained with OpenCV, whose bilinear interpolation uses only four pixels.
#[test]
fn resizing_without_antialiasing_is_opencvs() {
    for entry in list("resized.json") {
        let (width, height) = (&entry["width"], &entry["height"]);
        let name = entry["name"].as_str().unwrap();
        let bytes = std::fs::read(image(name)).unwrap();
        let resize =
            |more: &str| format!("resize: {{mode: stretch, width: {width}, height: {height}{more}}}");
        let (_, ours) = pixels(&resize(", antialias: false"), 3, &bytes);
        let theirs = std::fs::read(image(&format!("{name}.{width}x{height}.linear"))).unwrap();
        let (mean, largest) = compare(&ours, &theirs);
        println!("{width}x{height}: mean {mean:.3}, largest {largest}");
        assert!(
            largest <= 1 && mean < 0.2,
            "{entry}: mean {mean}, largest {largest}"
        );
        let (_, smooth) = pixels(&resize(""), 3, &bytes);
        let half = width.as_u64() < Some(30);
        assert!(
            !half || compare(&smooth, &theirs).1 > 1,
            "{entry}: antialiasing makes no difference"
        );
    }
}
