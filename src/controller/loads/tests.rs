#![allow(clippy::unwrap_used)]
use super::*;
use crate::{fixtures::observed, validate::validate};
use http_body_util::Full;
use hyper::{Request, Response, body::Bytes, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use modelservice_contract::MANAGEMENT_PORT;
use serde_json::{Value, json};
use std::{
    convert::Infallible,
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};
use tokio::{
    net::TcpListener,
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    task::JoinHandle,
};

/// A service by utilisation with one server at each of these addresses, ready or not.
fn served(addresses: &[(&str, bool)]) -> (Observed, Size, String) {
    let spec = || json!({"autoscaling": {"maxReplicas": 8, "target": {"utilization": 70}}});
    let plan = observed(spec()).planned();
    let count = i32::try_from(addresses.len()).unwrap();
    let mut served = observed(spec()).running(&plan, count, count).routed(&plan);
    for (address, is_ready) in addresses {
        let status = if *is_ready { "True" } else { "False" };
        served = served.pod(
            &plan,
            json!({"phase": "Running", "podIP": address, "conditions": [{"type": "Ready", "status": status}]}),
        );
        Arc::make_mut(served.pods.last_mut().unwrap()).metadata.uid = Some((*address).to_owned());
    }
    let size = validate(&served).unwrap().size;
    (served, size, plan.rollout.target)
}

/// Reads all the time.
fn loads() -> (Loads, UnboundedReceiver<ObjectRef<ModelService>>) {
    let (wake, woken) = unbounded_channel();
    let loads = Loads {
        period: Duration::from_millis(20),
        ..Loads::new(wake, Arc::default())
    };
    (loads, woken)
}

async fn woken(woken: &mut UnboundedReceiver<ObjectRef<ModelService>>) {
    let service = tokio::time::timeout(Duration::from_secs(20), woken.recv()).await;
    assert_eq!(service.unwrap().unwrap().name, "photos");
}

/// What a server with one runner says that has been asked for `busy` runner seconds per second for 100 s.
fn report(began: Instant, busy: f64, with_history: bool) -> Value {
    let now = 100.0 + began.elapsed().as_secs_f64();
    let totals = |at: f64| {
        json!({"atSeconds": at, "served": 0, "refused": 0, "expired": 0, "offeredSeconds": busy * at,
            "inFlightSeconds": 0.0})
    };
    let mut model = json!({"name": "photos", "inFlight": 0, "queued": 0, "running": 0, "runners": 1,
        "dutyCycle": {"lastSecond": 0.0, "lastTenSeconds": 0.0}, "predictedWaitMs": 0.0, "totals": totals(now)});
    if with_history {
        let history: Vec<Value> = (0..60)
            .map(|second| totals(now - f64::from(60 - second)))
            .collect();
        model["history"] = json!(history);
    }
    json!({"ready": true, "inFlight": 0, "connections": 0, "startTimeSeconds": 7.0, "models": [model]})
}

/// A management port, the connections that it accepted, and its answers with and without history.
struct Server {
    task: JoinHandle<()>,
    connections: Arc<AtomicUsize>,
    histories: Arc<AtomicUsize>,
    answers: Arc<AtomicUsize>,
}

async fn server(address: &str, answer: impl Fn(bool) -> Value + Send + Sync + 'static) -> Server {
    let listener = TcpListener::bind((address, MANAGEMENT_PORT)).await.unwrap();
    let counters: [Arc<AtomicUsize>; 3] = Default::default();
    let [connections, histories, answers] = counters.clone();
    let answer = Arc::new(answer);
    let task = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            counters[0].fetch_add(1, Ordering::Relaxed);
            let (answer, counters) = (answer.clone(), counters.clone());
            let respond = service_fn(move |request: Request<hyper::body::Incoming>| {
                let with_history = request.uri().query() == Some("history=60");
                counters[1].fetch_add(usize::from(with_history), Ordering::Relaxed);
                counters[2].fetch_add(1, Ordering::Relaxed);
                let body = Bytes::from(answer(with_history).to_string());
                async move { Ok::<_, Infallible>(Response::new(Full::new(body))) }
            });
            tokio::spawn(async move {
                // The client closes it.
                let _ = http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), respond)
                    .await;
            });
        }
    });
    Server {
        task,
        connections,
        histories,
        answers,
    }
}

