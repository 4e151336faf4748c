//! Other model servers with the same model, sessions and load, in the same rounds. A server that cannot be installed
//! or does not respond gets a row that says so.

use crate::bench::{Bench, Model, Sample};
use crate::encode;
use crate::process::Process;
use crate::server::{free_port, settle};
use crate::spec::{Answer, Drive, Request, Wire};
use crate::table::{Aim, Table};
use crate::usage::Family;
use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Some take half a minute to load their libraries.
const PATIENCE: Duration = Duration::from_secs(120);

/// How a peer accepts a tensor as bytes.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// Open Inference Protocol over REST with binary tensors.
    Rest,
    /// Open Inference Protocol over gRPC.
    Grpc,
    /// A file of an HTML form.
    Multipart,
}

struct Known {
    name: &'static str,
    title: &'static str,
    form: Form,
}

const KNOWN: [Known; 4] = [
    Known {
        name: "triton",
        title: "Triton (Python backend), binary REST",
        form: Form::Rest,
    },
    Known {
        name: "litserve",
        title: "LitServe, form",
        form: Form::Multipart,
    },
    Known {
        name: "bentoml",
        title: "BentoML, form",
        form: Form::Multipart,
    },
    Known {
        name: "mlserver",
        title: "MLServer, gRPC",
        form: Form::Grpc,
    },
];

/// A running peer.
pub(crate) struct Peer {
    pub(crate) aim: Aim,
    pub(crate) drive: Drive,
    process: Process,
}

/// Starts every peer with this model; `load` is the load of the server.
pub(crate) fn start(
    bench: &Bench,
    table: &mut Table,
    model: &Model,
    samples: &[Sample],
    load: &Drive,
) -> Vec<Peer> {
    let mut peers = Vec::new();
    for known in &KNOWN {
        let aim = Aim::beside(
            &format!(
                "{}, {} connections: {}",
                model.title, load.connections, known.title
            ),
            "% of raw",
        );
        if !bench.wants(&aim.workload) {
            continue;
        }
        println!("  starting {}", known.name);
        match start_one(bench, known, model, samples, load, &aim) {
            Ok(peer) => peers.push(peer),
            Err(error) => table.not_measured(&aim, &format!("{error:#}")),
        }
    }
    for peer in &peers {
        settle(&Family::of(peer.process.id()));
    }
    peers
}

fn start_one(
    bench: &Bench,
    known: &Known,
    model: &Model,
    samples: &[Sample],
    load: &Drive,
    aim: &Aim,
) -> Result<Peer> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/run");
    let log = bench.work.join(format!("{}-{}.log", known.name, model.name));
    let output = File::create(&log)?;
    let mut install = Command::new(&script);
    install
        .args(["install", known.name])
        .stdin(Stdio::null())
        .stderr(output.try_clone()?)
        .stdout(output.try_clone()?);
    if !install.status()?.success() {
        bail!("it cannot be installed: {}", last_line(&log));
    }
    let address = free_port()?;
    let classes = samples
        .first()
        .map_or(0, |sample| sample.answer_length() / size_of::<f32>());
    let shape: Vec<String> = model.shape.iter().map(ToString::to_string).collect();
    let mut command = Command::new(&script);
    command
        .args([known.name, model.name])
        .arg(bench.models.join(model.name).join("model.onnx"))
        .args([
            shape.join(","),
            classes.to_string(),
            address.port().to_string(),
            free_port()?.port().to_string(),
        ])
        .arg(bench.work.join(format!("{}-{}", known.name, model.name)))
        .stdin(Stdio::null())
        .stderr(output.try_clone()?)
        .stdout(output);
    let process = Process::start(&mut command)?;
    let (wire, requests) = requests(bench, known, model, samples)?;
    let drive = Drive {
        address,
        wire,
        requests,
        server: process.id(),
        ..load.clone()
    };
    let mut peer = Peer {
        aim: aim.clone(),
        drive,
        process,
    };
    peer.wait(bench).with_context(|| last_line(&log))?;
    Ok(peer)
}

fn requests(bench: &Bench, known: &Known, model: &Model, samples: &[Sample]) -> Result<(Wire, Vec<Request>)> {
    Ok(match known.form {
        Form::Rest => (Wire::Http, bench.rest(model, samples, &[])?),
        Form::Grpc => (Wire::Grpc, bench.grpc(model, samples)?),
        Form::Multipart => {
            let form = |sample: &Sample| {
                (
                    encode::form("/predict", "tensor", &sample.tensor),
                    sample.answer.clone(),
                )
            };
            (
                Wire::Http,
                bench.requests(&format!("{}-form", model.name), samples.iter().map(form))?,
            )
        }
    })
}

impl Peer {
    /// Waits until its responses are right.
    fn wait(&mut self, bench: &Bench) -> Result<()> {
        let probe = Drive {
            connections: 1,
            warm: 0.0,
            window: 0.1,
            ..self.drive.clone()
        };
        let started = Instant::now();
        loop {
            let problem = match bench.drive(&probe) {
                Ok(driven) if driven.failures.is_empty() && driven.answered.count > 0 => return Ok(()),
                Ok(driven) => format!("{:?}", driven.failures),
                Err(error) => format!("{error:#}"),
            };
            if let Some(status) = self.process.ended() {
                bail!("it ended with {status}");
            }
            if started.elapsed() > PATIENCE {
                bail!("it does not answer after {PATIENCE:?}: {problem}");
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }
}

impl Sample {
    /// Bytes of the output; 0 if it is not one.
    fn answer_length(&self) -> usize {
        let Answer::Tensor(path) = &self.answer else {
            return 0;
        };
        fs::metadata(path).map_or(0, |metadata| metadata.len() as usize)
    }
}

fn last_line(log: &PathBuf) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.lines()
        .rfind(|line| !line.trim().is_empty())
        .unwrap_or("it said nothing")
        .chars()
        .take(200)
        .collect()
}
