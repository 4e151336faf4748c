//! Client: how the operator talks to the API server. Counts requests, refuses writes once another replica could hold
//! the lease, and removes from answers what nobody reads.

use super::{leadership::Permission, managed_fields::WithoutManagedFields};
use crate::process::metrics::Metrics;
use futures::future::BoxFuture;
use hyper::{
    Method, Request, Response,
    body::{Body, Bytes},
    header::{CONTENT_LENGTH, HeaderValue, USER_AGENT},
};
use kube::{Client, Config, client::ClientBuilder};
use std::{
    sync::Arc,
    task::{Context, Poll},
};
use tower::{BoxError, Layer, Service};

const AGENT: &str = concat!("modelservice-operator/", env!("CARGO_PKG_VERSION"));

/// A client whose writes need `permission`.
///
/// # Errors
/// When the configuration's certificates cannot be read.
pub fn build(config: Config, permission: Permission, metrics: Arc<Metrics>) -> kube::Result<Client> {
    Ok(ClientBuilder::try_from(config)?
        .with_layer(&Guard { permission, metrics })
        .build())
}

/// This replica refused one of its own writes.
#[derive(Debug, thiserror::Error)]
#[error("this replica does not hold the lease, so it writes nothing")]
pub struct NotLeading;

/// An extension of a request whose answer keeps its managed fields.
#[derive(Clone, Copy, Debug)]
pub struct WithManagedFields;

#[derive(Clone)]
struct Guard {
    permission: Permission,
    metrics: Arc<Metrics>,
}

impl<S> Layer<S> for Guard {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Guarded {
            inner,
            guard: self.clone(),
        }
    }
}

#[derive(Clone)]
struct Guarded<S> {
    inner: S,
    guard: Guard,
}

impl<S, I, O> Service<Request<I>> for Guarded<S>
where
    S: Service<Request<I>, Response = Response<O>>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    O: Body<Data = Bytes> + Unpin + 'static,
{
    type Response = Response<WithoutManagedFields<O>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<WithoutManagedFields<O>>, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<I>) -> Self::Future {
        // Audit logs show this name.
        request
            .headers_mut()
            .insert(USER_AGENT, HeaderValue::from_static(AGENT));
        let method = request.method().clone();
        if !is_read(&method) && !self.guard.permission.holds() {
            return Box::pin(async { Err(NotLeading.into()) });
        }
        let name = if is_watch(&request) {
            "WATCH".to_owned()
        } else {
            method.to_string()
        };
        let metrics = self.guard.metrics.clone();
        let is_whole = request.extensions().get::<WithManagedFields>().is_some();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await.map_err(Into::into);
            metrics.requested(
                &name,
                answer.as_ref().map_or(0, |answer| answer.status().as_u16()),
            );
            answer.map(|mut answer| {
                // It is the length of the original body, which is shortened.
                answer.headers_mut().remove(CONTENT_LENGTH);
                answer.map(|body| {
                    if is_whole {
                        WithoutManagedFields::whole(body)
                    } else {
                        WithoutManagedFields::new(body)
                    }
                })
            })
        })
    }
}

/// Watches are reopened from time to time although nothing changes, so they are counted separately.
fn is_watch<I>(request: &Request<I>) -> bool {
    request
        .uri()
        .query()
        .is_some_and(|query| query.split('&').any(|pair| pair == "watch=true"))
}

fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}
