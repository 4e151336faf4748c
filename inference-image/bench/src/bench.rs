//! What every row needs: paths, durations, prepared requests, and loads.

use crate::encode;
use crate::process::Process;
use crate::provider::{self, Device};
use crate::raw::read_floats;
use crate::rawside::{RawSide, Sessions};
use crate::spec::{Answer, Drive, Driven, Open, RawRun, Request, Wire};
use crate::table::median;
use crate::usage::Family;
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Paths and times of a run.
pub(crate) struct Bench {
    /// This program.
    pub(crate) program: PathBuf,
    /// The server's release build.
    pub(crate) server: PathBuf,
    /// The ONNX Runtime library, for both sides.
    pub(crate) library: PathBuf,
    /// Folders with the libraries that it needs.
    libraries: Vec<PathBuf>,
    /// The folder with the models that models.py creates.
    pub(crate) models: PathBuf,
    /// Folder for the requests and logs of this run.
    pub(crate) work: PathBuf,
    pub(crate) cores: usize,
    pub(crate) rounds: usize,
    /// Seconds of warm-up before a measurement, and of the measurement.
    pub(crate) warm: f64,
    pub(crate) window: f64,
    /// Whether other servers are measured too.
    pub(crate) peers: bool,
    /// What is measured instead of the CPU.
    pub(crate) device: Option<Device>,
    only: String,
}

/// A model package below [`Bench::models`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Model {
    pub(crate) name: &'static str,
    /// Its name in the table.
    pub(crate) title: &'static str,
    /// Shape of one sample.
    pub(crate) shape: &'static [i64],
}

pub(crate) const RESNET: Model = Model {
    name: "resnet8",
    title: "ResNet-8",
    shape: &[3, 32, 32],
};
pub(crate) const RESNET50: Model = Model {
    name: "resnet50",
    title: "ResNet-50",
    shape: &[3, 224, 224],
};
pub(crate) const EFFICIENTNET: Model = Model {
    name: "efficientnet-lite0",
    title: "EfficientNet-Lite0",
    shape: &[3, 224, 224],
};
pub(crate) const QUANTISED: Model = Model {
    name: "efficientnet-lite0-int8",
    title: "EfficientNet-Lite0 int8",
    shape: &[3, 224, 224],
};
pub(crate) const IDENTITY: Model = Model {
    name: "identity",
    title: "identity",
    shape: &[3072],
};
pub(crate) const HEAVY: Model = Model {
    name: "heavy",
    title: "a model of 236 MB",
    shape: &[3, 64, 64],
};
/// It takes images of any size.
pub(crate) const ANY_SIZE: Model = Model {
    name: "any-size",
    title: "images of any size",
    shape: &[3, -1, -1],
};

/// A sample for a model, and ONNX Runtime's output for it.
pub(crate) struct Sample {
    pub(crate) tensor: Vec<u8>,
    pub(crate) answer: Answer,
}

impl Sample {
    /// ONNX Runtime's output.
    pub(crate) fn values(&self) -> Result<Vec<f32>> {
        match &self.answer {
            Answer::Tensor(path) => read_floats(path),
            Answer::Class(_) | Answer::Any => bail!("a sample's answer is not a tensor"),
        }
    }
}

impl Bench {
    /// Paths below the repository's root; the programs are next to this one.
    pub(crate) fn new(
        rounds: usize,
        window: f64,
        only: Option<String>,
        peers: bool,
        device: Option<Device>,
    ) -> Result<Self> {
        let program = std::env::current_exe()?;
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../..")
            .canonicalize()?;
        let libraries = provider::libraries(device.as_ref(), &root.join(".cache/onnxruntime"));
        let library = libraries[0].join("libonnxruntime.so");
        let flavour = device.as_ref().map_or("cpu", Device::name);
        let server = program.with_file_name("modelservice-server");
        let models = root.join(".cache/bench-models");
        for (path, made_by) in [
            (
                &library,
                &*format!("FLAVOUR={flavour} inference-image/onnxruntime"),
            ),
            (&server, "cargo build --release --package modelservice-server"),
            (&models, "scripts/bench-server"),
        ] {
            ensure!(path.exists(), "{} does not exist: run {made_by}", path.display());
        }
        let work = work_folder(&root, device.as_ref())?;
        let cores = std::thread::available_parallelism()?.get();
        let only = only.unwrap_or_default().to_lowercase();
        let warm = (window / 6.0).max(0.2);
        Ok(Self {
            program,
            server,
            library,
            libraries,
            models,
            work,
            cores,
            rounds,
            warm,
            window,
            peers,
            device,
            only,
        })
    }