/// An address of this machine that no other test uses, nor another run of this one.
fn address(last: u8) -> String {
    let [.., high, low] = std::process::id().to_be_bytes();
    format!("127.{high}.{low}.{last}")
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(20), "not so: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A new leader knows what to do after one reading, and reads over the same connection from then on.
#[tokio::test]
async fn one_reading_is_enough_and_one_connection_too() {
    let address = address(11);
    let began = Instant::now();
    let server = server(&address, move |with_history| report(began, 1.4, with_history)).await;
    let (observed, size, revision) = served(&[(&address, true)]);
    let (loads, mut wakes) = loads();
    loads.follow(&observed, &size, Some(&revision), 1);
    woken(&mut wakes).await;
    let scaling = loads.of(&observed.service).unwrap();
    assert_eq!(
        (scaling.wanted, scaling.decided_by, scaling.blind),
        (2, "Load", None)
    );
    assert_eq!(
        scaling.message,
        "2 servers: load of 2.0 servers at 70 % utilization"
    );
    eventually("it is read again and again", || {
        server.answers.load(Ordering::Relaxed) > 5
    })
    .await;
    let (connections, histories) = (
        server.connections.load(Ordering::Relaxed),
        server.histories.load(Ordering::Relaxed),
    );
    assert_eq!((connections, histories), (1, 1));
    assert!(wakes.try_recv().is_err(), "the same decision is no news");
    server.task.abort();
}

/// Otherwise nobody learns why a service does not scale.
#[tokio::test]
async fn a_server_that_is_too_old_to_report_its_load_is_told() {
    let address = address(12);
    let old = |_| {
        let mut report = report(Instant::now(), 0.0, false);
        report["models"][0].as_object_mut().unwrap().remove("totals");
        report
    };
    let server = server(&address, old).await;
    let (observed, size, revision) = served(&[(&address, true)]);
    let (loads, mut wakes) = loads();
    loads.follow(&observed, &size, Some(&revision), 1);
    woken(&mut wakes).await;
    let scaling = loads.of(&observed.service).unwrap();
    assert_eq!((scaling.wanted, scaling.decided_by), (1, "NoData"));
    assert!(scaling.blind.unwrap().contains("spec.adoptRuntime"));
    server.task.abort();
}

/// Otherwise services that are deleted, suspended or no longer scaled by load are read for ever.
#[tokio::test]
async fn what_is_not_followed_any_more_is_not_read() {
    let address = address(13);
    let server = server(&address, |with_history| report(Instant::now(), 0.1, with_history)).await;
    let (observed, size, revision) = served(&[(&address, true)]);
    let (loads, mut wakes) = loads();
    let read = || server.answers.load(Ordering::Relaxed);
    type End = fn(&Loads, &Observed, &Size, &str);
    let ends: [(&str, End); 4] = [
        ("deleted", |loads, observed, _, _| {
            loads.forget(observed.service.metadata.uid.as_deref().unwrap());
        }),
        ("fixed", |loads, observed, _, revision| {
            loads.follow(observed, &Size::Fixed(2), Some(revision), 2);
        }),
        ("without traffic", |loads, observed, size, _| {
            loads.follow(observed, size, None, 0)
        }),
        ("suspended", |loads, observed, size, revision| {
            let mut suspended = observed.clone();
            Arc::make_mut(&mut suspended.service).spec.suspend = true;
            loads.follow(&suspended, size, Some(revision), 0);
        }),
    ];
    for (what, end) in ends {
        let before = read();
        loads.follow(&observed, &size, Some(&revision), 1);
        woken(&mut wakes).await;
        eventually("it is read", || read() > before).await;
        end(&loads, &observed, &size, &revision);
        assert_eq!(loads.of(&observed.service), None, "{what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
        let after = read();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(read(), after, "{what}");
    }
    server.task.abort();
}

/// Servers that are starting are not asked: their port may not be open, and they have no load.
#[tokio::test]
async fn only_ready_servers_are_asked() {
    let (first, second) = (address(14), address(15));
    let began = Instant::now();
    let ready = server(&first, move |with_history| report(began, 0.7, with_history)).await;
    let starting = server(&second, move |with_history| report(began, 0.7, with_history)).await;
    let (observed, size, revision) = served(&[(&first, true), (&second, false)]);
    let (loads, mut wakes) = loads();
    loads.follow(&observed, &size, Some(&revision), 2);
    woken(&mut wakes).await;
    eventually("it is read", || ready.answers.load(Ordering::Relaxed) > 2).await;
    assert_eq!(starting.connections.load(Ordering::Relaxed), 0);
    assert_eq!(
        loads.of(&observed.service).unwrap().wanted,
        2,
        "one server is never enough for a new leader"
    );
    ready.task.abort();
    starting.task.abort();
}

/// Each write of a status is work for the API server, and each change of a sentence without news is noise.
#[test]
fn sizes_are_told_at_once_and_limits_once_they_last() {
    let mut announcer = Announcer::default();
    let mut told = None;
    let start: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
    let load = |servers| Because::Load {
        servers,
        target: crate::scaling::Target::Utilization(0.7),
    };
    let missing = || Because::Missing { missing: 1, ready: 2 };
    let blind = || Some("pod photos-1 does not answer".to_owned());
    let table = [
        (0, 2, load(1.6), None, true, "the first decision"),
        (2, 2, load(1.9), None, false, "the same size"),
        (4, 2, Because::Minimum(2), None, false, "the minimum is no limit"),
        (6, 3, load(2.3), None, true, "another size"),
        (8, 3, missing(), None, false, "a limit that has just begun"),
        (10, 3, load(2.5), None, false, "and is gone"),
        (20, 3, missing(), None, false, "it begins again"),
        (48, 3, missing(), None, false, "and lasts"),
        (50, 3, missing(), None, true, "for thirty seconds"),
        (52, 3, missing(), blind(), false, "a reason that has just begun"),
        (82, 3, missing(), blind(), true, "and lasts"),
        (84, 4, load(3.6), None, true, "another size tells everything"),
        (86, 4, Because::Maximum(4), None, false, "a maximum"),
        (116, 4, Because::Maximum(4), None, true, "that lasts"),
    ];
    for (second, size, because, blind, is_told, what) in table {
        let decision = Decision {
            size,
            because: because.clone(),
            measured: None,
        };
        let now = start + SignedDuration::from_secs(second);
        let is_news = announcer.announce(&mut told, &decision, blind.clone(), now);
        assert_eq!(is_news, is_told, "at {second} s: {what}");
        if is_told {
            let told: &Scaling = told.as_ref().unwrap();
            assert_eq!((told.wanted, &told.blind), (size, &blind), "at {second} s");
            assert!(told.message.ends_with(&because.to_string()), "{}", told.message);
        }
    }
}
