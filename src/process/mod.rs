//! Process: what any service of this kind has: health endpoints, metrics, logs and traces.

pub mod health;
pub mod metrics;
pub mod telemetry;
