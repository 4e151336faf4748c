//! A running cluster: its record, the processes that this process has started, its logs, and its teardown.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::addresses::Addresses;
use crate::cgroup::Cgroup;
use crate::cluster::ClusterOptions;
use crate::network::{self, Namespaces};
use crate::process::{self, Component, ProcessId};
use crate::wait::wait_until;
use crate::{state, teardown, tools};

/// Shared by a control plane and its nodes. Dropping it tears the cluster down, unless it was kept.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) name: String,
    pub(crate) slot: u8,
    pub(crate) folder: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    record: state::Record,
    /// The processes that this process has started, which it has to wait for: otherwise they become zombies.
    children: Vec<Child>,
}

impl Instance {
    /// Reserves the name and a slot; nothing is running yet.
    pub(crate) fn create(options: &ClusterOptions) -> Result<Self> {
        Ok(Self::of_record(state::claim(options)?))
    }

    /// A cluster that another process has started and kept.
    pub(crate) fn open(name: &str) -> Result<Self> {
        let record = state::read(name)?;
        if !record.is_running() {
            bail!(
                "the cluster {name:?} is no longer running; start it with `local-cluster up --name {name}`"
            );
        }
        Ok(Self::of_record(record))
    }

    fn of_record(record: state::Record) -> Self {
        Self {
            name: record.name.clone(),
            slot: record.slot,
            folder: record.folder(),
            state: Mutex::new(State {
                record,
                children: Vec::new(),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere must not prevent the teardown.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn addresses(&self) -> Addresses {
        Addresses::of_slot(self.slot)
    }

    pub(crate) fn namespaces(&self) -> Namespaces {
        Namespaces::new(&self.name, self.slot)
    }

    pub(crate) fn cgroup(&self) -> Cgroup {
        Cgroup::of_cluster(&self.name)
    }

    pub(crate) fn options(&self) -> ClusterOptions {
        self.state().record.options.clone()
    }

    /// Leaves the cluster running when this process ends.
    pub(crate) fn keep(&self) -> Result<()> {
        let mut state = self.state();
        state.record.owner = None;
        state.record.save()
    }

    /// Starts a component in the hub's network.
    pub(crate) fn start(&self, name: &str, program: &str, arguments: &[String]) -> Result<()> {
        let mut command = vec![
            "nsenter".to_owned(),
            format!("--net={}", network::path(&self.namespaces().hub()).display()),
        ];
        command.push(tools::tool(program)?.to_string_lossy().into_owned());
        command.extend_from_slice(arguments);
        self.start_command(name, command)
    }

    /// Starts a component with its full command line.
    pub(crate) fn start_command(&self, name: &str, command: Vec<String>) -> Result<()> {
        let mut child = process::spawn(&command, &self.log(name))?;
        let adopted = self.cgroup().adopt(process::machine(name), child.id());
        if let Err(error) = adopted {
            // Nothing could find it later.
            let _ = child.kill();
            return Err(error.context(self.log_tail(name)));
        }
        let component = Component {
            name: name.to_owned(),
            command,
            process: ProcessId::of(child.id())?,
        };
        let mut state = self.state();
        state.children.push(child);
        state.record.components.retain(|known| known.name != name);
        state.record.components.push(component);
        state.record.save()
    }

    pub(crate) fn component(&self, name: &str) -> Result<Component> {
        let state = self.state();
        let found = state
            .record
            .components
            .iter()
            .find(|component| component.name == name);
        found.cloned().with_context(|| {
            let names: Vec<&str> = state
                .record
                .components
                .iter()
                .map(|component| component.name.as_str())
                .collect();
            format!(
                "{} has no part named {name:?}; it has {}",
                self.name,
                names.join(", ")
            )
        })
    }

    pub(crate) fn components(&self) -> Vec<Component> {
        self.state().record.components.clone()
    }

    /// Asks a component to end, and kills it after some seconds.
    pub(crate) fn stop(&self, name: &str) -> Result<()> {
        let process = self.component(name)?.process;
        process.signal(Signal::TERM)?;
        let ended = |timeout| {
            wait_until(&format!("{name} has ended"), Duration::from_secs(timeout), || {
                self.reap();
                Ok(!process.is_alive())
            })
        };
        ended(5).or_else(|_| {
            process.signal(Signal::KILL)?;
            ended(5)
        })
    }

    /// Runs a component again with the command line it had.
    pub(crate) fn restart(&self, name: &str) -> Result<()> {
        let component = self.component(name)?;
        self.stop(name)?;
        self.start_command(name, component.command)
    }

    /// Fails if a component has ended by itself, with the end of its log.
    pub(crate) fn check_alive(&self, name: &str) -> Result<()> {
        if !self.component(name)?.process.is_alive() {
            bail!("{name} has ended by itself. {}", self.log_tail(name));
        }
        Ok(())
    }

    /// Waits until a component of the hub listens.
    pub(crate) fn wait_port(&self, component: &str, port: u16) -> Result<()> {
        let address = (self.addresses().hub_end(), port).into();
        wait_until(&format!("{component} answers"), Duration::from_secs(30), || {
            self.check_alive(component)?;
            Ok(TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok())
        })
        .with_context(|| self.log_tail(component))
    }

    fn reap(&self) {
        self.state()
            .children
            .retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }

    pub(crate) fn log(&self, component: &str) -> PathBuf {
        self.folder
            .join("log")
            .join(format!("{}.log", component.replace('/', ".")))
    }

    pub(crate) fn log_tail(&self, component: &str) -> String {
        let path = self.log(component);
        format!("The end of {}:\n{}", path.display(), state::tail(&path, 15))
    }

    /// Stops everything and removes what is left.
    pub(crate) fn tear_down(&self) -> Result<()> {
        let removed = teardown::remove(&self.name, Some(self.slot));
        for mut child in self.state().children.drain(..) {
            let _ = child.wait();
        }
        removed
    }

    /// Copies the logs to a folder that outlives the cluster, and prints its path.
    pub(crate) fn save_logs(&self) -> Result<PathBuf> {
        let target = tools::repository().join("target/local-cluster").join(&self.name);
        copy_folder(&self.folder.join("log"), &target)?;
        Ok(target)
    }
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

impl Drop for Instance {
    fn drop(&mut self) {
        if self.state().record.owner.is_none() {
            return;
        }
        if std::thread::panicking() {
            for component in self.components() {
                eprintln!("--- {}: {}", component.name, self.log_tail(&component.name));
            }
            match self.save_logs() {
                Ok(folder) => eprintln!("All logs of the cluster {}: {}", self.name, folder.display()),
                Err(error) => eprintln!(
                    "The logs of the cluster {} could not be saved: {error:#}",
                    self.name
                ),
            }
        }
        if let Err(error) = self.tear_down() {
            eprintln!(
                "The cluster {} was not removed completely: {error:#}. Try `local-cluster down --name {}`.",
                self.name, self.name
            );
        }
    }
}
