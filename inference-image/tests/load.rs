//! What `/load` tells an autoscaler: over real connections to both ports, with an engine that always takes the same
//! time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use axum::Router;
use http_body_util::BodyExt;
use modelservice_contract::{Connections, Drain, Limits, LoadReport, LoadTotals};
use modelservice_server::connections::{self, Server, Settings};
use modelservice_server::engine::{Engine, EngineError, Signature};
use modelservice_server::metrics::ConnectionMetrics;
use modelservice_server::middleware::Middleware;
use modelservice_server::models::Service;
use modelservice_server::process::lifecycle::{Lifecycle, Phase};
use modelservice_server::protocol::{self, Management};
use modelservice_server::tensor::{DataType, Tensor};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::engine::signature;
use support::http::{connect, exchange, get, post};

/// Takes 10 ms.
struct Steady(Signature);

impl Engine for Steady {
    fn signature(&self) -> &Signature {
        &self.0
    }

    fn run(&mut self, inputs: &[Tensor], _: &[usize]) -> Result<Vec<Tensor>, EngineError> {
        std::thread::sleep(Duration::from_millis(10));
        Ok(inputs.to_vec())
    }
}

struct Bench {
    serving: SocketAddr,
    management: SocketAddr,
}

/// Two runners, and room for two waiting requests.
fn bench() -> Bench {
    let limits = Limits {
        queue_length: 2,
        ..Limits::default()
    };
    let mut service = Service::empty("1", "CPUExecutionProvider", limits, 2).unwrap();
    let engine = || Box::new(Steady(signature(&[("x", DataType::Uint8, &[1])]))) as Box<dyn Engine>;
    service
        .add("steady", String::new(), vec![engine(), engine()], None)
        .unwrap();
    let (service, management) = (Arc::new(service), Management::default());
    management.lifecycle.enter(Phase::Ready);
    let serving = protocol::router(Arc::clone(&service), management.lifecycle.clone());
    management.service.set(service).ok().unwrap();
    tokio::spawn(protocol::record_load(management.clone()));
    Bench {
        serving: serve(serving),
        management: serve(protocol::management_router(management)),
    }
}

fn serve(router: Router) -> SocketAddr {
    let (lifecycle, metrics) = (Lifecycle::default(), ConnectionMetrics::unread());
    let middleware = Middleware::new(router, lifecycle.clone(), None, &metrics);
    let settings = Settings::new(&Connections::default(), &Limits::default(), 100);
    let server = Server::new(middleware, settings, None, &metrics);
    let listener = connections::listen(0).unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let never = std::future::pending();
        server.serve(listener, &lifecycle, &Drain::default(), never).await;
    });
    SocketAddr::from(([127, 0, 0, 1], port))
}

