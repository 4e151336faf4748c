//! Where models are kept, for tests: real object stores as processes, and a small Hugging Face Hub. The fetcher's tests
//! start them on this machine, those of the operator in a cluster's network.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    missing_docs
)]

pub mod bucket;
pub mod certificate;
pub mod hub;
pub mod place;
pub mod processes;
pub mod proxy;
mod requests;
