//! Child processes: they and their descendants end with this process. None is in this process's group, so that an
//! interrupt from the keyboard reaches only the coordinator.

use crate::usage::Family;
use anyhow::{Context, Result};
use parking_lot::{Mutex, MutexGuard};
use rustix::process::Signal;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

static RUNNING: Mutex<Vec<u32>> = Mutex::new(Vec::new());

fn running() -> MutexGuard<'static, Vec<u32>> {
    RUNNING.lock()
}

/// A child; it and its descendants are killed when this is dropped.
pub(crate) struct Process {
    pub(crate) child: Child,
}

impl Process {
    /// Starts it.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        command.process_group(0);
        end_with_parent(command);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        running().push(child.id());
        Ok(Self { child })
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its exit status, if it has ended.
    pub(crate) fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().ok().flatten()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Workers would outlive the process that started them.
        Family::of(self.id()).kill();
        let _ = self.child.wait();
        running().retain(|id| *id != self.id());
    }
}

/// This process may itself be killed and unable to kill it.
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

/// Ends the children and this process on an interrupt.
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
                running().iter().for_each(|&id| Family::of(id).kill());
                eprintln!("bench-server: interrupted");
                std::process::exit(130);
            });
        })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;
    use std::time::{Duration, Instant};

    /// Workers of a dead server would take the cores from everything that is measured after it.
    #[test]
    fn what_a_child_has_started_ends_with_it_even_in_a_session_of_its_own() {
        let mut command = Command::new("sh");
        command
            .args(["-c", "setsid sleep 300 & echo $!; wait"])
            .stdout(Stdio::piped());
        let mut process = Process::start(&mut command).unwrap();
        let mut worker = String::new();
        BufReader::new(process.child.stdout.take().unwrap())
            .read_line(&mut worker)
            .unwrap();
        drop(process);
        // It has been re-parented: it is gone, or waits for its new parent to reap it.
        let status = format!("/proc/{}/status", worker.trim());
        let is_alive = || std::fs::read_to_string(&status).is_ok_and(|text| !text.contains("State:\tZ"));
        let deadline = Instant::now() + Duration::from_secs(10);
        while is_alive() {
            assert!(
                Instant::now() < deadline,
                "{}",
                std::fs::read_to_string(&status).unwrap()
            );
            std::thread::yield_now();
        }
    }
}
