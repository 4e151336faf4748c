//! The kubelet's probes get through, whatever other clients do to the management port: the real process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use serde_json::json;
use std::net::SocketAddr;
use std::time::Duration;
use support::http::{connect, exchange, get};
use support::{Server, example};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

/// More than the management port accepts.
const IDLE: usize = 600;
/// The kubelet's time limit for a probe.
const PROBE: Duration = Duration::from_secs(1);

/// A connection from another address than the probes'.
async fn from_another_pod(management: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    socket.connect(management).await.unwrap()
}

async fn probe(management: SocketAddr, path: &str) -> u16 {
    exchange(&mut connect(management).await, get(path)).await.0
}

/// Otherwise any pod in the cluster could make the kubelet restart the server, without a token.
#[tokio::test(flavor = "multi_thread")]
async fn probes_get_through_while_a_pod_holds_600_connections_to_the_management_port() {
    let config = json!({"models": [{"name": "tiny", "path": example("tiny")}]});
    let mut server = Server::start(&config.to_string(), &[]);
    let (_, management) = server.addresses();
    for first in ["", "GET /healthz HTTP/1.1\r\n"] {
        let mut held = Vec::new();
        for _ in 0..IDLE {
            let mut stream = from_another_pod(management).await;
            // Fails if the server has already closed it.
            let _ = stream.write_all(first.as_bytes()).await;
            held.push(stream);
        }
        for path in ["/healthz", "/readyz"] {
            let status = tokio::time::timeout(PROBE, probe(management, path)).await;
            assert_eq!(status.ok(), Some(200), "{path} after {first:?}");
        }
    }
}
