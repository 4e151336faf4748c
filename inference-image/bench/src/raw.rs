//! The raw side: ONNX Runtime called in-process, in a separate process, so that its memory and CPU can be measured
//! separately. Knows nothing of servers.

use crate::spec::{Raw, RawCommand, RawReady, RawRun, Times};
use crate::usage::{Cpu, Family};
use anyhow::{Context, Result, anyhow, ensure};
use modelservice_server::engine::Provider;
use ort::environment::Environment;
use ort::session::Session;
use ort::value::TensorRef;
use std::fs;
use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// Loads the sessions, reports that, and executes commands until its standard input ends.
pub(crate) fn main(spec: &str) -> Result<()> {
    let spec: Raw = serde_json::from_str(spec).context("the specification of the raw side")?;
    let samples = Samples::read(&spec)?;
    let runtime = Runtime::load(&spec)?;
    let started = Instant::now();
    let mut sessions = load(&spec, &runtime, &samples)?;
    answer(&RawReady {
        seconds: started.elapsed().as_secs_f64(),
    })?;
    for line in std::io::stdin().lock().lines() {
        match serde_json::from_str(&line?)? {
            RawCommand::Run { warm, window, server } => {
                answer(&run(
                    &mut sessions,
                    &samples,
                    [warm, window].map(Duration::from_secs_f64),
                    &Family::of(server),
                )?)?;
            }
            RawCommand::Outputs(folder) => {
                let session = sessions.first_mut().context("no session")?;
                answer(&write_outputs(session, &samples, &folder)?)?;
            }
        }
    }
    Ok(())
}

fn answer(value: &impl serde::Serialize) -> Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, value)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

/// The library, and what runs the models in it, if not the CPU.
struct Runtime {
    environment: Environment,
    provider: Option<Provider>,
}

impl Runtime {
    fn load(spec: &Raw) -> Result<Self> {
        let environment = load_library(&spec.library)?;
        let find = |wanted| Provider::find(&environment, wanted);
        Ok(Self {
            provider: spec.provider.as_ref().map(find).transpose()?,
            environment,
        })
    }
}

fn load_library(library: &Path) -> Result<Environment> {
    // The same version as the server's; the environment variable turns telemetry off.
    ensure!(
        std::env::var("ORT_DISABLE_TELEMETRY").as_deref() == Ok("1"),
        "ORT_DISABLE_TELEMETRY is not 1"
    );
    let library = std::path::absolute(library)?;
    let builder = ort::init_from(&library).map_err(|error| anyhow!("{}: {error}", library.display()))?;
    Ok(builder.with_name("server-bench").with_telemetry(false).build()?)
}

/// Contiguous samples, with the first ones repeated at the end, so that every batch is a slice.
struct Samples {
    values: Vec<f32>,
    shape: Vec<i64>,
    length: usize,
    count: usize,
    batch: usize,
}

impl Samples {
    fn read(spec: &Raw) -> Result<Self> {
        let mut values = read_floats(&spec.inputs)?;
        let length = usize::try_from(spec.shape.iter().product::<i64>())?;
        ensure!(
            values.len() % length == 0 && !values.is_empty(),
            "the size of {} is not a multiple of a sample",
            spec.inputs.display()
        );
        let count = (values.len() / length).min(spec.samples.max(1));
        values.truncate(count * length);
        for sample in 0..spec.batch {
            values.extend_from_within(sample * length..(sample + 1) * length);
        }
        values.shrink_to_fit();
        let shape = std::iter::once(i64::try_from(spec.batch)?)
            .chain(spec.shape.iter().copied())
            .collect();
        Ok(Self {
            values,
            shape,
            length,
            count,
            batch: spec.batch,
        })
    }

