//! Runs models: one engine per runner, each with a session of its own. Knows nothing of requests.

mod cache;
mod curve;
mod failure;
mod independence;
mod interface;
mod model;
mod optimised;
mod prefetch;
mod provider;
mod runtime;
mod session;
mod source;
mod strings;
mod value;

pub use curve::Curve;
pub(crate) use independence::rows_stay_apart;
pub use interface::{Description, Engine, EngineError, Place, Port, SharedSize, Signature};
pub use model::OnnxModel;
pub use optimised::Cache;
pub use prefetch::Prefetched;
pub use runtime::{NO_TELEMETRY, Runtime};
pub use session::OnnxEngine;
pub use source::weight;

pub use modelservice_contract::GraphSource;
