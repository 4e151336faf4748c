//! Where a PNG may specify its orientation: EXIF in its own chunk or as text, or XMP as text, compressed or not,
//! before or after the pixels. As in Pillow, the last one counts if there are several.

use flate2::read::ZlibDecoder;
use std::borrow::Cow;
use std::io::Read;

/// Pillow's limit on decompressed text.
const LARGEST_TEXT: u64 = 1 << 20;

#[derive(Debug, Default)]
pub(super) struct Metadata<'a> {
    pub(super) exif: Option<Cow<'a, [u8]>>,
    pub(super) xmp: Option<Cow<'a, [u8]>>,
}

/// Walks through the chunks of a file whose structure was checked.
pub(super) fn read(bytes: &[u8]) -> Metadata<'_> {
    let (mut exif, mut profile, mut xmp) = (None, None, None);
    let (mut animated, mut pixels_seen) = (false, false);
    for (name, content) in chunks(bytes) {
        match name {
            b"acTL" => {
                animated = content
                    .get(..4)
                    .is_some_and(|frames| !matches!(frames, [0, 0, 0, 0 | 1]))
            }
            b"IDAT" => pixels_seen = true,
            // Pillow stops where the next frame begins.
            b"fcTL" if animated && pixels_seen => break,
            b"eXIf" => exif = Some(Cow::Borrowed(content)),
            _ => {}
        }
        match text(name, content) {
            Some((b"XML:com.adobe.xmp", text)) => xmp = Some(text),
            Some((b"Raw profile type exif", text)) => profile = Some(text),
            _ => {}
        }
    }
    let exif = exif.or_else(|| profile.map(|profile| Cow::Owned(unfolded(&profile))));
    Metadata { exif, xmp }
}

fn chunks(bytes: &[u8]) -> impl Iterator<Item = (&[u8; 4], &[u8])> {
    const SIGNATURE: usize = 8;
    let mut rest = bytes.get(SIGNATURE..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (name, after) = after.split_first_chunk::<4>()?;
        let content = after.get(..u32::from_be_bytes(*length) as usize)?;
        // A checksum follows.
        rest = after.get(content.len() + 4..).unwrap_or_default();
        Some((name, content))
    })
}

/// The keyword and the text of a chunk that holds text.
fn text<'a>(name: &[u8; 4], content: &'a [u8]) -> Option<(&'a [u8], Cow<'a, [u8]>)> {
    let cut = |bytes: &'a [u8]| {
        let end = memchr::memchr(0, bytes)?;
        Some((&bytes[..end], &bytes[end + 1..]))
    };
    match name {
        b"tEXt" => cut(content).map(|(keyword, text)| (keyword, Cow::Borrowed(text))),
        b"zTXt" => match cut(content)? {
            (keyword, [0, text @ ..]) => Some((keyword, inflated(text)?)),
            _ => None,
        },
        b"iTXt" => {
            let (keyword, rest) = cut(content)?;
            let [compressed, method, rest @ ..] = rest else {
                return None;
            };
            // Skips the language and the translated keyword.
            let (_, text) = cut(cut(rest)?.1)?;
            match (compressed, method) {
                (0, _) => Some((keyword, Cow::Borrowed(text))),
                (_, 0) => Some((keyword, inflated(text)?)),
                _ => None,
            }
        }
        _ => None,
    }
}

fn inflated(text: &[u8]) -> Option<Cow<'_, [u8]>> {
    let mut inflated = Vec::new();
    let mut decoder = ZlibDecoder::new(text).take(LARGEST_TEXT + 1);
    decoder.read_to_end(&mut inflated).ok()?;
    (inflated.len() as u64 <= LARGEST_TEXT).then_some(Cow::Owned(inflated))
}

/// ImageMagick's way to put bytes into text: three lines with a name and the length, then hexadecimal digits. For any
/// other text, the result is not valid EXIF.
fn unfolded(profile: &[u8]) -> Vec<u8> {
    let lines = profile.split(|&byte| byte == b'\n').skip(3);
    let digits = lines.flatten().filter(|byte| !byte.is_ascii_whitespace());
    let digits: Option<Vec<u8>> = digits
        .map(|&digit| {
            char::from(digit)
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
        })
        .collect();
    let digits = digits.unwrap_or_else(|| vec![0; 2]);
    digits
        .as_chunks::<2>()
        .0
        .iter()
        .map(|[high, low]| high << 4 | low)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len()).unwrap_or_default().to_be_bytes();
        [&length, &name[..], content, &[0; 4]].concat()
    }

    fn file(chunks: &[Vec<u8>]) -> Vec<u8> {
        [vec![0; 8], chunks.concat()].concat()
    }

    #[test]
    fn the_last_text_counts_wherever_it_stands() {
        let xmp = |text: &str| [b"XML:com.adobe.xmp\0\0\0\0\0", text.as_bytes()].concat();
        let bytes = file(&[
            chunk(b"iTXt", &xmp("first")),
            chunk(b"IDAT", &[]),
            chunk(b"iTXt", &xmp("last")),
            chunk(b"tEXt", b"Comment\0later"),
        ]);
        assert_eq!(read(&bytes).xmp.as_deref(), Some(&b"last"[..]));
    }

    #[test]
    fn what_belongs_to_the_second_frame_does_not_count() {
        let animation = |frames: u8| {
            file(&[
                chunk(b"acTL", &[0, 0, 0, frames, 0, 0, 0, 0]),
                chunk(b"fcTL", &[]),
                chunk(b"IDAT", &[]),
                chunk(b"fcTL", &[]),
                chunk(b"eXIf", b"MM"),
            ])
        };
        assert!(read(&animation(2)).exif.is_none());
        assert!(read(&animation(1)).exif.is_some());
    }

    #[test]
    fn a_profile_is_unfolded_and_no_profile_is_broken() {
        assert_eq!(unfolded(b"\nexif\n       3\n4d4d\n 00"), [0x4D, 0x4D, 0]);
        assert_eq!(unfolded(b"\nexif\n       3\n4x"), [0]);
        let text = chunk(b"tEXt", b"Raw profile type exif\0\nexif\n 2\n4949\n");
        assert_eq!(
            read(&file(std::slice::from_ref(&text))).exif.as_deref(),
            Some(&b"II"[..])
        );
        let both = file(&[chunk(b"eXIf", b"MM"), text]);
        assert_eq!(read(&both).exif.as_deref(), Some(&b"MM"[..]));
    }
}
