//! The messages of gRPC, as `proto/inference.proto` describes them.
#![allow(missing_docs, clippy::all)]

include!(concat!(env!("OUT_DIR"), "/inference.rs"));
