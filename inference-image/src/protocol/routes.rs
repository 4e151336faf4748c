//! A router that knows its routes, so that what `/openapi.json` says of them can be compared with them. Knows no
//! handler.

use super::{Api, compressed};
use axum::Router;
use axum::handler::Handler;
use axum::http::Method;
use axum::middleware::from_fn;
use axum::routing::{MethodRouter, any, get, post};
use std::sync::Arc;

type State = Arc<Api>;

/// Routes of the HTTP protocols, each of which `openapi/openapi.yaml` describes.
#[derive(Default)]
pub(super) struct Routes {
    router: Router<State>,
    known: Vec<Route>,
}

/// One route; without a method it takes any.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Route {
    pub(super) method: Option<Method>,
    pub(super) path: String,
}

impl Routes {
    pub(super) fn get<T: 'static>(self, path: &str, handler: impl Handler<T, State>) -> Self {
        let handler = get(handler).layer(from_fn(compressed::layer));
        self.add(Some(Method::GET), path, handler)
    }

    pub(super) fn post<T: 'static>(self, path: &str, handler: impl Handler<T, State>) -> Self {
        self.add(Some(Method::POST), path, post(handler))
    }

    pub(super) fn any<T: 'static>(self, path: &str, handler: impl Handler<T, State>) -> Self {
        self.add(None, path, any(handler))
    }

    fn add(mut self, method: Option<Method>, path: &str, handler: MethodRouter<State>) -> Self {
        let path = path.to_owned();
        self.router = self.router.route(&path, handler);
        self.known.push(Route { method, path });
        self
    }

    pub(super) fn into_router(self) -> Router<State> {
        self.router
    }

    #[cfg(test)]
    pub(super) fn known(&self) -> &[Route] {
        &self.known
    }
}
