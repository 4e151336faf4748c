//! The cluster's components as processes: what was started, whether it is still running, how to signal it.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Stdio};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::command::direct;
use crate::tools;

/// A process that cannot be confused with a later one with the same ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    pub(crate) pid: u32,
    /// In clock ticks since the machine's start: field 22 of /proc/PID/stat.
    started: u64,
}

impl ProcessId {
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let (_, started) = stat(pid).with_context(|| format!("process {pid} ended at once"))?;
        Ok(Self { pid, started })
    }

    pub(crate) fn own() -> Result<Self> {
        Self::of(std::process::id())
    }

    /// A zombie that nobody has waited for yet is not alive.
    pub(crate) fn is_alive(self) -> bool {
        stat(self.pid).is_some_and(|(state, started)| started == self.started && state != 'Z')
    }

    pub(crate) fn signal(self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid)
            .ok()
            .and_then(Pid::from_raw)
            .context("not a process id")?;
        if self.is_alive() {
            kill_process(pid, signal).with_context(|| format!("cannot signal process {}", self.pid))?;
        }
        Ok(())
    }
}

/// State and start time. The command's name, in parentheses before them, may itself contain spaces and parentheses.
fn stat(pid: u32) -> Option<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some((fields.first()?.chars().next()?, fields.get(19)?.parse().ok()?))
}

/// One part of a cluster, for example `kube-apiserver` or `node-1/kubelet`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Component {
    pub(crate) name: String,
    /// Its full command line, including the part that enters the namespaces: a restart runs it again.
    pub(crate) command: Vec<String>,
    pub(crate) process: ProcessId,
}

/// The machine a component belongs to, its control group's name: `hub`, or the node's.
pub(crate) fn machine(component: &str) -> &str {
    component.split_once('/').map_or("hub", |(node, _)| node)
}

/// Starts a component in its own session, away from the terminal's signals, and with only the variables that it
/// needs: it must not use this shell's proxies and kubeconfig.
pub(crate) fn spawn(command: &[String], log: &Path) -> Result<Child> {
    let file = File::options().create(true).append(true).open(log)?;
    direct("setsid")
        .args(command)
        .env_clear()
        .env(
            "PATH",
            format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", tools::folder().display()),
        )
        .env("HOME", "/root")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
        .with_context(|| format!("cannot start {}", command.join(" ")))
}
