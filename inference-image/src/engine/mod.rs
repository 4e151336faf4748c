//! Runs models: one engine per runner, each with its own session. Knows nothing of requests.

mod assignment;
mod c_api;
mod curve;
mod division;
mod failure;
mod graphs;
mod independence;
mod interface;
mod logged;
mod model;
mod overflow;
mod provider;
mod runtime;
mod session;
mod shapes;

pub use curve::Curve;
pub use division::Division;
pub use graphs::optimised::Cache;
pub use graphs::prefetch::Prefetched;
pub use graphs::source::weight;
pub(crate) use independence::rows_stay_apart;
pub use interface::{Description, Engine, EngineError, Place, Port, SharedSize, Signature};
pub use model::OnnxModel;
pub use provider::Provider;
pub use runtime::{NO_TELEMETRY, Runtime};
pub use session::OnnxEngine;

pub use modelservice_contract::GraphSource;
