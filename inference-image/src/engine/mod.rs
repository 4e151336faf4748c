//! Runs models: one engine per runner, each with a session of its own. Knows nothing of requests.

mod cache;
mod curve;
mod failure;
mod independence;
mod interface;
mod onnx;
mod prefetch;
mod provider;
mod session;
mod source;
mod strings;
mod value;

pub use curve::Curve;
pub(crate) use independence::rows_stay_apart;
pub use interface::{Description, Engine, EngineError, Place, Port, SharedSize, Signature};
pub use onnx::{Cache, NO_TELEMETRY, OnnxModel, Prefetched, Runtime};
pub use session::OnnxEngine;
pub use source::weight;

pub use modelservice_contract::GraphSource;
