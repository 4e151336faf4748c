//! HTTP and gRPC: from a request to a job, and from its outputs to a response. Each protocol is a module, and none of
//! them knows how a model is run. What the protocols share about an inference is in `inference`.

mod api;
mod body;
mod docs;
mod error;
pub mod fuzz;
mod grpc;
mod header_list;
mod images;
mod inference;
mod json;
mod kserve_v1;
mod management;
mod names;
mod oip;
pub mod proto;
mod routing;

pub(crate) use body::{DISCARD_TIME, ZeroCopyBody, ZeroCopySource, discard};
pub(crate) use docs::is_page_file;
pub use error::ApiError;
pub(crate) use grpc::is_grpc;
pub use management::{Management, record_load, router as management_router};
pub use routing::{Protocols, protocols, router};
