//! Cluster: talks to the cluster outside of reconciles: the API server's client, the lease, the startup checks, the
//! default classes, and requests to inference servers.

pub mod client;
pub mod default_classes;
pub mod inference_server;
pub mod leadership;
mod managed_fields;
pub mod preflight;
