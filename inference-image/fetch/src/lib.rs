//! Fetches a model package from where it is kept: object stores, registries, hubs, web servers and volumes. What was
//! fetched is verified, and what cannot be verified is never served.

pub mod credentials;
pub mod error;
pub mod http;
pub mod source;
