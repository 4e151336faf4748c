//! gRPC's reflection: the services and their messages, in both versions of the reflection service, since tools use
//! one or the other.

use crate::protocol::api::Api;
use axum::Router;
use axum::extract::Request;
use std::sync::Arc;
use tonic_reflection::server::{Builder, Error};
use tower::ServiceExt;

/// The messages of `proto/inference.proto`.
const INFERENCE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/inference.bin"));

fn builder() -> Builder<'static> {
    Builder::configure()
        .register_encoded_file_descriptor_set(INFERENCE)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

pub(super) fn router() -> Router<Arc<Api>> {
    services().unwrap_or_else(|error| {
        // The descriptors are compiled in; a test would have caught this.
        tracing::error!("gRPC reflection is not available: {error}");
        Router::new()
    })
}

fn services() -> Result<Router<Arc<Api>>, Error> {
    let tonic = |request: Request| request.map(tonic::body::Body::new);
    Ok(Router::new()
        .route_service(
            "/grpc.reflection.v1.ServerReflection/{*call}",
            builder().build_v1()?.map_request(tonic),
        )
        .route_service(
            "/grpc.reflection.v1alpha.ServerReflection/{*call}",
            builder().build_v1alpha()?.map_request(tonic),
        ))
}
