//! Optimised graphs on disk. An entry is a folder whose name is the hash of everything that it depends on: the model,
//! the ONNX Runtime that optimised it and the processor that it was optimised for. It holds the graph, the weights, a
//! list of their checksums and, once measured, the cost of batches.

use crate::engine::curve::Curve;
use crate::package::what_fits;
use bytes::Bytes;
use modelservice_package::{Files, Most, Opened};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use twox_hash::XxHash3_128;

/// The graph, without its weights.
pub(crate) const GRAPH_FILE: &str = "graph.onnx";
/// The weights.
pub(crate) const WEIGHTS_FILE: &str = "weights.bin";
const ENTRY_FILE: &str = "entry.json";
const CURVE_FILE: &str = "batches.json";
/// Prefix of the name of an unfinished entry.
const UNFINISHED: &str = ".new-";
/// No graph takes this long to optimise.
const ABANDONED: Duration = Duration::from_secs(3600);
/// An entry that has not been read for this long belongs to a model, a runtime or a processor that is no longer used.
const UNUSED: Duration = Duration::from_secs(30 * 24 * 3600);
/// Changes when the content of an entry changes.
const FORMAT: u32 = 3;

/// What a graph was optimised from, and for what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Origin {
    format: u32,
    /// Digest of `model.onnx`.
    model: String,
    /// Size of `model.onnx` in bytes.
    bytes: u64,
    /// Version and build of ONNX Runtime.
    runtime: String,
    /// Hash of the processor's features.
    processor: String,
}

/// The manifest of an entry.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    origin: Origin,
    graph: String,
    weights: String,
}

/// The content of an entry.
pub(crate) struct Entry {
    pub(crate) graph: Bytes,
    pub(crate) weights: Vec<u8>,
    pub(crate) folder: PathBuf,
}

impl Origin {
    pub(crate) fn new(model: &str, bytes: u64, runtime: &str) -> Self {
        Self {
            format: FORMAT,
            model: model.to_owned(),
            bytes,
            runtime: runtime.to_owned(),
            processor: processor(),
        }
    }

    /// Name of the entry's folder.
    pub(crate) fn key(&self) -> String {
        let text = format!(
            "{}\n{}\n{}\n{}",
            self.format, self.model, self.runtime, self.processor
        );
        hash(text.as_bytes())[..16].to_owned()
    }
}

/// The first intact entry in these folders. A broken one is logged and skipped.
pub(crate) fn find(folders: &[PathBuf], origin: &Origin) -> Option<Entry> {
    folders.iter().find_map(|folder| {
        let folder = folder.join(origin.key());
        match read(&folder, origin) {
            Ok(entry) => Some(entry),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!("the optimised graph in {} is not used: {error}", folder.display());
                None
            }
        }
    })
}

/// A guess at the entry of a model of which only the size is known so far, with its origin: the most recently used
/// entry for a model of this size.
pub(crate) fn guess(folders: &[PathBuf], bytes: u64, runtime: &str) -> Option<(Origin, Entry)> {
    let entries = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok());
    let fitting = entries.flatten().filter_map(|entry| {
        let folder = entry.ok()?.path();
        let origin = manifest(&folder).ok()?.origin;
        let is_fitting =
            origin == Origin::new(&origin.model, bytes, runtime) && folder.ends_with(origin.key());
        is_fitting.then_some((last_used(&folder).ok()?, origin, folder))
    });
    let (_, origin, folder) = fitting.max_by_key(|(last_used, ..)| *last_used)?;
    let entry = read(&folder, &origin).ok()?;
    Some((origin, entry))
}

/// A file of an entry. Links are not followed, since servers never create any.
fn open(entry: &Path, name: &str) -> io::Result<Opened> {
    let (folder, key) = entry
        .parent()
        .zip(entry.file_name())
        .ok_or(io::ErrorKind::NotFound)?;
    Ok(Files::without_links(folder)?.open(Path::new(key).join(name))?)
}

fn manifest(folder: &Path) -> io::Result<Manifest> {
    let text = open(folder, ENTRY_FILE)?.read_all(Most::text())?;
    Ok(serde_json::from_slice(&text)?)
}

/// When an entry was created or last read: the time of its manifest.
fn last_used(folder: &Path) -> io::Result<SystemTime> {
    open(folder, ENTRY_FILE)?.file().metadata()?.modified()
}

