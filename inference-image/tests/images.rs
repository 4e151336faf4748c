//! Malicious images: sizes beyond any memory, files that are truncated or damaged anywhere.

// A global allocator requires unsafe code.
#![allow(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use modelservice_server::engine::Port;
use modelservice_server::image::{Pipeline, fuzz};
use modelservice_server::package::manifest;
use modelservice_server::tensor::{DataType, InputError, InputProblem, Tensor};
use serde_json::Value;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use support::image;

thread_local! {
    /// The largest allocation of this thread.
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

struct Watching;

#[global_allocator]
static ALLOCATOR: Watching = Watching;

fn watch(size: usize) {
    // Not available any more while a thread ends.
    let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(size)));
}

// SAFETY: every call is passed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        watch(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        watch(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        watch(size);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// Decodes an image of at most 64 million pixels, the default limit; returns the largest allocation on the way, too.
fn decode(bytes: &[u8]) -> (Result<Tensor, InputError>, usize) {
    let text = "task: image-classification\nlabels: [a]\npreprocessing: {layout: NHWC}";
    let port = Port::new("images", DataType::Uint8, vec![-1, -1, -1, 3]);
    let steps = manifest::parse(text).unwrap().preprocessing;
    let pipeline = Pipeline::new(&steps, &port, 64 << 20).unwrap();
    LARGEST.set(0);
    let result = pipeline.tensor(bytes);
    (result, LARGEST.get())
}

fn stored(name: &str) -> Vec<u8> {
    std::fs::read(image(name)).unwrap()
}

fn names(list: &str) -> Vec<String> {
    let list: Vec<Value> = serde_json::from_slice(&stored(list)).unwrap();
    list.iter()
        .map(|entry| entry["name"].as_str().unwrap().to_owned())
        .collect()
}

/// Replaces the bytes at a position.
fn patched(name: &str, place: usize, bytes: &[u8]) -> Vec<u8> {
    let mut image = stored(name);
    image[place..place + bytes.len()].copy_from_slice(bytes);
    image
}

/// The position right after the first occurrence.
fn after(image: &[u8], what: &[u8]) -> usize {
    let start = image
        .windows(what.len())
        .position(|window| window == what)
        .unwrap();
    start + what.len()
}

/// Images of a kilobyte that claim 60000×60000 pixels, or as many as their format allows.
fn claims() -> Vec<(&'static str, Vec<u8>)> {
    let jpeg = stored("one-pixel.jpg");
    // Marker, length, precision; then height and width.
    let frame = after(&jpeg, &[0xFF, 0xC0, 0, 17, 8]);
    let mut png = patched("one-bit.png", 16, &[0, 0, 0xEA, 0x60, 0, 0, 0xEA, 0x60]);
    let checksum = crc32(&png[12..29]).to_be_bytes();
    png[29..33].copy_from_slice(&checksum);
    let mut apng = patched("animated.png", 16, &[0, 0, 0xEA, 0x60, 0, 0, 0xEA, 0x60]);
    let checksum = crc32(&apng[12..29]).to_be_bytes();
    apng[29..33].copy_from_slice(&checksum);
    let animation = stored("animated-lossy.webp");
    // The frame's position on the canvas, then its size.
    let frame_size = after(&animation, b"ANMF") + 4 + 6;
    let inside = after(&animation, b"VP8 ") + 4 + 6;
    let mut gif = stored("animated.gif");
    let screen = 6;
    let gif_frame = screen + 4 + after(&gif[screen + 4..], &[67, 0, 45, 0]) - 4;
    gif[gif_frame..gif_frame + 4].copy_from_slice(&[0x60, 0xEA, 0x60, 0xEA]);
    vec![
        ("JPEG", patched("one-pixel.jpg", frame, &[0xEA, 0x60, 0xEA, 0x60])),
        ("PNG", png),
        ("animated PNG", apng),
        (
            "GIF screen",
            patched("palette.gif", screen, &[0x60, 0xEA, 0x60, 0xEA]),
        ),
        ("GIF frame", gif),
        ("lossy WebP", patched("lossy.webp", 26, &[0xFF, 0x3F, 0xFF, 0x3F])),
        (
            "lossless WebP",
            patched("lossless.webp", 21, &[0xFF, 0xFF, 0xFF, 0x0F]),
        ),
        (
            "WebP canvas",
            patched("lossless-alpha.webp", 21, &[0xFF, 0xFF, 0xFF, 0x0F]),
        ),
        (
            "animated WebP's canvas",
            patched("animated-lossy.webp", 24, &[0x5F, 0xEA, 0, 0x5F, 0xEA, 0]),
        ),
        (
            "animated WebP's frame",
            patched("animated-lossy.webp", frame_size, &[0x5F, 0xEA, 0, 0x5F, 0xEA, 0]),
        ),
        (
            "image in an animated WebP's frame",
            patched("animated-lossy.webp", inside, &[0xFF, 0x3F, 0xFF, 0x3F]),
        ),
        (
            "BMP",
            patched("palette.bmp", 18, &[0x60, 0xEA, 0, 0, 0x60, 0xEA, 0, 0]),
        ),
        (
            "run-length encoded BMP",
            patched("run-lengths.bmp", 18, &[0x60, 0xEA, 0, 0, 0x60, 0xEA, 0, 0]),
        ),
    ]
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0xEDB8_8320 & 0_u32.wrapping_sub(crc & 1))
        })
    })
}

