//! How objects are divided: into blocks, each of which is complete or not, and parts of several blocks, each of which is one
//! request. Pure.

use crate::source::{Found, Object};
use sha2::{Digest, Sha256};
use std::ops::Range;

/// A part of an object, read with one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Index of the object.
    pub(super) object: usize,
    /// Indices of the blocks.
    pub(super) blocks: Range<u64>,
}

/// How objects are divided.
#[derive(Clone, Copy, Debug)]
pub(super) struct Division {
    pub(super) part_blocks: u64,
    pub(super) block_bytes: u64,
    /// Whether parts can be read by themselves.
    pub(super) has_ranges: bool,
}

impl Division {
    /// Whether an object can be read from its middle.
    pub(super) const fn is_divided(self, object: &Object) -> bool {
        self.has_ranges && object.size.is_some()
    }

    /// How many blocks an object has; an empty one has none.
    pub(super) const fn blocks(self, object: &Object) -> u64 {
        match object.size {
            Some(size) if self.has_ranges => size.div_ceil(self.block_bytes),
            Some(0) => 0,
            _ => 1,
        }
    }

    /// Where a block of an object is, in bytes. It ends at `u64::MAX` if the object's size is not known.
    pub(super) fn block(self, object: &Object, index: u64) -> Range<u64> {
        match object.size {
            Some(size) if self.has_ranges => {
                let start = index * self.block_bytes;
                start..size.min(start + self.block_bytes)
            }
            size => 0..size.unwrap_or(u64::MAX),
        }
    }

    /// The requests for those blocks of an object that are missing.
    pub(super) fn parts(
        self,
        object: usize,
        described: &Object,
        is_missing: impl Fn(u64) -> bool,
    ) -> Vec<Part> {
        let mut parts: Vec<Part> = Vec::new();
        for block in (0..self.blocks(described)).filter(|&block| is_missing(block)) {
            match parts.last_mut() {
                Some(Part { blocks, .. })
                    if blocks.end == block && block - blocks.start < self.part_blocks =>
                {
                    blocks.end += 1;
                }
                _ => parts.push(Part {
                    object,
                    blocks: block..block + 1,
                }),
            }
        }
        parts
    }

    /// Stands for what is downloaded, and in which blocks: a download goes on only where this is the same.
    pub(super) fn name(self, found: &Found) -> String {
        let mut hash = Sha256::new();
        hash.update(format!(
            "{:?}\n{} {}\n",
            found.identity, self.block_bytes, self.has_ranges
        ));
        for object in &found.objects {
            hash.update(format!("{object:?}\n"));
        }
        format!("{:x}", hash.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_an_object_once() {
        #[allow(clippy::single_range_in_vec_init)]
        for (size, has_ranges, wanted) in [
            (Some(0), true, vec![]),
            (Some(0), false, vec![]),
            (Some(1), true, vec![0..1]),
            (Some(8), true, vec![0..8]),
            (Some(9), true, vec![0..8, 8..9]),
            (Some(9), false, vec![0..9]),
            (None, true, vec![0..u64::MAX]),
        ] {
            let division = division(has_ranges);
            let object = object(size);
            let blocks = (0..division.blocks(&object)).map(|index| division.block(&object, index));
            assert_eq!(Vec::from_iter(blocks), wanted, "{size:?} {has_ranges}");
        }
    }

    #[test]
    fn only_missing_blocks_are_requested() {
        let parts = |missing: &[u64]| {
            let parts = division(true).parts(0, &object(Some(80)), |block| missing.contains(&block));
            Vec::from_iter(parts.into_iter().map(|part| (part.blocks.start, part.blocks.end)))
        };
        assert_eq!(parts(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]), [(0, 4), (4, 8), (8, 10)]);
        assert_eq!(parts(&[1, 2, 5, 9]), [(1, 3), (5, 6), (9, 10)]);
        assert_eq!(parts(&[]), []);
    }

    fn division(has_ranges: bool) -> Division {
        Division {
            part_blocks: 4,
            block_bytes: 8,
            has_ranges,
        }
    }

    fn object(size: Option<u64>) -> Object {
        Object {
            name: "w".into(),
            key: "w".into(),
            size,
            version: None,
            sha256: None,
        }
    }
}
