//! Cluster: the API server's client, the lease, and what is checked and made before the first reconcile.

pub mod client;
pub mod default_classes;
pub mod leadership;
mod managed_fields;
pub mod preflight;
