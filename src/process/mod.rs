//! Process: what any program of this kind needs: health endpoints, metrics, logs and traces, and values on the
//! command line.

pub mod duration;
pub mod health;
pub mod metrics;
pub mod telemetry;
