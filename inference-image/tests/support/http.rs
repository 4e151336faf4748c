//! Clients that never repeat a request: any failure fails the test.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::net::SocketAddr;
use tokio::net::TcpStream;

pub(crate) type Sender = http1::SendRequest<Full<Bytes>>;
pub(crate) type Sender2 = http2::SendRequest<Full<Bytes>>;

pub(crate) async fn connect(address: SocketAddr) -> Sender {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

pub(crate) async fn connect_http_2(address: SocketAddr) -> Sender2 {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

pub(crate) fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(path)
        .header("host", "photos")
        .body(Full::default())
        .unwrap()
}

pub(crate) fn post(path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post(path)
        .header("host", "photos")
        .body(Full::new(body.into()))
        .unwrap()
}

/// The status, and whether the response asks to close the connection; panics on any transport error.
pub(crate) async fn exchange(sender: &mut Sender, request: Request<Full<Bytes>>) -> (u16, bool) {
    sender.ready().await.unwrap();
    let response: Response<_> = sender.send_request(request).await.unwrap();
    let status = response.status().as_u16();
    let close = response
        .headers()
        .get("connection")
        .is_some_and(|value| value == "close");
    response.into_body().collect().await.unwrap();
    (status, close)
}
