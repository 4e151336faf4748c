//! What object_store sends goes through our client: its policy, its redirects, its judgement of failures.

use crate::{
    error::FetchError,
    http::{Asked, Audience, Client, Request, Response, Used, bare, failure},
};
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream::BoxStream};
use http::{HeaderMap, Uri, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use modelservice_contract::FetchReason;
use object_store::{
    ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
        HttpService,
    },
};
use std::{
    error::Error,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};
use url::Url;

/// Lists and tokens are not larger, in bytes.
const LARGEST_ANSWER: usize = 16 << 20;

/// Parameters of a query that name a version (S3, Azure, Google Cloud Storage).
const VERSION_PARAMETERS: [&str; 3] = ["versionId", "versionid", "generation"];

/// What a request for an object's bytes is about; without it, an answer is a list or a token.
#[derive(Clone, Debug)]
pub(super) struct What(pub(super) String);

/// Sends the requests of one store.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) client: Client,
    /// For credential providers at fixed addresses.
    pub(super) providers: Option<Client>,
    /// Where the store's credentials may go.
    pub(super) audience: Audience,
    /// Where they are exchanged for others: the vendor's own servers.
    pub(super) issuers: Audience,
    pub(super) uri: String,
    pub(super) used: Used,
}

/// Hosts of credential providers that answer without TLS.
const PROVIDERS: [&str; 5] = [
    "169.254.169.254",
    "169.254.170.2",
    "169.254.170.23",
    "[fd00:ec2::23]",
    "metadata.google.internal",
];

impl Service {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, FetchError> {
        let (parts, body) = request.into_parts();
        let url = url(&parts.uri)?;
        let what = parts.extensions.get::<What>().cloned();
        let body = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return Err(FetchError::new(FetchReason::SystemError, error.to_string())),
        };
        // The body of a `POST` is what is exchanged for a token.
        let is_exchange = parts.method == http::Method::POST;
        if is_exchange && !self.issuers.allows(&url) {
            let message = format!(
                "credentials are not exchanged at {}, which is no vendor's server",
                bare(&url)
            );
            return Err(FetchError::new(FetchReason::Forbidden, message));
        }
        let asked = Asked {
            what: what
                .as_ref()
                .map_or_else(|| self.uri.clone(), |what| what.0.clone()),
            used: self.used.clone(),
            is_frozen: is_frozen(&parts.headers, &url),
        };
        let audience = if is_exchange {
            &self.issuers
        } else {
            &self.audience
        };
        let request = Request::new(parts.method, url.clone())
            .headers(parts.headers)
            .body(body)
            .audience(audience.clone());
        let response = self.send_to(&url, request).await?;
        if !response.status.is_success() {
            return Err(failure(response, &asked).await);
        }
        answer(response, what.is_some()).await
    }

    /// Credential providers have a client of their own, which reaches nothing else.
    async fn send_to(&self, url: &Url, request: Request) -> Result<Response, FetchError> {
        let is_provider = url.host_str().is_some_and(|host| PROVIDERS.contains(&host));
        match &self.providers {
            Some(providers) if is_provider => {
                providers.send(request.audience(Audience::origin_of(url))).await
            }
            _ => self.client.send(request).await,
        }
    }
}

#[async_trait::async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        self.send(request).await.map_err(wrapped)
    }
}

impl HttpConnector for Service {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

fn url(uri: &Uri) -> Result<Url, FetchError> {
    let text = uri.to_string();
    Url::parse(&text)
        .map_err(|error| FetchError::new(FetchReason::ConfigInvalid, format!("{}: {error}", uri.path())))
}

fn is_frozen(headers: &HeaderMap, url: &Url) -> bool {
    headers.contains_key(header::IF_MATCH)
        || url
            .query_pairs()
            .any(|(name, _)| VERSION_PARAMETERS.contains(&name.as_ref()))
}

/// An object's bytes pass as they come; everything else is read here, so that it is bounded.
async fn answer(response: Response, is_object: bool) -> Result<HttpResponse, FetchError> {
    let (status, headers) = (response.status, response.headers.clone());
    let body = if is_object {
        let frames = response.stream().map_ok(Frame::data).map_err(wrapped);
        HttpResponseBody::new(StreamBody::new(Shared(Mutex::new(frames.boxed()))))
    } else {
        HttpResponseBody::from(response.bytes(LARGEST_ANSWER).await?)
    };
    let mut answer = HttpResponse::new(body);
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    Ok(answer)
}

/// Not one of the kinds that object_store tries again: that is the engine's.
fn wrapped(error: FetchError) -> HttpError {
    HttpError::new(HttpErrorKind::Unknown, error)
}

/// The failure inside an error of object_store.
pub(super) fn unwrapped(uri: &str, error: &object_store::Error) -> FetchError {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    let mut innermost = String::new();
    while let Some(current) = cause {
        if let Some(error) = current.downcast_ref::<FetchError>() {
            return error.clone();
        }
        innermost = current.to_string();
        cause = current.source();
    }
    let message = format!("{uri}: {innermost}");
    match error {
        object_store::Error::InvalidPath { .. } => FetchError::new(FetchReason::PackageInvalid, message),
        object_store::Error::Precondition { .. } => FetchError::new(FetchReason::SourceChanged, message),
        // An answer that could not be read may have been a proxy's.
        _ => FetchError::unavailable(message),
    }
}

/// object_store wants bodies that may be shared between threads; nobody does it.
struct Shared(Mutex<BoxStream<'static, Result<Frame<Bytes>, HttpError>>>);

impl Stream for Shared {
    type Item = Result<Frame<Bytes>, HttpError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let stream = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        stream.as_mut().poll_next(cx)
    }
}

/// A store without retries of its own: those of the engine know how far a download is.
pub(super) fn no_retries() -> object_store::RetryConfig {
    object_store::RetryConfig {
        max_retries: 0,
        ..object_store::RetryConfig::default()
    }
}

/// A store's lists, page by page.
pub(super) type Pages = Arc<dyn object_store::list::PaginatedListStore>;