    /// Whether a row is to be measured.
    pub(crate) fn wants(&self, workload: &str) -> bool {
        workload.to_lowercase().contains(&self.only)
    }

    /// A configuration with this model and defaults for the rest.
    pub(crate) fn config(&self, model: &Model) -> String {
        let path = self.models.join(model.name);
        format!(
            "models:\n  - name: {}\n    path: {}\n",
            model.name,
            path.display()
        )
    }

    /// Has a program find the device's libraries, as it would in an image.
    pub(crate) fn find_libraries(&self, command: &mut Command) -> Result<()> {
        if self.device.is_some() {
            command.env("LD_LIBRARY_PATH", provider::search_path(&self.libraries)?);
        }
        Ok(())
    }

    /// The model's samples, with the outputs of in-process ONNX Runtime on the CPU.
    pub(crate) fn samples(&self, model: &Model) -> Result<Vec<Sample>> {
        self.samples_of(model, Sessions::one_with_all_cores(self, false))
    }

    /// The model's samples, with the outputs of these sessions.
    pub(crate) fn samples_of(&self, model: &Model, sessions: Sessions) -> Result<Vec<Sample>> {
        let place = if sessions.on_device { "-on-device" } else { "" };
        let folder = self.work.join(format!("{}{place}", model.name));
        let count = RawSide::start(self, model, sessions)?.outputs(&folder)?;
        let inputs = fs::read(self.models.join(model.name).join("inputs.f32"))?;
        let outputs: Vec<_> = (0..count)
            .map(|index| folder.join(format!("outputs-{index}.f32")))
            .collect();
        ensure_different(model, &outputs)?;
        let tensors = inputs.chunks_exact(inputs.len() / count);
        Ok(tensors
            .zip(outputs)
            .map(|(tensor, path)| Sample {
                tensor: tensor.to_vec(),
                answer: Answer::Tensor(path),
            })
            .collect())
    }

    /// Writes requests to files for the generator.
    pub(crate) fn requests(
        &self,
        name: &str,
        requests: impl IntoIterator<Item = (Vec<u8>, Answer)>,
    ) -> Result<Vec<Request>> {
        let folder = self.work.join(name);
        fs::create_dir_all(&folder)?;
        let write = |(index, (content, answer)): (usize, (Vec<u8>, Answer))| {
            let bytes = folder.join(format!("request-{index}"));
            fs::write(&bytes, content)?;
            Ok(Request { bytes, answer })
        };
        requests.into_iter().enumerate().map(write).collect()
    }

    /// Requests over REST with these headers.
    pub(crate) fn rest(
        &self,
        model: &Model,
        samples: &[Sample],
        headers: &[(&str, &str)],
    ) -> Result<Vec<Request>> {
        let shape = [&[1], model.shape].concat();
        let name = format!("{}-rest-{}", model.name, headers.len());
        self.requests(
            &name,
            samples.iter().map(|sample| {
                (
                    encode::rest(model.name, &shape, &sample.tensor, headers),
                    sample.answer.clone(),
                )
            }),
        )
    }

    /// Requests over gRPC.
    pub(crate) fn grpc(&self, model: &Model, samples: &[Sample]) -> Result<Vec<Request>> {
        let shape = [&[1], model.shape].concat();
        let name = format!("{}-grpc", model.name);
        self.requests(
            &name,
            samples.iter().map(|sample| {
                (
                    encode::grpc(model.name, &shape, &sample.tensor),
                    sample.answer.clone(),
                )
            }),
        )
    }

