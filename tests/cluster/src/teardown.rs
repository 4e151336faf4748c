//! Removes everything that belongs to a cluster. It needs only the name, since a crashed run may leave nothing else.
//!
//! All processes are killed at once: they share control groups, so none can hide or start again. A node's mounts are
//! in its private mount namespace and disappear with its last process; folders are removed only after that.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::addresses::SLOTS;
use crate::cgroup::Cgroup;
use crate::network::Namespaces;
use crate::state;

/// Tears the cluster down and checks that nothing is left of it.
pub(crate) fn remove(name: &str, slot: Option<u8>) -> Result<()> {
    let cgroup = Cgroup::of_cluster(name);
    cgroup.kill()?;
    // Without a slot (no readable record), only its link's name is unknown, and the link disappears with the
    // namespace.
    let namespaces = Namespaces::new(name, slot.unwrap_or(SLOTS));
    kill_visitors(&namespaces.existing());
    namespaces.remove()?;
    cgroup.remove()?;
    let folder = state::folder_of(name);
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(())
}

/// Kills processes that have entered the cluster's network from outside, such as the load generator of a crashed
/// test.
fn kill_visitors(namespaces: &[PathBuf]) {
    let inside: Vec<u64> = namespaces.iter().filter_map(|path| inode(path)).collect();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry
            .file_name()
            .to_string_lossy()
            .parse::<i32>()
            .ok()
            .and_then(Pid::from_raw);
        let (Some(pid), Some(own)) = (pid, inode(&entry.path().join("ns/net"))) else {
            continue;
        };
        if inside.contains(&own) {
            // It may meanwhile have ended by itself.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

fn inode(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|metadata| metadata.ino())
}

/// Lists what is left of a cluster: nothing after teardown.
pub(crate) fn leftovers(name: &str, slot: u8) -> Result<Vec<String>> {
    let cgroup = Cgroup::of_cluster(name);
    let folder = state::folder_of(name);
    let mounts = fs::read_to_string("/proc/mounts")?;
    let mut left = Vec::new();
    left.extend(cgroup.processes()?.iter().map(|pid| format!("process {pid}")));
    left.extend(
        cgroup
            .folders()?
            .iter()
            .map(|path| format!("control group {}", path.display())),
    );
    left.extend(
        mounts
            .lines()
            .filter(|line| line.contains(&*folder.to_string_lossy()))
            .map(|line| format!("mount {line}")),
    );
    if !Namespaces::new(name, slot).is_gone() {
        left.push("network namespaces or links".to_owned());
    }
    if folder.exists() {
        left.push(format!("folder {}", folder.display()));
    }
    Ok(left)
}
