//! A proxy that is in front of a server, sees all requests, and does to their answers what a test has planned.

use crate::place::Place;
use axum::{Router, body::Body, extract::State, response::Response};
use futures::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::BodyExt;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};
use tokio::task::JoinHandle;

/// What is done to an answer.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Answered without asking the server.
    Status(u16, Vec<(&'static str, String)>),
    /// The connection is closed after so many bytes of the body.
    Reset(usize),
    /// The body has so many bytes, and says so.
    Truncate(usize),
    /// The first byte of the body is another.
    Corrupt,
    /// The header says another length of the whole object.
    WrongTotal(u64),
    /// Nothing more of the body comes after so many bytes, and the connection stays.
    Stall(usize),
    /// The body is another.
    Replace(Vec<u8>),
}

/// A request as the server got it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub uri: Uri,
    pub headers: HeaderMap,
}

struct Planned {
    part: String,
    times: usize,
    fault: Fault,
}

struct Shared {
    upstream: SocketAddr,
    client: Client<HttpConnector, Body>,
    has_ranges: bool,
    planned: Mutex<Vec<Planned>>,
    seen: Mutex<Vec<Seen>>,
}

/// Ends with the value.
pub struct Proxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub async fn start(upstream: SocketAddr) -> Self {
        Self::start_at(&Place::loopback(), upstream).await
    }

    /// A proxy in another place than the server.
    pub async fn start_at(place: &Place, upstream: SocketAddr) -> Self {
        Self::with(place, upstream, true).await
    }

    /// A proxy that does not pass `Range` on.
    pub async fn without_ranges(upstream: SocketAddr) -> Self {
        Self::with(&Place::loopback(), upstream, false).await
    }

    async fn with(place: &Place, upstream: SocketAddr, has_ranges: bool) -> Self {
        let shared = Arc::new(Shared {
            upstream,
            client: Client::builder(TokioExecutor::new()).build_http(),
            has_ranges,
            planned: Mutex::default(),
            seen: Mutex::default(),
        });
        let router = Router::new().fallback(answer).with_state(shared.clone());
        let (address, task) = serve_at(place, router).await;
        Self {
            address,
            shared,
            task,
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Does it to the next `times` answers to requests whose path and query contain `part`.
    pub fn plan(&self, part: &str, times: usize, fault: Fault) {
        self.shared.planned.lock().unwrap().push(Planned {
            part: part.to_owned(),
            times,
            fault,
        });
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// Requests whose path and query contain `part`.
    pub fn seen_of(&self, part: &str) -> Vec<Seen> {
        self.seen()
            .into_iter()
            .filter(|seen| seen.uri.to_string().contains(part))
            .collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves on a free port of the machine.
pub async fn serve(router: Router) -> (SocketAddr, JoinHandle<()>) {
    serve_at(&Place::loopback(), router).await
}

async fn serve_at(place: &Place, router: Router) -> (SocketAddr, JoinHandle<()>) {
    let listener = place.listen().unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (address, task)
}

async fn answer(State(shared): State<Arc<Shared>>, mut request: Request<Body>) -> Response {
    let seen = Seen {
        uri: request.uri().clone(),
        headers: request.headers().clone(),
    };
    shared.seen.lock().unwrap().push(seen);
    let target = request.uri().to_string();
    let fault = next(&shared, &target);
    if let Some(Fault::Status(status, headers)) = fault {
        let mut response = Response::new(Body::from("planned by the test"));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        for (name, value) in headers {
            response
                .headers_mut()
                .insert(name, HeaderValue::try_from(value).unwrap());
        }
        return response;
    }
    if !shared.has_ranges {
        request.headers_mut().remove(header::RANGE);
    }
    *request.uri_mut() = format!("http://{}{target}", shared.upstream).parse().unwrap();
    let response = shared.client.request(request).await.unwrap().map(Body::new);
    match fault {
        None => response,
        Some(fault) => spoil(response, fault).await,
    }
}

fn next(shared: &Shared, target: &str) -> Option<Fault> {
    let mut planned = shared.planned.lock().unwrap();
    let found = planned
        .iter_mut()
        .find(|planned| planned.times > 0 && target.contains(&planned.part))?;
    found.times -= 1;
    Some(found.fault.clone())
}

async fn spoil(response: Response, fault: Fault) -> Response {
    let (mut parts, body) = response.into_parts();
    let mut bytes = body.collect().await.unwrap().to_bytes().to_vec();
    let whole = bytes.len();
    let body = match fault {
        Fault::Status(..) => unreachable!("answered before"),
        Fault::Reset(after) => {
            bytes.truncate(after);
            let broken = stream::once(async { Err(io::Error::other("planned by the test")) });
            Body::from_stream(stream::iter([Ok(bytes)]).chain(broken))
        }
        Fault::Stall(after) => {
            bytes.truncate(after);
            Body::from_stream(stream::iter([Ok::<_, io::Error>(bytes)]).chain(stream::pending()))
        }
        Fault::Truncate(length) => {
            bytes.truncate(length);
            parts.headers.insert(header::CONTENT_LENGTH, bytes.len().into());
            return Response::from_parts(parts, Body::from(bytes));
        }
        Fault::Corrupt => {
            bytes[0] ^= 1;
            Body::from(bytes)
        }
        Fault::Replace(other) => {
            parts.headers.insert(header::CONTENT_LENGTH, other.len().into());
            return Response::from_parts(parts, Body::from(other));
        }
        Fault::WrongTotal(total) => {
            let range = parts.headers[header::CONTENT_RANGE].to_str().unwrap();
            let (range, _) = range.split_once('/').unwrap();
            let range = HeaderValue::try_from(format!("{range}/{total}")).unwrap();
            parts.headers.insert(header::CONTENT_RANGE, range);
            Body::from(bytes)
        }
    };
    parts.headers.insert(header::CONTENT_LENGTH, whole.into());
    Response::from_parts(parts, body)
}
