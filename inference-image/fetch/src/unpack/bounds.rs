//! How much a package may hold, so that an archive that unpacks to far more than it has ends there.

use super::error::UnpackError;
use modelservice_package::MOST_FILES;

/// How much a package may hold.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Entries: files, folders and links.
    pub entries: usize,
    /// Bytes of all files.
    pub bytes: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            entries: MOST_FILES,
            bytes: 64 << 30,
        }
    }
}

/// What is left of the bounds.
#[derive(Debug)]
pub(super) struct Left {
    bounds: Bounds,
    entries: usize,
    bytes: u64,
}

impl Left {
    pub(super) const fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            entries: bounds.entries,
            bytes: bounds.bytes,
        }
    }

    /// Bytes that may still come.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes one entry.
    pub(super) fn take_entry(&mut self, name: &str) -> Result<(), UnpackError> {
        let left = self.entries.checked_sub(1);
        self.entries = left.ok_or_else(|| {
            let most = self.bounds.entries;
            let why =
                format!("is one entry too many: a package has at most {most}. Is this a model package?");
            UnpackError::entry(name, why)
        })?;
        Ok(())
    }

    /// Takes bytes of an entry.
    pub(super) fn take_bytes(&mut self, name: &str, bytes: u64) -> Result<(), UnpackError> {
        let left = self.bytes.checked_sub(bytes);
        self.bytes = left.ok_or_else(|| self.too_large(name))?;
        Ok(())
    }

    /// Of an entry with which the package has too many bytes.
    pub(super) fn too_large(&self, name: &str) -> UnpackError {
        let most = self.bounds.bytes;
        let why = format!(
            "makes the package larger than {most} bytes: raise the limit on its size, or find out why it is so large"
        );
        UnpackError::entry(name, why)
    }
}
