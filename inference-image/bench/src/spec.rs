//! Messages between the coordinator and its helper processes: JSON, one document per line.

use crate::usage::Cpu;
use modelservice_contract::ExecutionProvider;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Protocol of the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Wire {
    /// HTTP/1.1; the file of a request holds all of its bytes.
    Http,
    /// gRPC over HTTP/2 without TLS; the file of a request holds the message with its five-byte prefix.
    Grpc,
}

/// A prepared request, and how its response is checked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) bytes: PathBuf,
    pub(crate) answer: Answer,
}

/// What a correct response contains. Every response is checked, not just a sample.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// Ends with (REST) or equals (gRPC) this file of float32 numbers, except for rounding.
    Tensor(PathBuf),
    /// JSON whose first "class" is this.
    Class(usize),
    /// Status 200 is enough.
    Any,
}

/// A load on a server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Drive {
    pub(crate) address: SocketAddr,
    pub(crate) wire: Wire,
    /// Sent in turn.
    pub(crate) requests: Vec<Request>,
    /// In a closed loop, each with one request in flight; in an open loop, the maximum.
    pub(crate) connections: usize,
    /// Seconds before the measurement.
    pub(crate) warm: f64,
    /// Seconds of the measurement.
    pub(crate) window: f64,
    /// The server's process.
    pub(crate) server: u32,
    /// An open loop: requests are sent on schedule, whether or not earlier ones have been answered.
    pub(crate) open: Option<Open>,
    /// File for the first response, as it was received.
    pub(crate) keep: Option<PathBuf>,
}

/// An open loop.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Open {
    /// Requests per second, as a Poisson process with a fixed seed.
    pub(crate) rate: f64,
    /// Responses later than this many seconds after their request are worthless.
    pub(crate) deadline: f64,
}

/// Quantiles of times, in seconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Times {
    pub(crate) count: usize,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Times {
    /// Quantiles by nearest rank; all 0 without times.
    pub(crate) fn of(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        let rank = |q: f64| ((times.len() as f64 * q).ceil() as usize).clamp(1, times.len().max(1)) - 1;
        let at = |q: f64| times.get(rank(q)).copied().unwrap_or_default();
        Self {
            count: times.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            max: at(1.0),
        }
    }
}

/// What a load measured within its window.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Driven {
    /// Seconds of the window.
    pub(crate) wall: f64,
    /// CPU seconds: `own` is the generator's, `watched` the server's.
    pub(crate) cpu: Cpu,
    /// From the first byte of a request sent to the last byte of its response read, for correct responses.
    pub(crate) answered: Times,
    /// The same for responses 429 and 503.
    pub(crate) refused: Times,
    /// Correct responses within the deadline (open loop).
    pub(crate) in_time: usize,
    /// How long after their scheduled time requests were sent (open loop).
    pub(crate) lateness: Times,
    /// Everything else, by kind: statuses, wrong responses.
    pub(crate) failures: BTreeMap<String, usize>,
}

impl Driven {
    /// Correct responses per second.
    pub(crate) fn rate(&self) -> f64 {
        self.answered.count as f64 / self.wall
    }

    /// The generator's share of all CPU time.
    pub(crate) fn generator_share(&self, cores: usize) -> f64 {
        self.cpu.own / (self.wall * cores as f64)
    }
}

/// Sessions of ONNX Runtime in a separate process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Raw {
    pub(crate) library: PathBuf,
    /// What runs the model, if not the CPU.
    pub(crate) provider: Option<ExecutionProvider>,
    pub(crate) model: PathBuf,
    /// Contiguous samples, little-endian float32.
    pub(crate) inputs: PathBuf,
    /// Maximum number to read: they count as memory.
    pub(crate) samples: usize,
    /// Shape of one sample, without the batch dimension.
    pub(crate) shape: Vec<i64>,
    /// Samples per run.
    pub(crate) batch: usize,
    /// Sessions; each has its own caller thread.
    pub(crate) sessions: usize,
    /// Threads per session, including the caller.
    pub(crate) threads: usize,
    /// Whether idle threads spin.
    pub(crate) spinning: bool,
}

/// Commands for the raw process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum RawCommand {
    /// Run for `warm` seconds, then measure for `window` seconds; answered with [`RawRun`].
    Run { warm: f64, window: f64, server: u32 },
    /// Write the output of each sample to OUTPUTS-0.f32 and so on below this folder; answered with their number.
    Outputs(PathBuf),
}

/// Answered once, when every session has been loaded and has run once.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct RawReady {
    /// Seconds from loading the library to the end of the last session's first run.
    pub(crate) seconds: f64,
}

/// What the sessions measured within their window.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct RawRun {
    pub(crate) wall: f64,
    /// CPU seconds: `own` is ONNX Runtime's, `watched` the idle server's.
    pub(crate) cpu: Cpu,
    /// Samples.
    pub(crate) samples: usize,
    /// Times of single runs.
    pub(crate) times: Times,
}

impl RawRun {
    /// Samples per second.
    pub(crate) fn rate(&self) -> f64 {
        self.samples as f64 / self.wall
    }

    /// Its share of all CPU time.
    pub(crate) fn share(&self, cores: usize) -> f64 {
        self.cpu.own / (self.wall * cores as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_nearest_rank() {
        let times = Times::of((1..=200).rev().map(f64::from).collect());
        assert_eq!(
            (times.count, times.p50, times.p99, times.max),
            (200, 100.0, 198.0, 200.0)
        );
        assert_eq!(Times::of(vec![3.0]).p99, 3.0);
        assert_eq!(Times::of(Vec::new()).max, 0.0);
    }
}
