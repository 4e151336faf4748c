//! Measurements of processes and of the machine: CPU seconds and memory. Decides nothing.

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use std::fs;
use std::mem::MaybeUninit;

/// CPU seconds of this process, in user and system mode.
#[allow(unsafe_code)]
pub(crate) fn own_cpu() -> f64 {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is to memory of that type; all zeroes is a valid value of it, should the call fail.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    seconds(usage.ru_utime.tv_sec, usage.ru_utime.tv_usec, 1e6)
        + seconds(usage.ru_stime.tv_sec, usage.ru_stime.tv_usec, 1e6)
}

fn seconds(whole: i64, part: i64, per_second: f64) -> f64 {
    whole as f64 + part as f64 / per_second
}

/// A process and all its descendants: a server, or a supervisor with its workers.
#[derive(Clone, Debug)]
pub(crate) struct Family(Vec<i32>);

impl Family {
    /// Its current members.
    pub(crate) fn of(first: u32) -> Self {
        let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let parents: Vec<(i32, u64)> = pids.filter_map(|pid| Some((pid, stat_field(pid, 1)?))).collect();
        let mut family: Vec<i32> = i32::try_from(first).into_iter().filter(|&pid| pid > 0).collect();
        let mut next = 0;
        // Children may have left the process group and the session: only their parent identifies them.
        while let Some(&parent) = family.get(next) {
            let children = parents
                .iter()
                .filter(|(_, of)| *of == u64::from(parent.cast_unsigned()));
            family.extend(children.map(|(pid, _)| *pid));
            next += 1;
        }
        Self(family)
    }

    /// Ends all of them at once.
    pub(crate) fn kill(&self) {
        for pid in self.0.iter().filter_map(|&pid| Pid::from_raw(pid)) {
            // It may already have ended.
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    /// CPU seconds of the members, with the precision of the scheduler.
    pub(crate) fn cpu(&self) -> f64 {
        self.0.iter().map(|&pid| cpu_of(pid)).sum()
    }

    /// Memory in bytes; each page is divided by the number of processes that map it.
    pub(crate) fn proportional_memory(&self) -> Result<u64> {
        self.0
            .iter()
            .map(|&pid| kilobytes(&format!("/proc/{pid}/smaps_rollup"), "Pss:"))
            .sum()
    }

    /// Resident memory in bytes.
    pub(crate) fn resident_memory(&self) -> Result<u64> {
        self.0
            .iter()
            .map(|&pid| kilobytes(&format!("/proc/{pid}/status"), "VmRSS:"))
            .sum()
    }
}

/// The most resident memory that a process has had, in bytes.
pub(crate) fn peak_memory(pid: u32) -> Result<u64> {
    kilobytes(&format!("/proc/{pid}/status"), "VmHWM:")
}

/// A field of /proc/PID/stat, counted from 0 after the command's name.
fn stat_field(pid: i32, index: usize) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(index)?
        .parse()
        .ok()
}

/// 0 for a process that has ended.
#[allow(unsafe_code)]
fn cpu_of(pid: i32) -> f64 {
    let mut clock: libc::clockid_t = 0;
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: both pointers are to values of their types, which live longer than the calls.
    let failed = unsafe {
        libc::clock_getcpuclockid(pid, &raw mut clock) != 0 || libc::clock_gettime(clock, &raw mut time) != 0
    };
    if failed {
        0.0
    } else {
        seconds(time.tv_sec, time.tv_nsec, 1e9)
    }
}

fn kilobytes(path: &str, key: &str) -> Result<u64> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    let line = text.lines().find(|line| line.starts_with(key));
    let value = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    Ok(value.with_context(|| format!("{path} has no {key}"))? * 1024)
}

/// Busy seconds of the machine's cores, from all causes, since boot.
fn machine_busy() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let ticks: Vec<f64> = fields.filter_map(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; guest time is part of user.
    let busy: f64 = ticks
        .iter()
        .enumerate()
        .filter(|(index, _)| !matches!(index, 3 | 4) && *index < 8)
        .map(|(_, n)| n)
        .sum();
    busy / rustix::param::clock_ticks_per_second() as f64
}

/// CPU seconds at one moment, or between two.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Cpu {
    /// Of this process.
    pub(crate) own: f64,
    /// Of the watched processes.
    pub(crate) watched: f64,
    /// Of the machine, including this and the watched processes.
    pub(crate) machine: f64,
}

impl Cpu {
    pub(crate) fn now(watched: &Family) -> Self {
        Self {
            own: own_cpu(),
            watched: watched.cpu(),
            machine: machine_busy(),
        }
    }

    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            own: self.own - earlier.own,
            watched: self.watched - earlier.watched,
            machine: self.machine - earlier.machine,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With a wrong clock, every ratio and every CPU second of the table is wrong.
    #[test]
    fn the_same_work_is_seen_by_getrusage_and_by_the_clock_of_the_process() {
        let me = i32::try_from(std::process::id()).unwrap_or_default();
        // Other tests run in this process too, so one interval is nested in the other.
        let (clock, own) = (cpu_of(me), own_cpu());
        let inner = cpu_of(me);
        let mut sum = 0_u64;
        while own_cpu() - own < 0.05 {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(1));
        }
        let (inner, own, clock) = (cpu_of(me) - inner, own_cpu() - own, cpu_of(me) - clock);
        assert!(
            inner <= own + 0.001 && own <= clock + 0.001,
            "{inner} s, {own} s and {clock} s"
        );
    }
}
