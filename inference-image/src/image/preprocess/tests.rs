//! Pre-processing as a whole; agreement with Pillow is in tests/pillow.rs.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::package::manifest::{Manifest, parse};
use crate::tensor::DataType;

fn manifest(preprocessing: &str) -> Manifest {
    parse(&format!(
        "task: image-classification\nlabels: [a]\npreprocessing: {preprocessing}\n"
    ))
    .unwrap()
}

fn input(datatype: DataType, shape: &[i64]) -> Port {
    Port::new("images", datatype, shape)
}

fn pipeline(preprocessing: &str, input: &Port) -> Result<Pipeline, String> {
    let pipeline = Pipeline::new(&manifest(preprocessing).preprocessing, input, 1 << 20);
    pipeline.map_err(|problems| problems.to_string())
}

fn png(width: u32, height: u32, rgb: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = ::png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(::png::ColorType::Rgb);
    encoder.write_header().unwrap().write_image_data(rgb).unwrap();
    bytes
}

/// Two pixels: (10, 20, 30) and (40, 50, 60).
fn two_pixels() -> Vec<u8> {
    png(2, 1, &[10, 20, 30, 40, 50, 60])
}

#[test]
fn channels_are_ordered_laid_out_and_normalised_as_said() {
    let nchw = input(DataType::Fp32, &[-1, 3, 1, 2]);
    let tensor = pipeline("{mean: [10, 20, 30], std: [2]}", &nchw)
        .unwrap()
        .tensor(&two_pixels())
        .unwrap();
    assert_eq!(
        tensor.elements::<f32>().unwrap(),
        [0.0, 15.0, 0.0, 15.0, 0.0, 15.0]
    );

    let nhwc = input(DataType::Uint8, &[1, 1, 2, 3]);
    let tensor = pipeline("{layout: NHWC, colorOrder: BGR}", &nhwc)
        .unwrap()
        .tensor(&two_pixels())
        .unwrap();
    assert_eq!(tensor.elements::<u8>().unwrap(), [30, 20, 10, 60, 50, 40]);
    assert_eq!(tensor.shape(), [1, 1, 2, 3]);
}

/// Half-precision models get the same values, rounded.
#[test]
fn a_half_precision_model_gets_half_precision() {
    let tensor = pipeline("{std: [3]}", &input(DataType::Fp16, &[-1, 3, 1, 2]))
        .unwrap()
        .tensor(&two_pixels())
        .unwrap();
    let third = half::f16::from_f32(10.0 / 3.0);
    assert_eq!(tensor.elements::<half::f16>().unwrap()[0], third);
}

#[test]
fn a_batch_holds_its_images_in_order_and_says_which_does_not_fit() {
    let any = pipeline("{}", &input(DataType::Uint8, &[-1, 3, -1, -1])).unwrap();
    let (one, two) = (png(1, 1, &[1, 2, 3]), png(1, 1, &[4, 5, 6]));
    let batch = any.batch(&[&one, &two]).unwrap();
    assert_eq!(batch.shape(), [2, 3, 1, 1]);
    assert_eq!(batch.elements::<u8>().unwrap(), [1, 2, 3, 4, 5, 6]);
    let (index, error) = any.batch(&[&one, &two, &two_pixels()]).unwrap_err();
    assert!(index == 2 && error.message.contains("2×1"), "{error}");
    assert_eq!(any.fixed_size(), None);
}

