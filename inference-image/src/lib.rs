//! The inference server: loads a model package, answers the Open Inference Protocol and image
//! classification over HTTP, and leaves without failing a request. Knows nothing of Kubernetes.
//!
//! A request's way, from the top down; each knows only those below it:
//!
//! - `app`: the process: arguments, load, serve, leave.
//! - `connections`: from bytes to requests, over HTTP/1.1, HTTP/2 and TLS.
//! - `middleware`: what happens around every request.
//! - `protocol`: from a request to a job and from its outputs to an answer.
//! - `models`: what is served, loaded and warmed up.
//! - `request_log`: what is noted of a request while it is served.
//! - `image` and `scheduling`: from an image to a tensor; from a job to an engine.
//! - `engine`: ONNX Runtime.
//! - `package`: a model's files.
//! - `config`, `metrics`, `tensor`, `process`: known to all above.

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
