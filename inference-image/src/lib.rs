//! The inference server: loads a model package, answers the Open Inference Protocol and image classification over
//! HTTP and gRPC, and shuts down without failing a request. Knows nothing of Kubernetes.
//!
//! The path of a request, from the top down. A module knows only the modules below it:
//!
//! - `app`: the process: arguments, start, serve, shut down.
//! - `connections`: from bytes to requests, over HTTP/1.1, HTTP/2 and TLS.
//! - `middleware`: what happens around every request.
//! - `protocol`: from a request to a job, and from its outputs to a response.
//! - `models`: the models that are served, loaded and warmed up.
//! - `request_log`: what is recorded of a request, for the access log and traces.
//! - `image` and `scheduling`: from an image to a tensor; from a job to an engine.
//! - `engine`: ONNX Runtime.
//! - `package`: the files of a model.
//! - `config`, `metrics`, `onnx`, `tensor`, `process`: known to all of the above.

pub mod app;
pub mod config;
pub mod connections;
pub mod engine;
pub mod image;
pub mod metrics;
pub mod middleware;
pub mod models;
mod onnx;
pub mod package;
pub mod process;
pub mod protocol;
pub mod request_log;
pub mod scheduling;
pub mod tensor;
