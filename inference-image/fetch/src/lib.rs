//! Fetches a model package from where it is kept: object stores, registries, hubs, web servers and volumes. What was
//! fetched is verified, and what cannot be verified is never served.

pub mod cli;
pub mod credentials;
mod disk;
pub mod download;
pub mod error;
pub mod fetch;
pub mod http;
pub mod resolve;
pub mod source;
pub mod store;
pub mod unpack;
pub mod verify;
