//! Inference servers in the place of those that nothing runs on fake nodes.

use http_body_util::Full;
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use local_cluster::ControlPlane;
use modelservice_contract::{DutyCycle, LOAD_PATH, LoadReport, LoadTotals, MANAGEMENT_PORT, ModelLoad};
use std::{convert::Infallible, time::Instant};
use tokio::{net::TcpListener, task::JoinHandle};

/// Servers that have no requests, on all fake nodes. Only operators that [`Place::operator_among_pods`] starts reach
/// them.
///
/// [`Place::operator_among_pods`]: crate::fixture::Place::operator_among_pods
pub struct IdleServers(JoinHandle<()>);

impl IdleServers {
    pub fn start(plane: &ControlPlane) -> Self {
        let listener = plane.listen_as_fake_pods(MANAGEMENT_PORT).unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let started = Instant::now();
        Self(tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let answer = service_fn(move |request| async move {
                    Ok::<_, Infallible>(answer(&request, started.elapsed().as_secs_f64()))
                });
                let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
                // It breaks when the operator is stopped.
                tokio::spawn(async { drop(connection.await) });
            }
        }))
    }
}

impl Drop for IdleServers {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn answer(request: &Request<Incoming>, now: f64) -> Response<Full<Bytes>> {
    if request.uri().path() != LOAD_PATH {
        return Response::builder().status(404).body(Full::default()).unwrap();
    }
    // A server that has run for a minute already.
    let at = |seconds_ago: u32| LoadTotals {
        at_seconds: now + 60.0 - f64::from(seconds_ago),
        ..LoadTotals::default()
    };
    let report = LoadReport {
        start_time_seconds: 1.0,
        ready: true,
        in_flight: 0,
        connections: 1,
        models: vec![ModelLoad {
            name: "net".to_owned(),
            in_flight: 0,
            queued: 0,
            running: 0,
            runners: 1,
            duty_cycle: DutyCycle::default(),
            predicted_wait_ms: 0.0,
            totals: Some(at(0)),
            history: (1..=60).rev().map(at).collect(),
        }],
    };
    Response::new(Full::from(serde_json::to_vec(&report).unwrap()))
}
