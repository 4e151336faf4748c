//! Pre-processing agrees with Pillow, with which most models are trained.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use modelservice_server::engine::Port;
use modelservice_server::package::manifest;
use modelservice_server::preprocess::Pipeline;
use modelservice_server::tensor::DataType;
use support::{example, floats};

const PHOTOS: [&str; 3] = ["cat", "coffee", "flower"];

/// Differences between our input tensor and the reference's, in steps of the 8-bit pixels.
fn differences(package: &str, image: &str, size: i64, step: f32, name: &str) -> Vec<f32> {
    let manifest = manifest::read(&example(package)).unwrap().unwrap();
    let port = Port {
        name: "images".into(),
        datatype: DataType::Fp32,
        shape: vec![-1, 3, size, size],
    };
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

/// From the same pixels comes the same tensor, but for the last bit of a few roundings.
#[test]
fn resizing_cropping_and_normalising_are_pillows() {
    for name in PHOTOS {
        let image = format!("reference/{name}.png");
        for (package, size, step) in [
            ("efficientnet-lite0", 224, 1.0 / 128.0),
            ("tiny", 32, 1.0 / 127.5),
            ("colors", 16, 1.0 / 255.0),
        ] {
            let differences = differences(package, &image, size, step, name);
            let (mean, largest) = (mean(&differences), largest(&differences));
            assert!(
                largest < 1.01 && mean < 0.02,
                "{package}: {name}: mean {mean}, largest {largest}"
            );
        }
    }
}

/// JPEG decoders may differ in how they round and how they enlarge the colour planes.
#[test]
fn jpeg_decoding_is_close_to_pillows() {
    for name in PHOTOS {
        let differences = differences(
            "efficientnet-lite0",
            &format!("photos/{name}.jpg"),
            224,
            1.0 / 128.0,
            name,
        );
        let (mean, largest) = (mean(&differences), largest(&differences));
        assert!(mean < 0.5, "{name}: mean {mean}, largest {largest}");
    }
}
