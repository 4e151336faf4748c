//! Processes: the operator under test, and the machine's resources that each part of the control plane uses.

use local_cluster::ControlPlane;
use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::Instant,
};

pub(crate) struct Operator(Child);

impl Operator {
    /// Starts it in the control plane's network, where it reaches pods.
    pub(crate) fn start(plane: &ControlPlane, program: &Path) -> Self {
        let child = Command::new("nsenter")
            .arg(format!("--net={}", plane.netns().display()))
            .arg(program)
            .args([
                "--listen",
                "127.0.0.1:0",
                "--leader-elect",
                "--runtime-image",
                "runtime.example/server:1",
                "--log-level",
                "warn",
            ])
            .env("KUBECONFIG", plane.kubeconfig_path())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    pub(crate) fn cpu(&self) -> f64 {
        cpu_seconds(self.0.id())
    }

    /// Peak resident memory, in MiB.
    pub(crate) fn peak_memory(&self) -> f64 {
        self.memory("status", "VmHWM:")
    }

    /// Resident memory that is not the program's file, in MiB.
    pub(crate) fn anonymous_memory(&self) -> f64 {
        self.memory("status", "RssAnon:")
    }

    /// Prints what the memory consists of: the program's own pages are shared with its file.
    pub(crate) fn explain_memory(&self) {
        for (file, field) in [
            ("status", "VmHWM:"),
            ("status", "VmRSS:"),
            ("status", "RssAnon:"),
            ("status", "RssFile:"),
        ] {
            println!("    {:8.1}  MiB {field}", self.memory(file, field));
        }
    }

    fn memory(&self, file: &str, field: &str) -> f64 {
        let text = fs::read_to_string(format!("/proc/{}/{file}", self.0.id())).unwrap();
        let line = text.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
    }

    pub(crate) fn stop(&mut self) {
        rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.0),
            rustix::process::Signal::TERM,
        )
        .unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        // It may already have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// CPU seconds in user and system mode of a process.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    ticks(fields[11]) + ticks(fields[12])
}

fn ticks(field: &str) -> f64 {
    field.parse::<f64>().unwrap() / rustix::param::clock_ticks_per_second() as f64
}

/// The machine's CPU use since a moment.
pub(crate) struct Usage {
    began: Instant,
    parts: BTreeMap<String, f64>,
    busy: f64,
}

impl Usage {
    pub(crate) fn now(plane: &ControlPlane) -> Self {
        let mut parts = BTreeMap::new();
        for part in plane.components() {
            let seconds = plane.pids(&part).unwrap().into_iter().map(cpu_seconds).sum();
            parts.insert(part, seconds);
        }
        parts.insert("this client".to_owned(), cpu_seconds(std::process::id()));
        Self {
            began: Instant::now(),
            parts,
            busy: busy_seconds(),
        }
    }

    /// Prints the CPU seconds since, by part; returns how busy the machine's cores were, in percent.
    pub(crate) fn explain(&self, plane: &ControlPlane, operator: Option<&Operator>) -> f64 {
        let now = Self::now(plane);
        let wall = self.began.elapsed().as_secs_f64();
        for (part, seconds) in &now.parts {
            let before = self.parts.get(part).copied().unwrap_or(0.0);
            println!("    {:8.1}  CPU seconds of {part}", seconds - before);
        }
        if let Some(operator) = operator {
            println!("    {:8.1}  CPU seconds of the operator", operator.cpu());
        }
        let cores = std::thread::available_parallelism().unwrap().get() as f64;
        let busy = now.busy - self.busy;
        println!("    {busy:8.1}  CPU seconds of everything, in {wall:.1} s on {cores} cores");
        busy / (wall * cores) * 100.0
    }
}

/// CPU seconds of everything on this machine.
fn busy_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap();
    let fields: Vec<&str> = stat.lines().next().unwrap().split_whitespace().skip(1).collect();
    // user nice system idle iowait irq softirq steal
    [0, 1, 2, 5, 6, 7]
        .into_iter()
        .map(|field| ticks(fields[field]))
        .sum()
}
