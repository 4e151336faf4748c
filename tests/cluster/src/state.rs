//! The record of each cluster, with which another process can find it, use it and clean it up:
//! /var/lib/msvc/NAME/record.json. Not below /run, which is often a small file system in memory.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::addresses::SLOTS;
use crate::cluster::ClusterOptions;
use crate::process::{Component, ProcessId};
use crate::teardown;

/// The record of one cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) slot: u8,
    /// The process that tears it down. `None` if it was started to stay.
    pub(crate) owner: Option<ProcessId>,
    /// How it was started; a control plane alone has no nodes.
    pub(crate) options: ClusterOptions,
    /// All components, in the order in which they were started.
    pub(crate) components: Vec<Component>,
}

impl Record {
    pub(crate) fn folder(&self) -> PathBuf {
        folder_of(&self.name)
    }

    pub(crate) fn save(&self) -> Result<()> {
        let (path, new) = (
            self.folder().join("record.json"),
            self.folder().join("record.json.new"),
        );
        fs::write(&new, serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("cannot write {}", new.display()))?;
        // Written and then renamed, so that a reader never finds an incomplete record.
        fs::rename(&new, &path).with_context(|| format!("cannot write {}", path.display()))
    }

    fn is_abandoned(&self) -> bool {
        self.owner.is_some_and(|owner| !owner.is_alive()) || (self.owner.is_none() && !self.is_running())
    }

    /// Whether any part of it is running. After a reboot, nothing is.
    pub(crate) fn is_running(&self) -> bool {
        self.components
            .iter()
            .any(|component| component.process.is_alive())
    }
}

/// The folder of all clusters' state.
pub(crate) fn root() -> PathBuf {
    PathBuf::from("/var/lib/msvc")
}

pub(crate) fn folder_of(name: &str) -> PathBuf {
    root().join(name)
}

/// Reads what is known about a cluster.
///
/// # Errors
/// When there is no such cluster.
pub(crate) fn read(name: &str) -> Result<Record> {
    let path = folder_of(name).join("record.json");
    let text = fs::read_to_string(&path).with_context(|| {
        format!("there is no cluster named {name:?}; start it with `local-cluster up --name {name}`")
    })?;
    serde_json::from_str(&text).with_context(|| {
        format!(
            "{} is not readable; `local-cluster down --name {name}` removes it",
            path.display()
        )
    })
}

/// The names of all clusters that have a folder, running or not.
pub(crate) fn names() -> Vec<String> {
    let entries = fs::read_dir(root()).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.path().is_dir());
    let mut names: Vec<String> = folders
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Reserves a name and a free slot for a new cluster. Leftovers of crashed runs are removed first.
pub(crate) fn claim(options: &ClusterOptions) -> Result<Record> {
    let name = &options.control_plane.name;
    check_name(name)?;
    let _lock = lock()?;
    clean_abandoned()?;
    let records: Vec<Record> = names().iter().filter_map(|name| read(name).ok()).collect();
    if records.iter().any(|record| record.name == *name) {
        bail!(
            "a cluster named {name:?} is already running; use another name, or `local-cluster down --name {name}`"
        );
    }
    let free = (0..SLOTS).find(|slot| records.iter().all(|record| record.slot != *slot));
    let slot = free.with_context(|| {
        format!("{SLOTS} clusters are already running; stop one with `local-cluster down --name …`")
    })?;
    let record = Record {
        name: name.clone(),
        slot,
        owner: Some(ProcessId::own()?),
        options: options.clone(),
        components: Vec::new(),
    };
    fs::create_dir_all(record.folder().join("log"))
        .with_context(|| format!("cannot make {}", record.folder().display()))?;
    record.save()?;
    Ok(record)
}

/// Removes leftovers of clusters whose owner has ended without tearing them down.
fn clean_abandoned() -> Result<()> {
    for name in names() {
        match read(&name) {
            Ok(record) if !record.is_abandoned() => {}
            Ok(record) => teardown::remove(&name, Some(record.slot))?,
            Err(_) => teardown::remove(&name, None)?,
        }
    }
    Ok(())
}

/// Serialises claims between processes; released when dropped.
pub(crate) fn lock() -> Result<File> {
    fs::create_dir_all(root()).with_context(|| format!("cannot make {}", root().display()))?;
    let path = root().join("lock");
    let file = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
    flock(&file, FlockOperation::LockExclusive).with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

fn check_name(name: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > 24 || !name.chars().all(allowed) {
        bail!("{name:?} is not a valid cluster name; use 1 to 24 of a-z, 0-9 and -");
    }
    Ok(())
}

/// The last lines of a file, for error messages.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
