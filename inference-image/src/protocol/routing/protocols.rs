//! From a request to its handler. Nearly all requests are inferences, so their paths are checked before the router:
//! for a small model, routing would cost as much as reading the request.

use crate::protocol::api::Api;
use crate::protocol::{grpc, oip};
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{Method, Response};
use std::sync::Arc;
use tower::Service;

/// All protocols of a port.
#[derive(Clone)]
pub struct Protocols {
    /// The state with the models; `None` if the router handles all paths.
    api: Option<Arc<Api>>,
    router: Router,
}

impl From<Router> for Protocols {
    fn from(router: Router) -> Self {
        Self { api: None, router }
    }
}

impl Protocols {
    pub(crate) const fn new(api: Arc<Api>, router: Router) -> Self {
        Self {
            api: Some(api),
            router,
        }
    }

    pub(crate) fn into_router(self) -> Router {
        self.router
    }

    /// Responds to a request. The handler is on the heap while it runs: a connection allocates space for it from the
    /// start, and most connections are idle.
    pub async fn answer(&self, request: Request) -> Response<Body> {
        if let Some(api) = &self.api
            && request.method() == Method::POST
        {
            let path = request.uri().path();
            if let Some(Ok(named)) = model(path).map(|model| api.named(model, "")) {
                return Box::pin(oip::infer(api, named, request)).await;
            }
            if path == grpc::MODEL_INFER {
                return Box::pin(grpc::model_infer(api, request)).await;
            }
        }
        let Ok(response) = self.router.clone().call(request).await;
        response
    }
}

/// The model of `/v2/models/{model}/infer`; the router handles paths with an escaped name or a version.
fn model(path: &str) -> Option<&str> {
    let model = path.strip_prefix("/v2/models/")?.strip_suffix("/infer")?;
    (!model.contains(['/', '%'])).then_some(model)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_router_would_read_in_the_same_way_is_read_here() {
        assert_eq!(model("/v2/models/photos/infer"), Some("photos"));
        for other in [
            "/v2/models/photos/versions/1/infer",
            "/v2/models/a%2Fb/infer",
            "/v2/models/photos",
            "/v2/models//photos/infer",
            "/v2/models/photos/infer/",
            "/v1/models/photos/infer",
        ] {
            assert_eq!(model(other), None, "{other}");
        }
    }
}
