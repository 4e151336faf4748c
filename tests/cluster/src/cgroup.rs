//! The cluster's control groups: every process of a cluster, pods included, is in one, so that teardown finds all of
//! them without knowing their IDs. Supports cgroup v1 and v2.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::wait::wait_until;

const MOUNT: &str = "/sys/fs/cgroup";

/// The groups of one cluster: `msvc-NAME` in every hierarchy.
#[derive(Clone, Debug)]
pub(crate) struct Cgroup {
    name: String,
}

impl Cgroup {
    pub(crate) fn of_cluster(cluster: &str) -> Self {
        Self {
            name: format!("msvc-{cluster}"),
        }
    }

    /// The group below which the kubelet of `node` creates its pods' groups.
    pub(crate) fn of_node(&self, node: &str) -> String {
        format!("/{}/{node}", self.name)
    }

    /// Creates the groups of one machine: `system` for its components, and beside it those of its pods.
    pub(crate) fn create(&self, machine: &str) -> Result<()> {
        for hierarchy in hierarchies()? {
            let mut path = hierarchy.clone();
            for part in [self.name.as_str(), machine, "system"] {
                delegate_controllers(&path);
                path.push(part);
                fs::create_dir_all(&path).with_context(|| {
                    format!(
                        "cannot make the control group {}; is the cgroup file system writable?",
                        path.display()
                    )
                })?;
                inherit_cpuset(&path)?;
            }
        }
        Ok(())
    }

    /// Moves a newly started process into its machine's group.
    pub(crate) fn adopt(&self, machine: &str, pid: u32) -> Result<()> {
        let tracked = tracking_hierarchy()?
            .join(&self.name)
            .join(machine)
            .join("system/cgroup.procs");
        fs::write(&tracked, pid.to_string())
            .with_context(|| format!("cannot put process {pid} into {}", tracked.display()))
    }

    /// Kills every process of the cluster and waits until they are gone.
    pub(crate) fn kill(&self) -> Result<()> {
        wait_until(
            &format!("all processes of {} have ended", self.name),
            Duration::from_secs(30),
            || {
                let processes = self.processes()?;
                for pid in processes.iter().filter_map(|pid| Pid::from_raw(*pid)) {
                    // It may meanwhile have ended by itself.
                    let _ = kill_process(pid, Signal::KILL);
                }
                Ok(processes.is_empty())
            },
        )
    }

    /// Every process of the cluster, those in pods included.
    pub(crate) fn processes(&self) -> Result<Vec<i32>> {
        let mut found = Vec::new();
        for folder in self.folders()? {
            let listed = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            found.extend(listed.lines().filter_map(|line| line.parse::<i32>().ok()));
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// Removes the empty groups. The kernel releases a group a moment after its last process has ended.
    pub(crate) fn remove(&self) -> Result<()> {
        wait_until(
            &format!("the control groups {} are removed", self.name),
            Duration::from_secs(10),
            || {
                for folder in self.folders()?.iter().rev() {
                    fs::remove_dir(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
                }
                Ok(self.folders()?.is_empty())
            },
        )
    }

    /// All folders of the cluster in all hierarchies, parents before children.
    pub(crate) fn folders(&self) -> Result<Vec<PathBuf>> {
        let mut found: Vec<PathBuf> = hierarchies()?
            .iter()
            .map(|root| root.join(&self.name))
            .filter(|path| path.is_dir())
            .collect();
        let mut next = 0;
        while let Some(folder) = found.get(next).cloned() {
            // A folder that has meanwhile disappeared has no children.
            let below = fs::read_dir(&folder).into_iter().flatten().flatten();
            found.extend(below.map(|entry| entry.path()).filter(|path| path.is_dir()));
            next += 1;
        }
        Ok(found)
    }
}

fn is_unified() -> bool {
    Path::new(MOUNT).join("cgroup.controllers").is_file()
}

/// One folder on cgroup v2; on v1 one per mounted controller.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let mount = Path::new(MOUNT);
    if is_unified() {
        return Ok(vec![mount.to_path_buf()]);
    }
    let entries = fs::read_dir(mount)
        .with_context(|| format!("cannot list {MOUNT}; mount the cgroup file systems there"))?;
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        // Links such as cpu -> cpu,cpuacct would be counted twice.
        if entry.file_type()?.is_dir() && entry.path().join("cgroup.procs").is_file() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// The hierarchy in which every process of a cluster is registered.
fn tracking_hierarchy() -> Result<PathBuf> {
    let all = hierarchies()?;
    let preferred = all.iter().find(|path| path.ends_with("pids")).or(all.first());
    preferred
        .cloned()
        .with_context(|| format!("no cgroup hierarchy is mounted at {MOUNT}"))
}

/// cgroup v2: children can only be limited by controllers that all their parents delegate. If a controller cannot be
/// delegated, the kubelet reports that, if it needs the controller.
fn delegate_controllers(path: &Path) {
    let Ok(available) = fs::read_to_string(path.join("cgroup.controllers")) else {
        return;
    };
    for controller in available.split_whitespace() {
        let _ = fs::write(path.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

/// cgroup v1: a new cpuset is empty and accepts no process until its processors and memory nodes are set.
fn inherit_cpuset(path: &Path) -> Result<()> {
    let Some(parent) = path.parent() else {
        return Ok(());
    };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = path.join(file);
        if is_unified() || !own.is_file() || !fs::read_to_string(&own)?.trim().is_empty() {
            continue;
        }
        fs::write(&own, fs::read_to_string(parent.join(file))?.trim())
            .with_context(|| format!("cannot set {}", own.display()))?;
    }
    Ok(())
}
