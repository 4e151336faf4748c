//! Unpacks a zip. Its list of entries is read one by one: it may be long.

use super::error::UnpackError;
use super::name;
use super::tree::Tree;
use std::fs::File;
use std::io::{BufReader, Read};
use zip::CompressionMethod;
use zip::read::{ArchiveOffset, Config, ZipFile, ZipReadOptions};
use zip::result::ZipError;
// What is unstable is only its path: the version is pinned.
use zip::unstable::read::ZipIterable;

/// Longest target of a link in bytes; it is the content of its entry.
const LONGEST_TARGET: u64 = 4096;
/// Folder in which macOS keeps what only it understands.
const OF_MACOS: &str = "__MACOSX";
/// File types in the upper half of the external attributes (Unix).
const TYPE_BITS: u32 = 0o170_000;
const LINK: u32 = 0o120_000;
const FILE: u32 = 0o100_000;
const FOLDER: u32 = 0o040_000;

/// Unpacks all entries. `list` and `content` are the same file, opened twice.
pub(super) fn unpack(list: File, content: File, tree: &mut Tree) -> Result<(), UnpackError> {
    let config = Config {
        archive_offset: ArchiveOffset::Known(0),
    };
    let archive = ZipIterable::try_new(BufReader::new(list), config).map_err(|error| reading(&error))?;
    // Else a program that reads headers and one that reads the list would see different files.
    let mut archive = archive.enforce_header_consistency(true);
    let mut entries = archive
        .files_with_reader(BufReader::new(content), ZipReadOptions::new())
        .map_err(|error| reading(&error))?;
    while let Some(entry) = entries.next() {
        unpack_entry(&mut entry.map_err(|error| reading(&error))?, tree)?;
    }
    Ok(())
}

fn unpack_entry<R: Read>(entry: &mut ZipFile<'_, R>, tree: &mut Tree) -> Result<(), UnpackError> {
    let shown = String::from_utf8_lossy(entry.name_raw()).into_owned();
    let name = name::plain(entry.name_raw()).map_err(|why| UnpackError::entry(&shown, why))?;
    if name == OF_MACOS || name.starts_with(&format!("{OF_MACOS}/")) {
        return tree.left().take_entry(&name);
    }
    if !matches!(
        entry.compression(),
        CompressionMethod::Stored | CompressionMethod::Deflated
    ) {
        let why = "is compressed in a way that is not read here: pack it again with deflate";
        return Err(UnpackError::entry(shown, why));
    }
    match entry.unix_mode().unwrap_or(0) & TYPE_BITS {
        LINK => {
            let mut target = String::new();
            let read = entry.take(LONGEST_TARGET).read_to_string(&mut target);
            read.map_err(|_| UnpackError::entry(&shown, "is a link whose target is not a name"))?;
            tree.link(&name, &target)
        }
        _ if entry.is_dir() => tree.folder(&name),
        0 | FILE | FOLDER => {
            if entry.size() > tree.left().bytes() {
                return Err(tree.left().too_large(&name));
            }
            tree.file(&name, entry)
        }
        _ => Err(UnpackError::entry(
            shown,
            "is a special file: a package has only files, folders and links",
        )),
    }
}

fn reading(error: &ZipError) -> UnpackError {
    match error {
        ZipError::Io(error) => UnpackError::reading(error),
        error => UnpackError::Archive(error.to_string()),
    }
}
