//! Unpacks a tar, which is only ever a stream.

use super::error::UnpackError;
use super::name;
use super::tree::Tree;
use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;
use tar::{Archive, Entry, EntryType};

/// What may come between two files: headers with long names. They are held in memory.
const LONGEST_HEADERS: u64 = 1 << 20;
/// What may follow the end of an archive, such as padding.
const LONGEST_END: u64 = 64 << 20;
/// Begins the name of an entry that removes another one of a lower layer (OCI image specification, "Whiteouts").
const WHITEOUT: &str = ".wh.";
/// Removes everything of lower layers in its folder.
const OPAQUE: &str = ".wh..wh..opq";

/// What a tar is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// All of the package.
    Whole,
    /// A layer of an image: it may remove what is in those below it, and absolute links mean its own root.
    Layer,
}

/// Unpacks all entries.
pub(super) fn unpack(content: impl Read, role: Role, tree: &mut Tree) -> Result<(), UnpackError> {
    let allowance = Rc::new(Cell::new(LONGEST_HEADERS));
    let metered = Metered {
        content,
        allowance: Rc::clone(&allowance),
    };
    let mut archive = Archive::new(metered);
    let mut entries = archive.entries().map_err(|error| UnpackError::reading(&error))?;
    loop {
        allowance.set(LONGEST_HEADERS);
        let Some(entry) = entries.next() else {
            break;
        };
        let mut entry = entry.map_err(|error| UnpackError::reading(&error))?;
        allowance.set(u64::MAX);
        unpack_entry(&mut entry, role, tree)?;
        // Otherwise the rest would be read as headers.
        let rest = io::copy(&mut (&mut entry).take(LONGEST_END), &mut io::sink());
        rest.map_err(|error| UnpackError::reading(&error))?;
    }
    // Checksums of the compression are at its end.
    allowance.set(LONGEST_END);
    let rest = io::copy(&mut archive.into_inner(), &mut io::sink());
    rest.map_err(|error| UnpackError::reading(&error))?;
    Ok(())
}

fn unpack_entry(entry: &mut Entry<'_, impl Read>, role: Role, tree: &mut Tree) -> Result<(), UnpackError> {
    let raw = entry.path_bytes().into_owned();
    let shown = String::from_utf8_lossy(&raw).into_owned();
    let kind = entry.header().entry_type();
    if kind.is_pax_global_extensions() {
        return Ok(());
    }
    let relative = match role {
        // Some builders write `/model.onnx`, and mean the image's root.
        Role::Layer => raw.strip_prefix(b"/").unwrap_or(&raw),
        Role::Whole => &raw,
    };
    let name = name::plain(relative).map_err(|why| UnpackError::entry(&shown, why))?;
    if role == Role::Layer && white_out(&name, tree)? {
        return Ok(());
    }
    match kind {
        EntryType::Directory => tree.folder(&name),
        EntryType::Regular | EntryType::Continuous => {
            if entry.size() > tree.left().bytes() {
                return Err(tree.left().too_large(&name));
            }
            tree.file(&name, entry)
        }
        EntryType::Link => {
            let target = target(entry, &shown)?;
            let target = match role {
                Role::Layer => target.trim_start_matches('/'),
                Role::Whole => &target,
            };
            let target = name::plain(target.as_bytes());
            let target = target
                .map_err(|why| UnpackError::entry(&shown, format!("is a hard link whose target {why}")));
            tree.hard_link(&name, &target?)
        }
        EntryType::Symlink => {
            let target = target(entry, &shown)?;
            let target = match role {
                Role::Layer if target.starts_with('/') => name::relative(&name, &target),
                _ => target,
            };
            tree.link(&name, &target)
        }
        EntryType::GNUSparse => Err(UnpackError::entry(
            shown,
            "is a sparse file: pack it again without --sparse",
        )),
        EntryType::Fifo => Err(special(shown, "named pipe")),
        EntryType::Char | EntryType::Block => Err(special(shown, "device")),
        _ => Err(special(shown, "special file")),
    }
}

fn special(name: String, kind: &str) -> UnpackError {
    UnpackError::entry(
        name,
        format!("is a {kind}: a package has only files, folders and links"),
    )
}

fn target(entry: &Entry<'_, impl Read>, shown: &str) -> Result<String, UnpackError> {
    let target = entry.link_name_bytes().unwrap_or_default();
    let target = std::str::from_utf8(&target).ok();
    let target = target.filter(|target| !target.is_empty() && !target.contains(char::is_control));
    let target = target.ok_or_else(|| UnpackError::entry(shown, "is a link whose target is not a name"))?;
    Ok(target.to_owned())
}

/// Whether the entry only removes something of lower layers, which is done then.
fn white_out(name: &str, tree: &mut Tree) -> Result<bool, UnpackError> {
    let (folder, last) = name.rsplit_once('/').unwrap_or(("", name));
    let Some(removed) = last.strip_prefix(WHITEOUT) else {
        return Ok(false);
    };
    tree.left().take_entry(name)?;
    if last == OPAQUE {
        tree.clear(folder)?;
    } else if !removed.is_empty() && !removed.starts_with(WHITEOUT) {
        let removed = if folder.is_empty() {
            removed.to_owned()
        } else {
            format!("{folder}/{removed}")
        };
        tree.white_out(&removed)?;
    }
    Ok(true)
}

/// Ends with an error if more is read than is allowed at this point.
struct Metered<R> {
    content: R,
    allowance: Rc<Cell<u64>>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.content.read(buffer)?;
        let left = self.allowance.get().checked_sub(read as u64);
        let left = left.ok_or_else(|| {
            io::Error::other("the headers of an entry, or what follows the last one, are too long")
        })?;
        self.allowance.set(left);
        Ok(read)
    }
}
