//! A settled service costs nothing, now and after a restart; and how an operator stops.

use crate::fixture::{World, control_plane, eventually, service};
use kube::api::{Patch, PatchParams};
use local_cluster::{ControlPlaneOptions, FakeNodes};
use modelservice_operator::crd::{ModelService, definitions};
use serde_json::json;
use std::sync::Arc;

crate::tests!(
    a_new_service_costs_no_read,
    a_second_reconcile_makes_no_request,
    a_restarted_operator_writes_nothing,
    a_stopped_operator_ends_well,
    one_object_that_cannot_be_read_does_not_stop_the_others,
    metrics_name_no_objects,
    traces_are_sent_where_they_are_asked_for,
);

/// Otherwise each of a thousand new services asks the API server three times for objects that do not exist.
async fn a_new_service_costs_no_read(world: Arc<World>) {
    let (place, operator) = world.place().await;
    // The first service's reads include those at startup.
    place.apply(&service("first")).await;
    place.serving("first").await;
    operator.quiet().await;
    let reads = operator.metric("api_requests_total", &["\"GET"]).await;
    place.apply(&service("photos").autoscaled(2, 4)).await;
    place.serving("photos").await;
    operator.quiet().await;
    assert_eq!(operator.metric("api_requests_total", &["\"GET"]).await, reads);
}

/// Otherwise a thousand services keep the API server busy for ever.
async fn a_second_reconcile_makes_no_request(world: Arc<World>) {
    let (place, operator) = world.place().await;
    let spread = json!([{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}]);
    let rich = service("rich")
        .autoscaled(2, 4)
        .with("autoscaling.behavior", json!({"scaleDown": {"stabilizationWindowSeconds": 0, "policies": [{"type": "Percent", "value": 50, "periodSeconds": 15}]}}))
        .with("resources", json!({"requests": {"cpu": "1000m", "memory": "0.5Gi"}, "limits": {"cpu": 2, "memory": "1024Mi"}}))
        .with("server", json!({"modelName": "net", "queueLength": 7}))
        .with("pod", json!({
            "labels": {"team": "a"}, "annotations": {"note": ""}, "priorityClassName": "system-cluster-critical",
            "env": [{"name": "EMPTY"}, {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
            "tolerations": [{"key": "a", "operator": "Exists"}], "topologySpreadConstraints": spread, "fsGroup": 1000,
            "serviceAccountName": "default", "imagePullSecrets": [{"name": "pull"}],
            "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 1, "preference": {"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}}]}},
        }));
    place.apply(&rich).await;
    place.apply(&service("plain")).await;
    place.serving("rich").await;
    place.serving("plain").await;
    operator.quiet().await;
    let (versions, requests) = (
        place.versions().await,
        operator
            .metric("api_requests_total", &["\"GET", "\"P", "\"DELETE"])
            .await,
    );
    let reconciles = operator.metric("reconciles_total", &[]).await;
    for name in ["rich", "plain"] {
        // A label set by the user triggers a reconcile of both kinds.
        place
            .merge::<ModelService>(name, json!({"metadata": {"labels": {"touched": "yes"}}}))
            .await;
    }
    eventually("both were looked at again", async || {
        let now = operator.metric("reconciles_total", &[]).await;
        if now >= reconciles + 2.0 { Ok(()) } else { Err(now) }
    })
    .await;
    operator.quiet().await;
    assert_eq!(
        operator
            .metric("api_requests_total", &["\"GET", "\"P", "\"DELETE"])
            .await,
        requests
    );
    let children = |versions: Vec<String>| {
        versions
            .into_iter()
            .filter(|v| !v.starts_with("ModelService/"))
            .collect::<Vec<_>>()
    };
    assert_eq!(children(place.versions().await), children(versions));
}

async fn a_restarted_operator_writes_nothing(world: Arc<World>) {
    let (place, mut operator) = world.place().await;
    place.apply(&service("auto").autoscaled(2, 4)).await;
    place.apply(&service("fixed").replicas(2)).await;
    place.apply(&service("stuck").unschedulable()).await;
    place.serving("auto").await;
    place.serving("fixed").await;
    place.wait_ready("stuck", "False", "Unschedulable").await;
    operator.quiet().await;
    operator.stop().await;
    let before = place.versions().await;
    let again = place.operator(&[]);
    eventually("all were looked at", async || {
        let count = again.metric("reconciles_total", &[]).await;
        if count >= 3.0 {
            Ok(())
        } else {
            Err(again.get("/metrics").await.1)
        }
    })
    .await;
    again.quiet().await;
    assert_eq!(place.versions().await, before);
    // The dry run at startup is the only writing request.
    assert_eq!(again.writes().await, 1.0);
}

async fn a_stopped_operator_ends_well(world: Arc<World>) {
    let (place, mut operator) = world.place().await;
    place.apply(&service("photos")).await;
    place.serving("photos").await;
    assert_eq!(operator.get("/healthz").await.0, 200);
    assert_eq!(operator.get("/readyz").await.0, 200);
    assert!(operator.stop().await.success());
}

