//! Process: what any program of this kind needs: health endpoints, metrics, logs and traces, the limit on
//! open files, and values on the command line.

pub mod duration;
pub mod health;
pub mod metrics;
pub mod open_files;
pub mod telemetry;
