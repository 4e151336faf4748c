//! Run-length encoded BMPs. As in Pillow, a pixel that the code skips has the palette's first colour, and an image
//! whose code ends before its last pixel is cut off.

use super::stored::{Format, Problem};
use crate::package::manifest::Size;

/// Bits of an index.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Coding {
    Eight,
    Four,
}

impl Coding {
    /// What the header says; `None` if the pixels are stored otherwise.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        let compression = bytes.get(30..34)?;
        match (number(bytes, 14)?, compression) {
            // The oldest header has no compression.
            (12, _) => None,
            (_, [1, 0, 0, 0]) => Some(Self::Eight),
            (_, [2, 0, 0, 0]) => Some(Self::Four),
            _ => None,
        }
    }
}

/// The pixels, from the top row down.
pub(super) fn decode(
    bytes: &[u8],
    coding: Coding,
    size: Size,
    palette: Option<&[[u8; 3]]>,
) -> Result<Vec<u8>, Problem> {
    let code = Code {
        bytes,
        place: number(bytes, 10).unwrap_or(usize::MAX),
    };
    let (width, height) = (size.width as usize, size.height as usize);
    let indices = code
        .indices(coding, width, width * height)
        .ok_or(Problem::Truncated(Format::Bmp))?;
    let color = |&index: &u8| {
        palette
            .and_then(|palette| palette.get(usize::from(index)))
            .copied()
            .unwrap_or_default()
    };
    // Most begin with the bottom row; a negative height means the top row.
    let from_top = bytes.get(25).is_some_and(|&byte| byte >= 0x80);
    let rows = indices.chunks_exact(width);
    let pixels: Vec<[u8; 3]> = if from_top {
        rows.flatten().map(color).collect()
    } else {
        rows.rev().flatten().map(color).collect()
    };
    Ok(pixels.into_flattened())
}

fn number(bytes: &[u8], place: usize) -> Option<usize> {
    let bytes = bytes.get(place..)?.first_chunk::<4>()?;
    usize::try_from(u32::from_le_bytes(*bytes)).ok()
}

struct Code<'a> {
    bytes: &'a [u8],
    place: usize,
}

impl<'a> Code<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.place..self.place.checked_add(count)?)?;
        self.place += count;
        Some(taken)
    }

    /// This many indices; `None` if the code ends too early.
    fn indices(mut self, coding: Coding, width: usize, total: usize) -> Option<Vec<u8>> {
        let mut indices: Vec<u8> = Vec::new();
        let mut column = 0;
        while indices.len() < total {
            match *self.take(2)? {
                // The end of a row.
                [0, 0] => {
                    indices.resize(indices.len().next_multiple_of(width), 0);
                    column = 0;
                }
                // The end of the image.
                [0, 1] => return None,
                // Moves by this many columns and rows.
                [0, 2] => {
                    let &[columns, rows] = self.take(2)? else {
                        return None;
                    };
                    let skipped = usize::from(columns) + usize::from(rows) * width;
                    indices.resize((indices.len() + skipped).min(total), 0);
                    column = indices.len() % width;
                }
                // Literal indices, padded to an even length.
                [0, count] => {
                    self.literal(
                        coding,
                        usize::from(count).min(total - indices.len()),
                        &mut indices,
                    )?;
                    column += usize::from(count);
                }
                [count, value] => {
                    let count = usize::from(count).min(width.saturating_sub(column));
                    let run = (0..count).map(|index| match (coding, index % 2) {
                        (Coding::Eight, _) => value,
                        (Coding::Four, 0) => value >> 4,
                        (Coding::Four, _) => value & 15,
                    });
                    indices.extend(run);
                    column += count;
                }
                _ => return None,
            }
        }
        indices.truncate(total);
        Some(indices)
    }

    fn literal(&mut self, coding: Coding, count: usize, indices: &mut Vec<u8>) -> Option<()> {
        match coding {
            Coding::Eight => indices.extend_from_slice(self.take(count)?),
            Coding::Four => {
                let both = self
                    .take(count.div_ceil(2))?
                    .iter()
                    .flat_map(|byte| [byte >> 4, byte & 15]);
                indices.extend(both.take(count));
            }
        }
        self.place += self.place % 2;
        Some(())
    }
}