/// One request of a kilobyte must not take all the memory.
#[test]
fn a_size_that_is_only_claimed_takes_no_memory() {
    for (what, image) in claims() {
        let (result, largest) = decode(&image);
        let error = result.map(drop).unwrap_err();
        assert_eq!(error.problem, InputProblem::TooLarge, "{what}: {error}");
        assert!(error.message.contains('×'), "{what}: {error}");
        assert!(largest < 1 << 20, "{what}: {largest} bytes were allocated");
    }
}

/// The rest of a truncated image would be grey, and the result wrong without an error. Only what comes after the
/// pixels may be missing: the other frames of an animation, padding.
#[test]
fn an_image_that_is_cut_off_anywhere_is_refused_unless_no_pixel_is_lost() {
    for name in names("images.json") {
        let bytes = stored(&name);
        let whole = decode(&bytes).0.unwrap();
        let mut refused = 0;
        let step = (bytes.len() / 50).max(1);
        let ends: Vec<usize> = (0..bytes.len())
            .step_by(step)
            .chain(bytes.len() - 12..bytes.len())
            .collect();
        for &end in &ends {
            match decode(&bytes[..end]).0 {
                Ok(part) => assert!(part == whole, "{name} has other pixels, cut at {end}"),
                Err(error) => {
                    let unknown = end < 16 && error.problem == InputProblem::Unsupported;
                    let broken = error.problem == InputProblem::Malformed;
                    assert!(unknown || broken, "{name}, cut at {end}: {error}");
                    refused += 1;
                }
            }
        }
        let few = if name.starts_with("animated") {
            10
        } else {
            ends.len() * 3 / 4
        };
        assert!(refused >= few, "{name}: {refused} of {}", ends.len());
    }
}

/// Data that a camera or an editor appends neither makes an image invalid nor hides that it is truncated.
#[test]
fn what_follows_a_jpeg_does_not_count() {
    let whole = stored("colour-420.jpg");
    let pixels = decode(&whole).0.unwrap();
    for tail in [
        &[0xFF, 0xDA, 0, 0][..],
        &[0xFF, 0xFE, 0, 2],
        &[0xFF, 0xD9],
        &whole,
    ] {
        assert!(
            decode(&[&whole, tail].concat()).0.unwrap() == pixels,
            "{:?}",
            &tail[..2]
        );
        // The same after half of the image.
        let cut = [&whole[..whole.len() / 2], tail].concat();
        let problem = decode(&cut).0.map(drop).unwrap_err().problem;
        assert_eq!(problem, InputProblem::Malformed, "{:?}", &tail[..2]);
    }
}

/// Damage to every image, the same in every run: flipped bits, replaced bytes, lost pieces.
#[test]
fn damage_ends_with_an_answer() {
    let mut random = 0x2545_F491_4F6C_DD1D_u64;
    let mut next = move |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random >> 33).unwrap() % below
    };
    let mut images = 0;
    for name in [names("images.json"), names("jpegs.json")].concat() {
        let whole = stored(&name);
        assert!(fuzz(&whole), "{name}");
        for _ in 0..40 {
            let mut damaged = whole.clone();
            for _ in 0..=next(4) {
                // Most surprises are in headers.
                let reach = if next(2) == 0 {
                    damaged.len().min(64)
                } else {
                    damaged.len()
                };
                let place = next(reach);
                match next(4) {
                    0 => damaged[place] ^= 1 << next(8),
                    1 => damaged[place] = u8::try_from(next(256)).unwrap(),
                    2 => damaged[place] = [0, 0xFF, 0x7F, 0x80][next(4)],
                    _ if damaged.len() > 64 => {
                        drop(damaged.drain(place..place + 1 + next(damaged.len() - place)))
                    }
                    _ => {}
                }
            }
            images += usize::from(fuzz(&damaged));
        }
    }
    // Some must get past the header, otherwise nothing was tested.
    assert!(images > 100, "{images}");
}