fn read(folder: &Path, origin: &Origin) -> io::Result<Entry> {
    let invalid = |problem: &str| io::Error::new(io::ErrorKind::InvalidData, problem.to_owned());
    let manifest = manifest(folder)?;
    if manifest.origin != *origin {
        return Err(invalid("it belongs to another model, runtime or processor"));
    }
    // Read into private memory: with a memory map, a file that shrinks kills the process.
    let part = |name: &str, expected: &str| {
        let bytes = open(folder, name)?.read_all(what_fits())?;
        if checksum(&bytes) == expected {
            Ok(bytes)
        } else {
            Err(invalid(&format!("{name} is damaged")))
        }
    };
    let entry = Entry {
        graph: part(GRAPH_FILE, &manifest.graph)?.into(),
        weights: part(WEIGHTS_FILE, &manifest.weights)?,
        folder: folder.to_owned(),
    };
    // If the time cannot be written, entries cannot be removed either, so a failure does no harm.
    let _ = open(folder, ENTRY_FILE).and_then(|opened| opened.file().set_modified(SystemTime::now()));
    Ok(entry)
}

/// Creates an entry: `make` writes the graph and the weights into the folder that it is given. Until the entry is
/// complete it has another name, so that no reader sees an unfinished entry and several writers do not get in each
/// other's way.
pub(crate) fn write<E>(
    folder: &Path,
    origin: &Origin,
    make: impl FnOnce(&Path) -> Result<(), E>,
) -> io::Result<Result<Entry, E>> {
    std::fs::create_dir_all(folder)?;
    if let Err(error) = remove_abandoned(folder) {
        tracing::debug!("cannot clean up {}: {error}", folder.display());
    }
    let new = tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(folder)?;
    if let Err(error) = make(new.path()) {
        return Ok(Err(error));
    }
    let graph = std::fs::read(new.path().join(GRAPH_FILE))?;
    let weights = match std::fs::read(new.path().join(WEIGHTS_FILE)) {
        // The model has no large weights.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            std::fs::write(new.path().join(WEIGHTS_FILE), [])?;
            Vec::new()
        }
        weights => weights?,
    };
    let manifest = Manifest {
        origin: origin.clone(),
        graph: checksum(&graph),
        weights: checksum(&weights),
    };
    std::fs::write(new.path().join(ENTRY_FILE), serde_json::to_vec_pretty(&manifest)?)?;
    let entry = folder.join(origin.key());
    if let Err(error) = std::fs::rename(new.path(), &entry) {
        // Another server has written the entry: it can be used, if it is intact.
        if let Ok(other) = read(&entry, origin) {
            return Ok(Ok(other));
        }
        std::fs::remove_dir_all(&entry).map_err(|_| error)?;
        std::fs::rename(new.path(), &entry)?;
    }
    Ok(Ok(Entry {
        graph: graph.into(),
        weights,
        folder: entry,
    }))
}

/// An entry without a graph, for what is measured on a device: its provider compiles graphs itself.
pub(crate) fn measurements(folder: &Path, origin: &Origin) -> io::Result<PathBuf> {
    let entry = folder.join(origin.key());
    if manifest(&entry).is_ok_and(|manifest| manifest.origin == *origin) {
        let _ = open(&entry, ENTRY_FILE).and_then(|opened| opened.file().set_modified(SystemTime::now()));
        return Ok(entry);
    }
    let make = |new: &Path| std::fs::write(new.join(GRAPH_FILE), []);
    write(folder, origin, make)??;
    Ok(entry)
}

/// Removes what killed writers have left behind.
fn remove_abandoned(folder: &Path) -> io::Result<()> {
    for new in std::fs::read_dir(folder)? {
        let new = new?;
        let is_new = new.file_name().to_string_lossy().starts_with(UNFINISHED);
        let age = new.metadata()?.modified()?.elapsed().unwrap_or_default();
        if is_new && age > ABANDONED {
            std::fs::remove_dir_all(new.path())?;
        }
    }
    Ok(())
}

/// Removes entries that have not been read for a long time, whoever created them.
///
/// # Errors
/// When an entry cannot be removed, or the folder cannot be read.
pub(crate) fn remove_unused(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?.path();
        // A folder without a manifest is not ours, or not finished.
        let is_unused = last_used(&entry).is_ok_and(|last| last.elapsed().is_ok_and(|age| age > UNUSED));
        if is_unused {
            std::fs::remove_dir_all(&entry)?;
        }
    }
    Ok(())
}

