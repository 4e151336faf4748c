//! A router that knows its routes, so that they can be compared with `/openapi.json`. Does not know any handlers.

use crate::protocol::api::Api;
use crate::protocol::body::compression;
use axum::Router;
use axum::handler::Handler;
use axum::http::Method;
use axum::middleware::from_fn;
use axum::routing::{MethodRouter, any, get, post};
use std::sync::Arc;

type State = Arc<Api>;

/// Routes of the HTTP protocols, each of which `docs/openapi/openapi.yaml` describes.
#[derive(Default)]
pub(crate) struct Routes {
    router: Router<State>,
    known: Vec<Route>,
}

/// One route; without a method it accepts any.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Route {
    pub(crate) method: Option<Method>,
    pub(crate) path: String,
}

impl Routes {
    pub(crate) fn get<T: 'static>(self, path: &str, handler: impl Handler<T, State>) -> Self {
        let handler = get(handler).layer(from_fn(compression::layer));
        self.add(Some(Method::GET), path, handler)
    }

    pub(crate) fn post<T: 'static>(self, path: &str, handler: impl Handler<T, State>) -> Self {
        self.add(Some(Method::POST), path, post(handler))
    }

    pub(crate) fn any<T: 'static>(self, path: &str, handler: impl Handler<T, State>) -> Self {
        self.add(None, path, any(handler))
    }

    fn add(mut self, method: Option<Method>, path: &str, handler: MethodRouter<State>) -> Self {
        let path = path.to_owned();
        self.router = self.router.route(&path, handler);
        self.known.push(Route { method, path });
        self
    }

    pub(crate) fn into_router(self) -> Router<State> {
        self.router
    }

    #[cfg(test)]
    pub(crate) fn known(&self) -> &[Route] {
        &self.known
    }
}
