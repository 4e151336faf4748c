//! The inference server: loads a model package, answers the Open Inference Protocol and image
//! classification over HTTP, and leaves without failing a request. Knows nothing of Kubernetes.
//!
//! From the bottom up: `tensor` ← `engine` and `preprocess` ← `scheduling` ← `classify` ← `service` ←
//! `protocol` ← `serve`. Each knows only those to its left.

pub mod app;
pub mod config;
pub mod connections;
pub mod engine;
pub mod image;
pub mod metrics;
pub mod middleware;
pub mod models;
pub mod package;
pub mod process;
pub mod protocol;
pub mod request_log;
pub mod scheduling;
pub mod tensor;