/// The cost of batches of the entry's model, if it has been measured.
pub(crate) fn curve(folder: &Path, cores: usize) -> Option<Curve> {
    let mut file = open(folder, &format!("{cores}-{CURVE_FILE}")).ok()?;
    let text = file.read_all(Most::text()).ok()?;
    serde_json::from_slice(&text).ok().filter(Curve::is_plausible)
}

/// Stores the cost of batches.
pub(crate) fn store_curve(folder: &Path, cores: usize, curve: &Curve) -> io::Result<()> {
    let file = tempfile::NamedTempFile::new_in(folder)?;
    serde_json::to_writer(&file, curve)?;
    file.persist(folder.join(format!("{cores}-{CURVE_FILE}")))?;
    Ok(())
}

/// Detects damage only. Anyone who can write here can also write the list of checksums, so a cryptographic hash would
/// gain nothing and would slow down the start.
fn checksum(bytes: &[u8]) -> String {
    format!("{:032x}", XxHash3_128::oneshot(bytes))
}

fn hash(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

/// The processor's features as Linux lists them: a graph is optimised for the widest vector instructions of its
/// processor.
fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let features = |line: &&str| line.starts_with("flags") || line.starts_with("Features");
    hash(text.lines().find(features).unwrap_or_default().as_bytes())[..16].to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn entry(folder: &Path, origin: &Origin) -> Entry {
        let made = write(folder, origin, |new| {
            std::fs::write(new.join(GRAPH_FILE), b"graph")?;
            std::fs::write(new.join(WEIGHTS_FILE), b"weights")
        });
        made.unwrap().unwrap()
    }

    #[test]
    fn what_is_written_is_found_again_but_by_no_other_model_or_runtime() {
        let folder = tempfile::tempdir().unwrap();
        let folders = [folder.path().join("empty"), folder.path().to_owned()];
        let origin = Origin::new("sha256:1", 7, "1.31");
        assert!(find(&folders, &origin).is_none());
        entry(folder.path(), &origin);
        let found = find(&folders, &origin).unwrap();
        assert_eq!(
            (&found.graph[..], &found.weights[..]),
            (&b"graph"[..], &b"weights"[..])
        );
        for other in [
            Origin::new("sha256:2", 7, "1.31"),
            Origin::new("sha256:1", 7, "1.30"),
        ] {
            assert!(find(&folders, &other).is_none());
        }
    }

    /// A wrong guess costs time: the entry is read for nothing, and the right one afterwards.
    #[test]
    fn before_the_digest_is_known_the_last_used_entry_of_a_model_of_that_size_is_guessed() {
        let folder = tempfile::tempdir().unwrap();
        let folders = [folder.path().join("empty"), folder.path().to_owned()];
        let origins = ["sha256:1", "sha256:2"].map(|model| Origin::new(model, 7, "1.31"));
        for origin in [&origins[0], &origins[1], &Origin::new("sha256:3", 8, "1.31")] {
            entry(folder.path(), origin);
        }
        for origin in &origins {
            age(&folder.path().join(origin.key()), UNUSED);
        }
        for origin in [&origins[1], &origins[0], &origins[1]] {
            find(&folders, origin).unwrap();
            let (guessed, _) = guess(&folders, 7, "1.31").unwrap();
            assert_eq!(guessed, *origin);
        }
        assert!(guess(&folders, 9, "1.31").is_none());
        assert!(guess(&folders, 7, "1.30").is_none());
        let used = folder.path().join(origins[1].key());
        std::fs::write(used.join(WEIGHTS_FILE), "weight").unwrap();
        assert!(guess(&folders, 7, "1.31").is_none(), "it is damaged");
    }

    /// Otherwise the volume would fill up with graphs of models that have been replaced.
    #[test]
    fn what_nobody_has_read_for_long_is_removed_and_what_is_used_stays() {
        let folder = tempfile::tempdir().unwrap();
        let [unused, read, young] = ["1", "2", "3"].map(|model| Origin::new(model, 7, "1.31"));
        for origin in [&unused, &read, &young] {
            entry(folder.path(), origin);
        }
        for origin in [&unused, &read] {
            age(&folder.path().join(origin.key()), UNUSED + ABANDONED);
        }
        age(&folder.path().join(young.key()), UNUSED - ABANDONED);
        std::fs::create_dir(folder.path().join("lost+found")).unwrap();
        let folders = [folder.path().to_owned()];
        find(&folders, &read).unwrap();
        remove_unused(folder.path()).unwrap();
        assert!(find(&folders, &unused).is_none());
        assert!(find(&folders, &read).is_some() && find(&folders, &young).is_some());
        assert!(folder.path().join("lost+found").exists());
    }

    fn age(entry: &Path, by: Duration) {
        let manifest = std::fs::File::open(entry.join(ENTRY_FILE)).unwrap();
        manifest.set_modified(SystemTime::now() - by).unwrap();
    }

    /// Otherwise anyone who can write a package could make the server read files that it must not, or wait for ever.
    #[test]
    fn an_entry_with_a_link_or_a_pipe_in_it_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let folders = [folder.path().join("graphs")];
        let origin = Origin::new("sha256:1", 7, "1.31");
        let made = entry(&folders[0], &origin).folder;
        let elsewhere = folder.path().join("elsewhere");
        for file in [GRAPH_FILE, WEIGHTS_FILE, ENTRY_FILE] {
            std::fs::rename(made.join(file), &elsewhere).unwrap();
            std::os::unix::fs::symlink(&elsewhere, made.join(file)).unwrap();
            assert!(find(&folders, &origin).is_none(), "{file} is a link");
            std::fs::remove_file(made.join(file)).unwrap();
            let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
            let pipe = rustix::fs::FileType::Fifo;
            rustix::fs::mknodat(rustix::fs::CWD, made.join(file), pipe, mode, 0).unwrap();
            assert!(find(&folders, &origin).is_none(), "{file} is a pipe");
            assert!(guess(&folders, 7, "1.31").is_none(), "{file} is a pipe");
            std::fs::rename(&elsewhere, made.join(file)).unwrap();
            assert!(find(&folders, &origin).is_some());
        }
        for place in [&made, &folders[0]] {
            std::fs::rename(place, &elsewhere).unwrap();
            std::os::unix::fs::symlink(&elsewhere, place).unwrap();
            assert!(find(&folders, &origin).is_none(), "{} is a link", place.display());
            assert!(
                guess(&folders, 7, "1.31").is_none(),
                "{} is a link",
                place.display()
            );
            std::fs::remove_file(place).unwrap();
            std::fs::rename(&elsewhere, place).unwrap();
        }
    }

    /// Half a graph might load and give wrong results.
    #[test]
    fn a_damaged_or_foreign_entry_is_not_used_and_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let folders = [folder.path().to_owned()];
        let origin = Origin::new("sha256:1", 7, "1.31");
        let made = entry(folder.path(), &origin).folder;
        for (file, content) in [
            (GRAPH_FILE, "grapf"),
            (WEIGHTS_FILE, "weight"),
            (ENTRY_FILE, "{"),
            (ENTRY_FILE, "{}"),
        ] {
            std::fs::write(made.join(file), content).unwrap();
            assert!(find(&folders, &origin).is_none(), "{file}");
            entry(folder.path(), &origin);
            assert!(find(&folders, &origin).is_some(), "{file}");
        }
        let other = entry(folder.path(), &Origin::new("sha256:2", 7, "1.31")).folder;
        std::fs::remove_dir_all(&made).unwrap();
        std::fs::rename(other, &made).unwrap();
        assert!(find(&folders, &origin).is_none());
    }

    /// Two servers on one volume create the same entry: the second must not take it away from the first.
    #[test]
    fn an_entry_that_is_there_and_whole_stays() {
        let folder = tempfile::tempdir().unwrap();
        let origin = Origin::new("sha256:1", 7, "1.31");
        let first = entry(folder.path(), &origin).folder;
        let file = first.join(GRAPH_FILE);
        let made = std::fs::metadata(&file).unwrap().modified().unwrap();
        assert_eq!(entry(folder.path(), &origin).folder, first);
        assert_eq!(std::fs::metadata(&file).unwrap().modified().unwrap(), made);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_curve_is_kept_for_its_number_of_cores() {
        let folder = tempfile::tempdir().unwrap();
        let mut measured = Curve::default();
        measured.add(1, std::time::Duration::from_millis(5));
        store_curve(folder.path(), 2, &measured).unwrap();
        assert_eq!(curve(folder.path(), 2), Some(measured));
        assert_eq!(curve(folder.path(), 4), None);
        for damaged in [
            r#"{"runs":{"1":[-1.0]}}"#,
            r#"{"runs":{"0":[1.0]}}"#,
            r#"{"runs":{"1":[1e300]}}"#,
            "{",
        ] {
            std::fs::write(folder.path().join(format!("2-{CURVE_FILE}")), damaged).unwrap();
            assert_eq!(curve(folder.path(), 2), None, "{damaged}");
        }
    }
}
