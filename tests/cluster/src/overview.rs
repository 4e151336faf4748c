//! What is running on this machine, for `local-cluster status` and `down`.

use std::path::PathBuf;

use anyhow::Result;

use crate::{state, teardown};

/// A cluster that has a record, running or not.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Its name.
    pub name: String,
    /// Where its state and, below `log`, its parts' logs are.
    pub folder: PathBuf,
    /// Its parts, in the order in which they were started.
    pub parts: Vec<Part>,
}

impl Summary {
    /// Whether any part of it is running.
    pub fn is_running(&self) -> bool {
        self.parts.iter().any(|part| part.pid.is_some())
    }
}

/// One part of a cluster.
#[derive(Clone, Debug)]
pub struct Part {
    /// For example `kube-apiserver` or `node-1/kubelet`.
    pub name: String,
    /// Its process, unless it has ended.
    pub pid: Option<u32>,
}

/// All clusters on this machine.
pub fn clusters() -> Vec<Summary> {
    state::names().into_iter().map(summary).collect()
}

fn summary(name: String) -> Summary {
    let components = state::read(&name)
        .map(|record| record.components)
        .unwrap_or_default();
    let parts = components.into_iter().map(|component| Part {
        name: component.name,
        pid: component.process.is_alive().then_some(component.process.pid),
    });
    Summary {
        folder: state::folder_of(&name),
        parts: parts.collect(),
        name,
    }
}

/// Removes a cluster, whoever started it. False when there was none.
///
/// # Errors
/// When a part of it cannot be removed; trying again is safe.
pub fn remove(name: &str) -> Result<bool> {
    let _lock = state::lock()?;
    let known = state::names().iter().any(|known| known == name);
    if known {
        teardown::remove(name, state::read(name).ok().map(|record| record.slot))?;
    }
    Ok(known)
}
