//! The orientation of an image, found as Pillow does: in EXIF data, whatever the number's type, or else in XMP.

use image::metadata::Orientation;

/// From a block of EXIF data and one of XMP. A block of EXIF that is broken, or whose orientation is not a number
/// from 1 to 8, leaves the image as it is stored.
pub(super) fn orientation(exif: Option<&[u8]>, xmp: Option<&[u8]>) -> Orientation {
    let number = match exif.map_or(Tag::Missing, in_exif) {
        Tag::Missing => xmp.and_then(in_xmp),
        Tag::Is(number) => Some(number),
        Tag::Broken => None,
    };
    number
        .and_then(Orientation::from_exif)
        .unwrap_or(Orientation::NoTransforms)
}

#[derive(Debug, PartialEq)]
enum Tag {
    Missing,
    Is(u8),
    /// The orientation, or the whole block, cannot be read.
    Broken,
}

const ORIENTATION: u16 = 0x0112;

/// EXIF data are a TIFF file without an image.
struct Tiff<'a> {
    bytes: &'a [u8],
    big_endian: bool,
}

fn in_exif(exif: &[u8]) -> Tag {
    const NAME: &[u8] = b"Exif\0\0";
    // Some writers write it twice.
    let bytes = exif.strip_prefix(NAME).unwrap_or(exif);
    let bytes = bytes.strip_prefix(NAME).unwrap_or(bytes);
    // Two of these have the number 42 in the wrong byte order.
    let big_endian = match bytes {
        [] => return Tag::Missing,
        [b'M', b'M', 0, 42, ..] | [b'M', b'M', 42, 0, ..] => true,
        [b'I', b'I', 42, 0, ..] | [b'I', b'I', 0, 42, ..] => false,
        _ => return Tag::Broken,
    };
    let tiff = Tiff { bytes, big_endian };
    match tiff.number(4, 4) {
        Some(directory) => tiff.find(directory).unwrap_or(Tag::Missing),
        None => Tag::Broken,
    }
}

impl Tiff<'_> {
    fn number(&self, place: usize, length: usize) -> Option<usize> {
        let bytes = self.bytes.get(place..place.checked_add(length)?)?;
        let joined = |all: usize, &byte: &u8| (all << 8) | usize::from(byte);
        Some(if self.big_endian {
            bytes.iter().fold(0, joined)
        } else {
            bytes.iter().rev().fold(0, joined)
        })
    }

    /// `None` if the directory ends first, or cannot be read any further.
    fn find(&self, directory: usize) -> Option<Tag> {
        let count = self.number(directory, 2)?;
        // Total size of the values that are stored elsewhere; entries that cannot fit into the block are skipped.
        let mut elsewhere = 0_usize;
        for entry in (0..count).map(|index| directory + 2 + index * 12) {
            let (tag, kind) = (self.number(entry, 2)?, self.number(entry + 2, 2)?);
            let (count, place) = (self.number(entry + 4, 4)?, self.number(entry + 8, 4)?);
            let Some(unit) = unit(kind) else { continue };
            let size = unit.saturating_mul(count);
            let place = if size > 4 {
                elsewhere = elsewhere.saturating_add(size);
                if elsewhere > self.bytes.len() {
                    continue;
                }
                self.bytes.get(place..place.checked_add(size)?)?;
                place
            } else {
                entry + 8
            };
            if tag == usize::from(ORIENTATION) && size > 0 {
                return Some(self.value(kind, place).map_or(Tag::Broken, Tag::Is));
            }
        }
        None
    }

    /// The first value there, if it is a number from 0 to 255.
    fn value(&self, kind: usize, place: usize) -> Option<u8> {
        let whole = match kind {
            3 | 8 => self.number(place, 2),
            4 | 9 | 13 => self.number(place, 4),
            6 => self.number(place, 1),
            16 => self.number(place, 8),
            5 | 10 => {
                let (above, below) = (self.number(place, 4)?, self.number(place + 4, 4)?);
                (below != 0 && above.is_multiple_of(below)).then(|| above / below)
            }
            11 => self
                .number(place, 4)
                .and_then(|bits| whole(f32::from_bits(bits as u32).into())),
            12 => self
                .number(place, 8)
                .and_then(|bits| whole(f64::from_bits(bits as u64))),
            // Bytes and text are not numbers.
            _ => None,
        };
        whole.and_then(|value| u8::try_from(value).ok())
    }
}