    /// The photographs as JPEG files of 640×480 pixels.
    pub(crate) fn jpegs(&self, model: &Model) -> Result<Vec<Request>> {
        let folder = self.models.join("jpegs");
        let expected: std::collections::BTreeMap<String, usize> =
            serde_json::from_slice(&fs::read(folder.join("expected.json"))?)?;
        let mut requests = Vec::new();
        for (name, class) in expected {
            requests.push((
                encode::classify(model.name, &fs::read(folder.join(name))?),
                Answer::Class(class),
            ));
        }
        self.requests("jpegs", requests)
    }

    /// A closed loop with the durations of this run.
    pub(crate) fn closed(
        &self,
        address: SocketAddr,
        server: u32,
        wire: Wire,
        requests: Vec<Request>,
        connections: usize,
    ) -> Drive {
        Drive {
            address,
            wire,
            requests,
            connections,
            warm: self.warm,
            window: self.window,
            server,
            open: None,
            keep: None,
        }
    }

    /// An open loop with plenty of connections.
    pub(crate) fn open(&self, closed: &Drive, requests: Vec<Request>, open: Open) -> Drive {
        Drive {
            requests,
            connections: 512,
            open: Some(open),
            ..closed.clone()
        }
    }

    /// Puts a load on a server, from a separate process.
    pub(crate) fn drive(&self, drive: &Drive) -> Result<Driven> {
        let mut command = Command::new(&self.program);
        command
            .arg("generate")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut process = Process::start(&mut command)?;
        let mut input = process.child.stdin.take().context("no standard input")?;
        input.write_all(&serde_json::to_vec(drive)?)?;
        drop(input);
        let (mut output, mut problem) = (String::new(), String::new());
        process
            .child
            .stdout
            .take()
            .context("no standard output")?
            .read_to_string(&mut output)?;
        process
            .child
            .stderr
            .take()
            .context("no standard error")?
            .read_to_string(&mut problem)?;
        if output.is_empty() {
            bail!("{}", problem.trim().trim_start_matches("Error: "));
        }
        Ok(serde_json::from_str(&output)?)
    }

    /// What raw would do beside the generator, in samples per second. On the CPU, raw takes all cores, and the generator
    /// takes some from it. On a device, that is so only if both together ask for more cores than there are.
    pub(crate) fn expected(&self, raw: &RawRun, driven: &Driven) -> f64 {
        let left = 1.0 - driven.generator_share(self.cores);
        let taken = if self.device.is_some() {
            raw.share(self.cores)
        } else {
            1.0
        };
        raw.rate() * (left / taken).min(1.0)
    }

    /// Median percentage of all CPU time that other processes took during the measurement: a noisy machine.
    pub(crate) fn others(&self, runs: &[Driven]) -> f64 {
        let part =
            |run: &Driven| (run.cpu.machine - run.cpu.own - run.cpu.watched) / (run.wall * self.cores as f64);
        100.0 * median(&runs.iter().map(part).collect::<Vec<f64>>()).max(0.0)
    }
}

/// An empty folder for this run's files, whose name is also that of the result.
fn work_folder(root: &Path, device: Option<&Device>) -> Result<PathBuf> {
    let name = device.map_or_else(
        || "server".to_owned(),
        |device| format!("server-{}", device.name()),
    );
    let folder = root.join("target/bench").join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Outputs that are almost the same prove nothing.
fn ensure_different(model: &Model, outputs: &[PathBuf]) -> Result<()> {
    let values = outputs
        .iter()
        .map(|path| read_floats(path))
        .collect::<Result<Vec<_>>>()?;
    for (index, one) in values.iter().enumerate() {
        let largest = one.iter().fold(0_f32, |largest, value| largest.max(value.abs()));
        for other in &values[..index] {
            // Ten times what the generator tolerates.
            ensure!(
                distance(one, other) > 0.01 * largest,
                "{}: two samples have almost the same answer",
                model.name
            );
        }
    }
    Ok(())
}

/// The largest difference of two values at the same place.
pub(crate) fn distance(one: &[f32], other: &[f32]) -> f32 {
    let differences = one.iter().zip(other).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, f32::max)
}

/// Resident memory of a server in bytes.
pub(crate) fn resident(server: u32) -> Result<u64> {
    Family::of(server).resident_memory()
}
