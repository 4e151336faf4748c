//! Process: what any program of this kind needs: health endpoints, metrics, logs and traces, a command line's values.

pub mod duration;
pub mod health;
pub mod metrics;
pub mod telemetry;