/// One bad object, written with another schema or directly into etcd, must not stop all services.
async fn one_object_that_cannot_be_read_does_not_stop_the_others(_: Arc<World>) {
    // Needs its own control plane: a changed definition ends every watch of the kind.
    let options = ControlPlaneOptions {
        fake_nodes: Some(FakeNodes::new(1)),
        ..control_plane("loose")
    };
    let world = tokio::task::spawn_blocking(|| World::with(options))
        .await
        .unwrap()
        .unwrap();
    let (place, _operator) = world.place().await;
    let definition = definitions()
        .into_iter()
        .find(|d| d.spec.names.kind == "ModelService")
        .unwrap();
    let definitions: kube::Api<
        k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    > = kube::Api::all(place.client.clone());
    // Created while the schema is temporarily relaxed.
    let (name, mut loose) = (
        definition.metadata.name.clone().unwrap(),
        serde_json::to_value(&definition).unwrap(),
    );
    let path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/revisionHistoryLimit";
    *loose.pointer_mut(path).unwrap() = json!({"x-kubernetes-int-or-string": true});
    let parameters = PatchParams::apply("kubectl").force();
    definitions
        .patch(&name, &parameters, &Patch::Apply(loose))
        .await
        .unwrap();
    let bad = service("bad").with("revisionHistoryLimit", "several".into());
    eventually("the relaxed schema is in force", async || {
        match place.try_apply(&bad).await {
            // It was stored; the answer cannot be parsed here either.
            Err(kube::Error::SerdeError(_)) => Ok(()),
            answer => Err(format!("{answer:?}")),
        }
    })
    .await;
    place.apply(&service("good")).await;
    place.serving("good").await;
    // Its status can be read without its spec.
    eventually("the bad one says what is wrong", async || {
        let raw: kube::core::PartialObjectMeta<ModelService> =
            place.api::<ModelService>().get_metadata("bad").await.unwrap();
        let url = format!(
            "/apis/serving.modelservice.dev/v1alpha1/namespaces/{}/modelservices/{}",
            place.name,
            raw.metadata.name.unwrap()
        );
        let request = hyper::Request::get(url).body(Vec::new()).unwrap();
        let object: serde_json::Value = place.client.request(request).await.unwrap();
        let reason = object["status"]["conditions"][0]["reason"].clone();
        if reason == "InvalidSpec" {
            Ok(())
        } else {
            Err(object.to_string())
        }
    })
    .await;
    let gone = hyper::Request::delete(format!(
        "/apis/serving.modelservice.dev/v1alpha1/namespaces/{}/modelservices/bad",
        place.name
    ));
    let _: serde_json::Value = place
        .client
        .request(gone.body(Vec::new()).unwrap())
        .await
        .unwrap();
    tokio::task::spawn_blocking(move || drop(world)).await.unwrap();
}

async fn metrics_name_no_objects(world: Arc<World>) {
    let (place, operator) = world.place().await;
    place.apply(&service("conspicuous")).await;
    place.serving("conspicuous").await;
    let (status, text) = operator.get("/metrics").await;
    assert_eq!(status, 200);
    assert!(
        !text.contains("conspicuous") && !text.contains(&place.name),
        "{text}"
    );
    for name in [
        "reconciles_total{outcome=\"ok\"}",
        "reconcile_step_seconds_bucket{",
        "queue_length",
        "api_requests_total{method=\"PATCH\"",
    ] {
        assert!(
            text.contains(&format!("modelservice_operator_{name}")),
            "{name} in {text}"
        );
    }
}

/// A stand-in that speaks gRPC's HTTP/2 replaces the collector, which cannot be built here.
async fn traces_are_sent_where_they_are_asked_for(world: Arc<World>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (sender, mut received) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let sender = sender.clone();
            let answer = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                let sender = sender.clone();
                async move {
                    let path = request.uri().path().to_owned();
                    let body = http_body_util::BodyExt::collect(request.into_body())
                        .await?
                        .to_bytes();
                    sender
                        .send((path, String::from_utf8_lossy(&body).into_owned()))
                        .unwrap();
                    let answer = hyper::Response::builder()
                        .header("content-type", "application/grpc")
                        .header("grpc-status", "0");
                    Ok::<_, hyper::Error>(
                        answer
                            .body(http_body_util::Empty::<hyper::body::Bytes>::new())
                            .unwrap(),
                    )
                }
            });
            let executor = hyper_util::rt::TokioExecutor::new();
            let io = hyper_util::rt::TokioIo::new(stream);
            tokio::spawn(hyper::server::conn::http2::Builder::new(executor).serve_connection(io, answer));
        }
    });
    let place = world.namespace().await;
    let mut operator = place.operator(&["--otlp-endpoint", &endpoint]);
    place.apply(&service("photos")).await;
    place.serving("photos").await;
    operator.stop().await;
    let mut all = String::new();
    while let Ok((path, body)) = received.try_recv() {
        assert_eq!(
            path,
            "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
        );
        all.push_str(&body);
    }
    assert!(
        all.contains("modelservice-operator") && all.contains("reconciling object") && all.contains("photos"),
        "{all}"
    );
}