    /// The batch that begins with sample `first`.
    fn tensor(&self, first: usize, batch: usize) -> Result<TensorRef<'_, f32>> {
        let start = first % self.count * self.length;
        let values = &self.values[start..start + batch * self.length];
        let mut shape = self.shape.clone();
        shape[0] = i64::try_from(batch)?;
        Ok(TensorRef::from_array_view((shape, values))?)
    }
}

/// The float32 numbers in a file.
pub(crate) fn read_floats(path: &Path) -> Result<Vec<f32>> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(bytes
        .as_chunks()
        .0
        .iter()
        .map(|four| f32::from_le_bytes(*four))
        .collect())
}

/// One session per caller, loaded in parallel and run once each.
fn load(spec: &Raw, runtime: &Runtime, samples: &Samples) -> Result<Vec<Session>> {
    std::thread::scope(|scope| {
        let load_one = || -> Result<Session> {
            let mut session = session(spec, runtime)?;
            session.run(ort::inputs![samples.tensor(0, samples.batch)?])?;
            Ok(session)
        };
        let threads: Vec<_> = (0..spec.sessions).map(|_| scope.spawn(load_one)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?)
            .collect()
    })
}

fn session(spec: &Raw, runtime: &Runtime) -> Result<Session> {
    let refused = |error: ort::Error<_>| anyhow!("ONNX Runtime rejects an option: {error}");
    let builder = Session::builder(&runtime.environment)?
        .with_intra_threads(spec.threads)
        .map_err(refused)?
        .with_inter_threads(1)
        .map_err(refused)?
        .with_intra_op_spinning(spec.spinning)
        .map_err(refused)?;
    let mut builder = match &runtime.provider {
        Some(provider) => provider.register(&runtime.environment, builder)?,
        None => builder,
    };
    builder
        .commit_from_file(&spec.model)
        .with_context(|| format!("cannot load {}", spec.model.display()))
}

/// All callers run without a pause; runs that end within the window count.
fn run(
    sessions: &mut [Session],
    samples: &Samples,
    [warm, window]: [Duration; 2],
    server: &Family,
) -> Result<RawRun> {
    let barrier = Barrier::new(sessions.len() + 1);
    std::thread::scope(|scope| {
        let callers: Vec<_> = sessions
            .iter_mut()
            .enumerate()
            .map(|(caller, session)| {
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    call(session, samples, caller, Instant::now() + warm, window)
                })
            })
            .collect();
        barrier.wait();
        std::thread::sleep(warm);
        let (began, before) = (Instant::now(), Cpu::now(server));
        std::thread::sleep(window);
        let (wall, cpu) = (began.elapsed().as_secs_f64(), Cpu::now(server).since(before));
        let mut times = Vec::new();
        for caller in callers {
            times.extend(caller.join().map_err(|_| anyhow!("a caller panicked"))??);
        }
        Ok(RawRun {
            wall,
            cpu,
            samples: times.len() * samples.batch,
            times: Times::of(times),
        })
    })
}

/// The seconds of each run that ended within the window.
fn call(
    session: &mut Session,
    samples: &Samples,
    caller: usize,
    from: Instant,
    window: Duration,
) -> Result<Vec<f64>> {
    let mut times = Vec::with_capacity(1 << 16);
    let mut first = caller;
    let mut began = Instant::now();
    loop {
        session.run(ort::inputs![samples.tensor(first, samples.batch)?])?;
        first += samples.batch;
        let ended = Instant::now();
        if ended >= from + window {
            return Ok(times);
        }
        if ended >= from {
            times.push((ended - began).as_secs_f64());
        }
        began = ended;
    }
}

fn write_outputs(session: &mut Session, samples: &Samples, folder: &Path) -> Result<usize> {
    fs::create_dir_all(folder)?;
    for index in 0..samples.count {
        let outputs = session.run(ort::inputs![samples.tensor(index, 1)?])?;
        let (_, values) = outputs[0].try_extract_tensor::<f32>()?;
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        fs::write(folder.join(format!("outputs-{index}.f32")), bytes)?;
    }
    Ok(samples.count)
}
