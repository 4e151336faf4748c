//! The inference server: loads a model package, answers the Open Inference Protocol and image
//! classification over HTTP, and leaves without failing a request. Knows nothing of Kubernetes.
//!
//! From the bottom up: `tensor` ← `engine` and `preprocess` ← `scheduling` ← `classify` ← `service` ←
//! `protocol` ← `serve`. Each knows only those to its left.

pub mod app;
pub mod cgroup;
pub mod classify;
pub mod config;
pub mod connections;
pub mod direct;
pub mod engine;
pub mod exit;
pub mod front;
pub mod lifecycle;
pub mod load;
pub mod metrics;
pub mod notes;
pub mod optimize;
pub mod package;
pub mod preprocess;
pub mod protocol;
pub mod reload;
pub mod scheduling;
pub mod service;
pub mod tensor;
pub mod yaml;
