//! Which parts the objects of a source have: pure.

use crate::source::{Found, Object};
use sha2::{Digest, Sha256};
use std::ops::Range;

/// A part of an object, read with one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Index of the object.
    pub(super) object: usize,
    /// Index of the part in its object.
    pub(super) index: u64,
    /// In bytes. It ends at `u64::MAX` if the object's size is not known.
    pub(super) range: Range<u64>,
}

/// How objects are divided.
#[derive(Clone, Copy, Debug)]
pub(super) struct Division {
    pub(super) part_bytes: u64,
    /// Whether parts can be read by themselves.
    pub(super) has_ranges: bool,
}

impl Division {
    /// How many parts an object has; an empty one has none.
    pub(super) const fn count(self, object: &Object) -> u64 {
        match object.size {
            Some(size) if self.has_ranges => size.div_ceil(self.part_bytes),
            Some(0) => 0,
            _ => 1,
        }
    }

    /// One of an object's parts.
    pub(super) fn part(self, object: usize, described: &Object, index: u64) -> Part {
        let range = match described.size {
            Some(size) if self.has_ranges => {
                let start = index * self.part_bytes;
                start..size.min(start + self.part_bytes)
            }
            size => 0..size.unwrap_or(u64::MAX),
        };
        Part { object, index, range }
    }

    /// Stands for what is downloaded, and in which parts: a download goes on only where this is the same.
    pub(super) fn name(self, found: &Found) -> String {
        let mut hash = Sha256::new();
        hash.update(format!("{:?}\n{self:?}\n", found.identity));
        for object in &found.objects {
            hash.update(format!("{object:?}\n"));
        }
        format!("{:x}", hash.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(size: Option<u64>) -> Object {
        Object {
            name: "w".into(),
            key: "w".into(),
            size,
            version: None,
            sha256: None,
        }
    }

    #[test]
    #[allow(clippy::single_range_in_vec_init)]
    fn parts_cover_an_object_once() {
        for (size, has_ranges, wanted) in [
            (Some(0), true, vec![]),
            (Some(0), false, vec![]),
            (Some(1), true, vec![0..1]),
            (Some(8), true, vec![0..8]),
            (Some(9), true, vec![0..8, 8..9]),
            (Some(9), false, vec![0..9]),
            (None, true, vec![0..u64::MAX]),
        ] {
            let division = Division {
                part_bytes: 8,
                has_ranges,
            };
            let object = object(size);
            let parts = (0..division.count(&object)).map(|index| division.part(0, &object, index).range);
            assert_eq!(Vec::from_iter(parts), wanted, "{size:?} {has_ranges}");
        }
    }
}
