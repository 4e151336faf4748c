//! The coordinator's side of the raw process.

use crate::bench::{Bench, Model};
use crate::process::Process;
use crate::spec::{Raw, RawCommand, RawReady, RawRun};
use crate::usage::Family;
use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

/// Sessions in a separate process, loaded and run once.
pub(crate) struct RawSide {
    process: Process,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// Seconds for loading them and running each once.
    pub(crate) load: f64,
}

/// How many sessions there are, where they run, and with how many threads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sessions {
    pub(crate) count: usize,
    /// Whether the measured device runs them, not the CPU.
    pub(crate) on_device: bool,
    pub(crate) threads: usize,
    pub(crate) spinning: bool,
    pub(crate) batch: usize,
    pub(crate) samples: usize,
}

impl Sessions {
    /// One session per core, each with one thread.
    pub(crate) fn per_core(bench: &Bench) -> Self {
        Self {
            count: bench.cores,
            on_device: false,
            threads: 1,
            spinning: false,
            batch: 1,
            samples: usize::MAX,
        }
    }

    /// One session with all cores.
    pub(crate) fn one_with_all_cores(bench: &Bench, spinning: bool) -> Self {
        Self {
            count: 1,
            on_device: false,
            threads: bench.cores,
            spinning,
            batch: 1,
            samples: usize::MAX,
        }
    }

    /// On the measured device, with threads as the server's.
    pub(crate) fn on_device(bench: &Bench, count: usize) -> Self {
        Self {
            count,
            on_device: true,
            ..Self::per_core(bench)
        }
    }
}

impl RawSide {
    /// Starts it and waits until every session has run once.
    pub(crate) fn start(bench: &Bench, model: &Model, sessions: Sessions) -> Result<Self> {
        let folder = bench.models.join(model.name);
        let device = bench.device.as_ref().filter(|_| sessions.on_device);
        let spec = Raw {
            library: bench.library.clone(),
            provider: device.map(|device| device.provider.clone()),
            model: folder.join("model.onnx"),
            inputs: folder.join("inputs.f32"),
            samples: sessions.samples,
            shape: model.shape.to_vec(),
            batch: sessions.batch,
            sessions: sessions.count,
            threads: sessions.threads,
            spinning: sessions.spinning,
        };
        let mut command = Command::new(&bench.program);
        command
            .arg("raw")
            .arg(serde_json::to_string(&spec)?)
            .env("ORT_DISABLE_TELEMETRY", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        bench.find_libraries(&mut command)?;
        let mut process = Process::start(&mut command)?;
        let commands = process.child.stdin.take().context("no standard input")?;
        let answers = BufReader::new(process.child.stdout.take().context("no standard output")?);
        let mut raw = Self {
            process,
            commands,
            answers,
            load: 0.0,
        };
        raw.load = raw.answer::<RawReady>()?.seconds;
        Ok(raw)
    }

    fn answer<T: DeserializeOwned>(&mut self) -> Result<T> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("the raw side failed, it answered {line:?}"))
    }

    fn ask<T: DeserializeOwned>(&mut self, command: &RawCommand) -> Result<T> {
        let line = serde_json::to_string(command)? + "\n";
        self.commands.write_all(line.as_bytes())?;
        self.answer()
    }

    /// Runs all sessions; `server` is watched to check that it is idle.
    pub(crate) fn run(&mut self, bench: &Bench, window: f64, server: u32) -> Result<RawRun> {
        self.ask(&RawCommand::Run {
            warm: bench.warm,
            window,
            server,
        })
    }

    /// Writes the output of each sample; returns their number.
    pub(crate) fn outputs(&mut self, folder: &Path) -> Result<usize> {
        self.ask(&RawCommand::Outputs(folder.to_owned()))
    }

    /// Its processes.
    pub(crate) fn family(&self) -> Family {
        Family::of(self.process.id())
    }
}
