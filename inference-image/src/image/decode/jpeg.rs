//! JPEG, with our own decoder: its pixels are those of libjpeg, and so of Pillow, or it fails.

use super::orientation::orientation;
use super::stored::{Format, Limit, Problem, Stored};
use modelservice_jpeg::{Decoder, Error};
use std::borrow::Cow;

pub(super) fn decode(bytes: &[u8], limit: Limit) -> Result<Stored, Problem> {
    let decoder = Decoder::new(bytes).map_err(explain)?;
    let (width, height) = decoder.size();
    let size = limit.check(Format::Jpeg, width, height)?;
    let channels = decoder.channels();
    let orientation = orientation(exif(&decoder).as_deref(), xmp(&decoder));
    let mut samples = vec![0; size.width as usize * size.height as usize * channels];
    decoder.decode(&mut samples).map_err(explain)?;
    Ok(Stored {
        size,
        channels,
        samples,
        orientation,
    })
}

/// The content after this name, in each segment that may hold metadata.
fn metadata<'a>(decoder: &Decoder<'a>, name: &'static [u8]) -> impl Iterator<Item = &'a [u8]> {
    const APP1: u8 = 0xE1;
    let segments = decoder.application_segments();
    let segments: Vec<_> = segments.filter(|segment| segment.marker == APP1).collect();
    let content = move |segment: modelservice_jpeg::Segment<'a>| segment.content.strip_prefix(name);
    segments.into_iter().filter_map(content)
}

/// EXIF data that do not fit into one segment continue in the next.
fn exif<'a>(decoder: &Decoder<'a>) -> Option<Cow<'a, [u8]>> {
    let mut parts = metadata(decoder, b"Exif\0\0").map(Cow::Borrowed);
    let first = parts.next()?;
    Some(parts.fold(first, |mut all, part| {
        all.to_mut().extend_from_slice(&part);
        all
    }))
}

/// If there are several, the last one.
fn xmp<'a>(decoder: &Decoder<'a>) -> Option<&'a [u8]> {
    metadata(decoder, b"http://ns.adobe.com/xap/1.0/\0").last()
}

fn explain(error: Error) -> Problem {
    match error {
        Error::Truncated => Problem::Truncated(Format::Jpeg),
        Error::Broken(what) => Problem::Broken(Format::Jpeg, what.to_owned()),
        Error::Unsupported(what) => Problem::Unsupported(Format::Jpeg, what.to_owned()),
    }
}
