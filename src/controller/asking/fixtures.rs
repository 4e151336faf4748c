//! Fixtures: servers that can be asked, and pods at their addresses.
#![allow(clippy::unwrap_used)]

use crate::{fixtures::observed, observe::Observed, plan::Plan};
use http_body_util::Full;
use hyper::{Response, body::Bytes, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use modelservice_contract::MANAGEMENT_PORT;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::{net::TcpListener, task::JoinHandle};

/// A service with ready pods at these addresses, whose UIDs are the addresses.
pub(in crate::controller) fn served_at(addresses: &[&str]) -> (Observed, Plan) {
    let plan = observed(json!({})).planned();
    let mut served = observed(json!({})).running(&plan, 1, 1).routed(&plan);
    for address in addresses {
        let ready = json!({"phase": "Running", "podIP": address, "conditions": [{"type": "Ready", "status": "True"}]});
        served = served.pod(&plan, ready);
        Arc::make_mut(served.pods.last_mut().unwrap()).metadata.uid = Some((*address).to_owned());
    }
    (served, plan)
}

/// A server's management port at this address, which answers everything with `report`.
pub(in crate::controller) async fn server(address: &str, report: &Value) -> JoinHandle<()> {
    let listener = TcpListener::bind((address, MANAGEMENT_PORT)).await.unwrap();
    let report = Bytes::from(report.to_string());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let report = report.clone();
            let answer = service_fn(move |_| {
                let report = report.clone();
                async move { Ok::<_, std::convert::Infallible>(Response::new(Full::new(report))) }
            });
            // The client closes it.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer)
                .await;
        }
    })
}

/// An address of this machine that no other test uses, nor another run of this one.
pub(in crate::controller) fn address(last: u8) -> String {
    let [.., high, low] = std::process::id().to_be_bytes();
    format!("127.{high}.{low}.{last}")
}