impl Bench {
    async fn get(&self, path: &str) -> (u16, String) {
        let mut sender = connect(self.management).await;
        let response = sender.send_request(get(path)).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn load(&self, path: &str) -> LoadReport {
        let (status, body) = self.get(path).await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    async fn totals(&self) -> LoadTotals {
        self.load("/load").await.models[0].totals.unwrap()
    }

    async fn history(&self) -> Vec<LoadTotals> {
        self.load("/load?history=60").await.models.remove(0).history
    }

    /// The totals, once this holds.
    async fn until(&self, holds: impl Fn(&LoadTotals) -> bool) -> LoadTotals {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let totals = self.totals().await;
            if holds(&totals) {
                return totals;
            }
            assert!(Instant::now() < deadline, "{totals:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Sends a request when the last one has been answered, until it is told to stop; returns how many were served and
/// refused.
async fn client(serving: SocketAddr, stop: Arc<AtomicBool>) -> (u64, u64) {
    let body = r#"{"inputs": [{"name": "x", "shape": [1], "datatype": "UINT8", "data": [7]}]}"#;
    let (mut sender, mut served, mut refused) = (connect(serving).await, 0, 0);
    while !stop.load(Ordering::Relaxed) {
        match exchange(&mut sender, post("/v2/models/steady/infer", body))
            .await
            .0
        {
            200 => served += 1,
            429 => refused += 1,
            other => panic!("{other}"),
        }
    }
    (served, refused)
}

fn counts(totals: &LoadTotals) -> [f64; 5] {
    let LoadTotals {
        at_seconds: _,
        served,
        refused,
        expired,
        offered_seconds,
        in_flight_seconds,
    } = *totals;
    let [served, refused, expired] = [served, refused, expired].map(|count| count as f64);
    [served, refused, expired, offered_seconds, in_flight_seconds]
}

/// Otherwise an autoscaler would add too few servers, or keep them when nobody needs them.
#[tokio::test(flavor = "multi_thread")]
async fn more_clients_than_fit_make_a_utilisation_above_one_and_an_idle_server_has_none() {
    let bench = bench();
    let before = bench.totals().await;
    assert_eq!(counts(&before), [0.0; 5]);
    let stop = Arc::new(AtomicBool::new(false));
    let clients = [(); 8].map(|()| tokio::spawn(client(bench.serving, Arc::clone(&stop))));
    let during = bench
        .until(|totals| totals.at_seconds > before.at_seconds + 3.5)
        .await;
    stop.store(true, Ordering::Relaxed);
    let (mut served, mut refused) = (0, 0);
    for client in clients {
        let (of_one, not) = client.await.unwrap();
        (served, refused) = (served + of_one, refused + not);
    }
    // A run is counted a moment after its client has the answer.
    let after = bench.until(|totals| totals.served == served).await;
    assert_eq!((after.refused, after.expired), (refused, 0));
    let seconds = during.at_seconds - before.at_seconds;
    let utilisation = during.offered_seconds / (seconds * 2.0);
    assert!(utilisation > 1.0, "{during:?}");
    let in_flight = during.in_flight_seconds / seconds;
    assert!((2.0..8.0).contains(&in_flight), "{during:?}");
    let idle = bench.until(|totals| totals.at_seconds > after.at_seconds).await;
    assert_eq!(counts(&idle), counts(&after));

    let history = bench.history().await;
    assert!((4..=61).contains(&history.len()), "{history:?}");
    // The first two are the start of the model and of the recording.
    for pair in history[1..].windows(2) {
        let seconds = pair[1].at_seconds - pair[0].at_seconds;
        assert!((0.9..10.0).contains(&seconds), "{history:?}");
    }
    // Who reads the history sees what others have read in the meantime.
    for sample in &history {
        let (earlier, later) = if sample.at_seconds < during.at_seconds {
            (sample, &during)
        } else {
            (&during, sample)
        };
        let pairs = counts(earlier).into_iter().zip(counts(later));
        assert!(
            pairs.into_iter().all(|(earlier, later)| earlier <= later),
            "{history:?} {during:?}"
        );
    }
}

/// It is read every two seconds from every server of a service.
#[tokio::test(flavor = "multi_thread")]
async fn the_history_is_sent_only_to_those_who_ask_for_it_correctly() {
    let bench = bench();
    let (_, plain) = bench.get("/load").await;
    assert!(plain.len() < 1000 && !plain.contains("history"), "{plain}");
    for (history, length) in [("0", 0), ("60", 1)] {
        let report = bench.load(&format!("/load?history={history}")).await;
        assert!(report.models[0].history.len() >= length, "{report:?}");
    }
    for wrong in ["61", "-1", "1.5", "60s", "", "99999999999999999999"] {
        let (status, body) = bench.get(&format!("/load?history={wrong}")).await;
        assert_eq!(status, 400, "{wrong}: {body}");
        assert!(
            body.contains("must be a whole number of seconds from 0 to 60"),
            "{body}"
        );
    }
    let (status, body) = bench.get("/load?history=1&history=2").await;
    assert_eq!(status, 400, "{body}");
}

/// While a service is updated, an autoscaler also reads servers of the version before.
#[test]
fn a_report_of_an_older_server_has_no_totals() {
    let report = r#"{"ready": true, "inFlight": 9, "connections": 8, "models": [
        {"name": "photos", "inFlight": 9, "queued": 6, "running": 2, "runners": 2,
         "dutyCycle": {"lastSecond": 0.97, "lastTenSeconds": 0.62}, "predictedWaitMs": 16.2}]}"#;
    let report: LoadReport = serde_json::from_str(report).unwrap();
    assert_eq!((report.start_time_seconds, report.models[0].totals), (0.0, None));
}

/// After a restart the totals begin again.
#[tokio::test(flavor = "multi_thread")]
async fn the_report_says_when_the_server_started() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.unwrap().as_secs_f64();
    let bench = bench();
    let (first, second) = (bench.load("/load").await, bench.load("/load").await);
    assert!(
        (now - 1.0..now + 30.0).contains(&first.start_time_seconds),
        "{first:?}"
    );
    assert_eq!(first.start_time_seconds, second.start_time_seconds);
}

/// docs/autoscaling.md promises it. KEDA's metrics-api scaler reads the number at a GJSON path, whose parts are names and
/// indices (<https://keda.sh/docs/2.20/scalers/metrics-api>).
#[tokio::test]
async fn keda_finds_the_values_that_the_page_on_autoscaling_names() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/autoscaling.md");
    let page = std::fs::read_to_string(page).unwrap();
    let between = |start: &str, end: &str| {
        let (_, rest) = page.split_once(start).expect(start);
        rest.split_once(end).expect(end).0.to_owned()
    };
    let bench = bench();
    let (_, body) = bench.get("/load").await;
    let report: serde_json::Value = serde_json::from_str(&body).unwrap();
    let path = between("valueLocation: \"", "\"");
    let value = path.split('.').fold(&report, |value, part| {
        part.parse::<usize>()
            .map_or_else(|_| &value[part], |index| &value[index])
    });
    assert_eq!(value.as_u64(), Some(0), "{path} in {body}");
    let metric = between("query: sum(", "{");
    let (_, text) = bench.get("/metrics").await;
    assert!(
        text.contains(&format!("\n{metric}{{model=\"steady\"}} 0")),
        "{metric} in {text}"
    );
}
