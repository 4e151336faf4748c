//! Which blocks are complete and on disk, so that a killed download goes on. A line is written only once its block is
//! synced. The lines themselves are not: one that a crash of the machine loses costs only its block.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// The journal's name in its folder.
const FILE: &str = "journal";
/// Begins the line of an object whose blocks are no longer valid.
const FORGOTTEN: char = '-';

/// The journal of one download.
#[derive(Debug)]
pub(super) struct Journal {
    file: parking_lot::Mutex<File>,
}

/// Complete blocks: indices of the object and of the block.
pub(super) type Complete = BTreeSet<(usize, u64)>;

impl Journal {
    /// Opens the journal of the download with this name, or begins one: then, what another download has left in the folder
    /// is removed.
    pub(super) fn open(folder: &Path, name: &str) -> io::Result<(Self, Complete)> {
        let path = folder.join(FILE);
        let text = fs::read_to_string(&path).unwrap_or_default();
        let complete = read(&text, name);
        if complete.is_none() {
            match fs::remove_dir_all(folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => fs::create_dir_all(folder)?,
            }
            fs::write(&path, format!("{name}\n"))?;
        }
        let file = OpenOptions::new().append(true).open(&path)?;
        if complete.is_some() {
            // A line that was cut off when the process was killed must not merge with the next one.
            let whole = text.rfind('\n').map_or(0, |end| end + 1);
            file.set_len(whole as u64)?;
        }
        let file = file.into();
        Ok((Self { file }, complete.unwrap_or_default()))
    }

    /// Writes down that a block is complete, and synced.
    pub(super) fn complete(&self, object: usize, block: u64) -> io::Result<()> {
        self.write(&format!("{object} {block}\n"))
    }

    /// Writes down that nothing of an object is valid.
    pub(super) fn forget(&self, object: usize) -> io::Result<()> {
        self.write(&format!("{FORGOTTEN}{object}\n"))
    }

    fn write(&self, line: &str) -> io::Result<()> {
        self.file.lock().write_all(line.as_bytes())
    }
}

/// The blocks that a journal lists; `None` if it is of another download.
fn read(text: &str, name: &str) -> Option<Complete> {
    let mut lines = text.split_inclusive('\n');
    let first = lines.next()?;
    if first.trim_end() != name {
        return None;
    }
    let mut complete = Complete::new();
    for line in lines {
        // The last line may have been cut off.
        let Some(line) = line.strip_suffix('\n') else {
            continue;
        };
        if let Some(object) = line.strip_prefix(FORGOTTEN) {
            let object = object.parse::<usize>().ok()?;
            complete.retain(|&(of, _)| of != object);
        } else if let Some((object, block)) = line.split_once(' ') {
            let (Ok(object), Ok(block)) = (object.parse(), block.parse()) else {
                continue;
            };
            complete.insert((object, block));
        }
    }
    Some(complete)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_download_goes_on_where_it_was_killed() {
        let folder = tempfile::tempdir().unwrap();
        let (journal, complete) = Journal::open(folder.path(), "a").unwrap();
        assert!(complete.is_empty());
        journal.complete(0, 0).unwrap();
        journal.complete(1, 7).unwrap();
        journal.complete(2, 1).unwrap();
        journal.forget(1).unwrap();
        // A kill may cut off a line in the middle of a number.
        journal.write("0 12").unwrap();
        let (journal, complete) = Journal::open(folder.path(), "a").unwrap();
        assert_eq!(complete, Complete::from([(0, 0), (2, 1)]));
        journal.complete(0, 3).unwrap();
        let (_, complete) = Journal::open(folder.path(), "a").unwrap();
        assert_eq!(complete, Complete::from([(0, 0), (0, 3), (2, 1)]));
    }

    #[test]
    fn what_another_download_left_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(folder.path(), "a").unwrap();
        journal.complete(0, 0).unwrap();
        fs::write(folder.path().join("0"), "bytes of another version").unwrap();
        let (_, complete) = Journal::open(folder.path(), "b").unwrap();
        assert!(complete.is_empty());
        assert!(!folder.path().join("0").exists());
    }
}
