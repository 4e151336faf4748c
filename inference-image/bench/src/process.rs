//! Child processes: each leads a process group, and all of them end with this one, however it ends.

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process_group};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::{Mutex, PoisonError};

static GROUPS: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

fn groups() -> std::sync::MutexGuard<'static, Vec<Pid>> {
    GROUPS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A child; it and what it has started are killed when this is dropped.
pub(crate) struct Process {
    pub(crate) child: Child,
    group: Pid,
}

impl Process {
    /// Starts it.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        command.process_group(0);
        end_with_parent(command);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let group = Pid::from_child(&child);
        groups().push(group);
        Ok(Self { child, group })
    }

    /// Leads its process group.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().ok().flatten()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Workers may outlive the one that started them.
        let _ = kill_process_group(self.group, Signal::KILL);
        let _ = self.child.wait();
        groups().retain(|group| *group != self.group);
    }
}

/// Nobody may be there to kill it: this process may be killed itself.
#[allow(unsafe_code)]
fn end_with_parent(command: &mut Command) {
    // SAFETY: between fork and exec it makes one system call and touches no memory that is shared.
    unsafe {
        command.pre_exec(|| {
            Ok(rustix::process::set_parent_process_death_signal(Some(
                Signal::KILL,
            ))?)
        });
    }
}

/// Ends the children and this process when it is interrupted.
pub(crate) fn watch_signals() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
                let (Ok(mut interrupt), Ok(mut terminate)) = signals else {
                    return;
                };
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                for group in groups().iter() {
                    let _ = kill_process_group(*group, Signal::KILL);
                }
                eprintln!("bench-server: interrupted");
                std::process::exit(130);
            });
        })?;
    Ok(())
}