fn whole(value: f64) -> Option<usize> {
    (0..=8).find(|&number| number as f64 == value)
}

/// Bytes of one value of a type; `None` if there is no such type.
fn unit(kind: usize) -> Option<usize> {
    match kind {
        1 | 2 | 6 | 7 => Some(1),
        3 | 8 => Some(2),
        4 | 9 | 11 | 13 => Some(4),
        5 | 10 | 12 | 16 => Some(8),
        _ => None,
    }
}

/// The first digit after `tiff:Orientation="` or `tiff:Orientation>`.
fn in_xmp(xmp: &[u8]) -> Option<u8> {
    const NAME: &[u8] = b"tiff:Orientation";
    memchr::memmem::find_iter(xmp, NAME).find_map(|place| {
        let rest = &xmp[place + NAME.len()..];
        let value = rest.strip_prefix(b"=\"").or_else(|| rest.strip_prefix(b">"))?;
        value
            .first()
            .filter(|digit| digit.is_ascii_digit())
            .map(|digit| digit - b'0')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block with one entry, and the bytes after it.
    fn block(kind: u16, count: u32, value: &[u8; 4], after: &[u8]) -> Vec<u8> {
        let entry = [
            &ORIENTATION.to_le_bytes()[..],
            &kind.to_le_bytes(),
            &count.to_le_bytes(),
            value,
        ];
        [b"II*\0\x08\0\0\0\x01\0", &entry.concat()[..], &[0; 4], after].concat()
    }

    #[test]
    fn whatever_type_the_number_has_it_counts() {
        let six = [6, 0, 0, 0];
        for kind in [3, 4, 6, 8, 9, 13] {
            assert_eq!(in_exif(&block(kind, 1, &six, &[])), Tag::Is(6), "type {kind}");
        }
        let elsewhere = [26, 0, 0, 0];
        let fraction = [12, 0, 0, 0, 2, 0, 0, 0];
        assert_eq!(in_exif(&block(5, 1, &elsewhere, &fraction)), Tag::Is(6));
        assert_eq!(
            in_exif(&block(12, 1, &elsewhere, &6_f64.to_le_bytes())),
            Tag::Is(6)
        );
        assert_eq!(in_exif(&block(11, 1, &6_f32.to_le_bytes(), &[])), Tag::Is(6));
    }

    #[test]
    fn what_is_no_number_is_broken_and_what_is_not_there_is_missing() {
        let six = [6, 0, 0, 0];
        for (kind, tag) in [
            (1, Tag::Broken),
            (2, Tag::Broken),
            (7, Tag::Broken),
            (99, Tag::Missing),
        ] {
            assert_eq!(in_exif(&block(kind, 1, &six, &[])), tag, "type {kind}");
        }
        assert_eq!(in_exif(&block(3, 0, &six, &[])), Tag::Missing);
        assert_eq!(in_exif(b"Exif\0\0"), Tag::Missing);
        assert_eq!(in_exif(b"no EXIF"), Tag::Broken);
        assert_eq!(in_exif(b"II*\0\xFF\xFF\xFF\xFF"), Tag::Missing);
        assert_eq!(in_exif(&block(5, 1, &[0xFF; 4], &[])), Tag::Missing);
    }

    #[test]
    fn xmp_counts_where_exif_says_nothing() {
        for xmp in [
            "<x tiff:Orientation=\"6\"/>",
            "<tiff:Orientation>6</tiff:Orientation>",
        ] {
            assert_eq!(
                orientation(None, Some(xmp.as_bytes())),
                Orientation::Rotate90,
                "{xmp}"
            );
            let exif = block(3, 1, &[3, 0, 0, 0], &[]);
            assert_eq!(
                orientation(Some(&exif), Some(xmp.as_bytes())),
                Orientation::Rotate180
            );
        }
        assert_eq!(in_xmp(b"tiff:Orientation='6' tiff:Orientation=\"8\""), Some(8));
        assert_eq!(in_xmp(b"tiff:Orientation"), None);
    }
}
