//! Which handler serves which path.

use super::protocols::Protocols;
use super::routes::Routes;
use super::verbs;
use crate::models::Service;
use crate::process::lifecycle::Lifecycle;
use crate::protocol::api::Api;
use crate::protocol::{docs, error, grpc, oip};
use axum::Router;
use std::sync::Arc;

/// The inference protocols.
pub fn protocols(service: Arc<Service>, lifecycle: Lifecycle) -> Protocols {
    let grpc = grpc::router(&lifecycle);
    let api = Arc::new(Api::new(service, lifecycle));
    let router = routes()
        .into_router()
        .merge(grpc)
        .fallback(error::no_such_path)
        .method_not_allowed_fallback(error::method_not_allowed)
        .with_state(Arc::clone(&api));
    Protocols::new(api, router)
}

/// The same as a router; tests call it without a socket.
pub fn router(service: Arc<Service>, lifecycle: Lifecycle) -> Router {
    protocols(service, lifecycle).into_router()
}

/// All routes over HTTP except those of gRPC; each is described in `docs/openapi/openapi.yaml`.
pub(crate) fn routes() -> Routes {
    let routes = Routes::default()
        .get("/openapi.json", docs::openapi)
        .get("/v1/models", oip::models)
        .get("/v1/models/{model}", verbs::ready)
        .post("/v1/models/{model}", verbs::post)
        .get("/v2/models/{model}", verbs::described)
        .post("/v2/models/{model}", verbs::post);
    docs::add(oip::add(routes))
}
