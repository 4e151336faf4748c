//! The client: sends a request, follows redirects, and lets credentials go nowhere else.

use super::{
    audience::Audience,
    connect::Connector,
    message::{Request, Response, bare, host, root_cause},
    policy::Policy,
    redirect::{self, MAXIMUM_REDIRECTS},
    timeouts::Timeouts,
};
use crate::error::FetchError;
use bytes::Bytes;
use http::{HeaderValue, Uri, header};
use http_body_util::Full;
use hyper_util::{
    client::legacy::{Client as Pool, Error as PoolError},
    rt::{TokioExecutor, TokioTimer},
};
use modelservice_contract::FetchReason;
use std::{
    collections::HashSet,
    error::Error,
    fmt::{self, Debug, Formatter},
    time::Duration,
};
use tokio::time::timeout;

/// Connections that are not used for this long are closed.
const KEPT: Duration = Duration::from_secs(20);

/// One client for everything that is fetched. Clones share its connections.
#[derive(Clone)]
pub struct Client {
    pool: Pool<Connector, Full<Bytes>>,
    timeouts: Timeouts,
}

impl Debug for Client {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

impl Client {
    /// A client that obeys a policy, and that trusts Mozilla's roots and those in `extra_roots` (PEM).
    ///
    /// # Errors
    /// `ConfigInvalid` if `extra_roots` are no certificates.
    pub fn new(policy: Policy, extra_roots: Option<&[u8]>, timeouts: Timeouts) -> Result<Self, FetchError> {
        let connector = Connector::new(policy, extra_roots, timeouts)?;
        let pool = Pool::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(KEPT)
            .build(connector);
        Ok(Self { pool, timeouts })
    }

    /// Sends a request, and follows redirects. Any status is an answer; [`super::failure`] makes an error of one.
    ///
    /// # Errors
    /// `Forbidden` for an address that must not be reached, credentials that are not for a server, or a redirect that is
    /// not followed; `Unavailable` if there is no answer.
    pub async fn send(&self, request: Request) -> Result<Response, FetchError> {
        let mut request = request;
        let mut seen = HashSet::from([request.url.clone()]);
        let mut secrets = Vec::new();
        loop {
            check(&request)?;
            secrets.extend(request.secrets());
            let mut response = self.send_once(&request).await?;
            let location = response.headers.get(header::LOCATION);
            let Some(next) = redirect::next(&request.method, &request.url, response.status, location)? else {
                // Whoever wrote the last URL may have put any of them into it.
                response.secrets = secrets;
                return Ok(response);
            };
            if seen.len() > MAXIMUM_REDIRECTS || !seen.insert(next.clone()) {
                let what = if seen.len() > MAXIMUM_REDIRECTS {
                    "too often"
                } else {
                    "in a circle"
                };
                let message = format!("{} redirects {what}, last to {}", host(&request.url), bare(&next));
                return Err(FetchError::new(FetchReason::Unavailable, message));
            }
            if next.origin() != request.url.origin() {
                request.headers = redirect::harmless(&request.headers);
                // What signs the new URL comes from the server that wrote it; nothing of ours is left.
                request.audience = Audience::origin_of(&next);
            }
            request.url = next;
        }
    }

    async fn send_once(&self, request: &Request) -> Result<Response, FetchError> {
        let sent = self.pool.request(message(request)?);
        let answer = match timeout(self.timeouts.headers, sent).await {
            Ok(answer) => answer.map_err(|error| no_answer(request, &error))?,
            Err(_) => {
                let seconds = self.timeouts.headers.as_secs();
                let message = format!("{} has not answered within {seconds} s", host(&request.url));
                return Err(FetchError::unavailable(message));
            }
        };
        let (parts, body) = answer.into_parts();
        Ok(Response {
            status: parts.status,
            headers: parts.headers,
            url: request.url.clone(),
            body,
            timeouts: self.timeouts,
            secrets: Vec::new(),
        })
    }
}

/// Whether a request may be sent.
fn check(request: &Request) -> Result<(), FetchError> {
    let url = &request.url;
    if !url.username().is_empty() || url.password().is_some() {
        let message = format!(
            "{}: a user or a password in a URL is not sent; put them into the credentials' Secret",
            bare(url)
        );
        return Err(FetchError::new(FetchReason::ConfigInvalid, message));
    }
    if request.has_credentials() && !request.audience.allows(url) {
        let origin = url.origin().ascii_serialization();
        let message = format!(
            "the credentials are not for {origin}: if they are, add a line {origin} to the key `endpoints` of their Secret"
        );
        return Err(FetchError::new(FetchReason::Forbidden, message));
    }
    Ok(())
}

fn message(request: &Request) -> Result<http::Request<Full<Bytes>>, FetchError> {
    let invalid = |error: &dyn Error| {
        let message = format!("{} cannot be requested: {error}", bare(&request.url));
        FetchError::new(FetchReason::ConfigInvalid, message)
    };
    let mut url = request.url.clone();
    url.set_fragment(None);
    let uri: Uri = url.as_str().parse().map_err(|error| invalid(&error))?;
    let mut message = http::Request::new(Full::new(request.body.clone()));
    *message.method_mut() = request.method.clone();
    *message.uri_mut() = uri;
    *message.headers_mut() = request.headers.clone();
    let headers = message.headers_mut();
    // A compressed body has other lengths, ranges and digests than the object.
    headers
        .entry(header::ACCEPT_ENCODING)
        .or_insert(HeaderValue::from_static("identity"));
    headers
        .entry(header::USER_AGENT)
        .or_insert(HeaderValue::from_static(concat!(
            "modelservice-fetch/",
            env!("CARGO_PKG_VERSION")
        )));
    Ok(message)
}

/// Why there is no answer: what the connector says, or that the connection broke.
fn no_answer(request: &Request, error: &PoolError) -> FetchError {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(error) = current.downcast_ref::<FetchError>() {
            return error.clone();
        }
        cause = current.source();
    }
    let message = format!("{} has not answered: {}", host(&request.url), root_cause(error));
    FetchError::unavailable(message)
}