#[test]
fn steps_that_do_not_fit_the_model_are_refused_at_load() {
    let square = input(DataType::Fp32, &[-1, 3, 32, 32]);
    for (preprocessing, word) in [
        ("{layout: NHWC}", "channels"),
        ("{colorOrder: Gray}", "channels"),
        ("{mean: [1, 2]}", "mean"),
        ("{std: [0]}", "std"),
        ("{scale: .inf}", "finite"),
        (
            "{resize: {mode: shortestEdge, size: 32, filter: bicubic, antialias: false}}",
            "antialias",
        ),
        ("{crop: {width: 31, height: 32}}", "31×32"),
        ("{crop: {width: 0, height: 32}}", "at least 1"),
        (
            "{resize: {mode: shortestEdge, size: 31}, crop: {width: 32, height: 32}}",
            "size",
        ),
        (
            "{resize: {mode: stretch, width: 16, height: 40}, crop: {width: 32, height: 32}}",
            "larger",
        ),
    ] {
        let problem = pipeline(preprocessing, &square).unwrap_err();
        assert!(problem.contains(word), "{preprocessing}: {problem}");
    }
    let any = input(DataType::Fp32, &[-1, 3, -1, -1]);
    for resize in [
        "mode: shortestEdge, size: 4000000000",
        "mode: stretch, width: 1, height: 2000000",
    ] {
        let problem = pipeline(&format!("{{resize: {{{resize}}}}}"), &any).unwrap_err();
        assert!(problem.contains("maxImagePixels"), "{resize}: {problem}");
    }
    let flat = input(DataType::Fp32, &[-1, 3072]);
    assert!(pipeline("{}", &flat).unwrap_err().contains("four dimensions"));
    let long = input(DataType::Int64, &[-1, 3, 32, 32]);
    assert!(pipeline("{}", &long).unwrap_err().contains("INT64"));
    let bytes = input(DataType::Uint8, &[-1, 3, 32, 32]);
    assert!(pipeline("{mean: [1]}", &bytes).unwrap_err().contains("UINT8"));
}

#[test]
fn what_is_no_image_is_refused_by_kind() {
    let pipeline = pipeline("{}", &input(DataType::Fp32, &[-1, 3, 1, 2])).unwrap();
    let problem = |bytes: &[u8]| pipeline.tensor(bytes).unwrap_err().problem;
    assert_eq!(problem(b""), InputProblem::Malformed);
    assert_eq!(problem(b"%PDF-1.7"), InputProblem::Unsupported);
    assert_eq!(problem(&two_pixels()[..50]), InputProblem::Malformed);
    assert_eq!(problem(&[0xFF, 0xD8, 0xFF, 0xE0, 0, 16]), InputProblem::Malformed);
}

/// A PNG that claims to have 60000×60000 pixels must be refused because of its header.
#[test]
fn an_image_of_too_many_pixels_is_refused_before_it_is_decoded() {
    let mut bytes = two_pixels();
    bytes[16..20].copy_from_slice(&60_000_u32.to_be_bytes());
    bytes[20..24].copy_from_slice(&60_000_u32.to_be_bytes());
    // The header's checksum is over its type and data.
    let checksum = crc32(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&checksum.to_be_bytes());
    let pipeline = pipeline("{}", &input(DataType::Fp32, &[-1, 3, -1, -1])).unwrap();
    let error = pipeline.tensor(&bytes).unwrap_err();
    assert_eq!(error.problem, InputProblem::TooLarge, "{error}");
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            if crc & 1 == 1 {
                (crc >> 1) ^ 0xEDB8_8320
            } else {
                crc >> 1
            }
        })
    })
}

#[test]
fn a_strip_does_not_grow_without_bound() {
    let bytes = png(4000, 1, &[1, 2, 3].repeat(4000));
    let pipeline = pipeline(
        "{resize: {mode: shortestEdge, size: 256}}",
        &input(DataType::Fp32, &[-1, 3, -1, -1]),
    )
    .unwrap();
    assert_eq!(
        pipeline.tensor(&bytes).unwrap_err().problem,
        InputProblem::TooLarge
    );
}

#[test]
fn a_tall_strip_is_resized_without_a_huge_image_in_between() {
    let bytes = png(1, 9000, &[1, 2, 3].repeat(9000));
    let input = input(DataType::Uint8, &[-1, 3, 200, 200]);
    let steps = manifest("{resize: {mode: stretch, width: 200, height: 200}}").preprocessing;
    let tensor = Pipeline::new(&steps, &input, 10_000 * 100)
        .unwrap()
        .tensor(&bytes)
        .unwrap();
    let values = tensor.elements::<u8>().unwrap();
    assert_eq!((values[0], values[200 * 200], values[2 * 200 * 200]), (1, 2, 3));
}

/// Whatever the bytes are, decoding returns.
#[test]
fn damaged_images_never_panic() {
    let pipeline = pipeline(
        "{resize: {mode: stretch, width: 2, height: 1}}",
        &input(DataType::Fp32, &[-1, 3, 1, 2]),
    )
    .unwrap();
    let whole = two_pixels();
    for index in 0..whole.len() {
        for bit in 0..8 {
            let mut damaged = whole.clone();
            damaged[index] ^= 1 << bit;
            let _ = pipeline.tensor(&damaged);
        }
        let _ = pipeline.tensor(&whole[..index]);
    }
}
