//! Models on the Hugging Face Hub and in OCI registries.
//!
//! Registries are the distribution registry, with artifacts by the Go module oras and images by buildah. The Hub is a small
//! server with the same API, which its own library downloads from too. What goes wrong on the way is done by a proxy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod hub;
mod hub_faults;
mod library;
mod oci;
mod oci_access;
mod oci_faults;
mod packages;
mod registry;
mod support;
mod token_server;

use modelservice_test_stores::{hub as hub_server, proxy};
