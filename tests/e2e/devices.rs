//! Devices that a real device plug-in offers: servers request them, the status shows them, and a missing one has a
//! reason.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use modelservice_operator::crd::{AcceleratorClass, AcceleratorStatus, ModelService, RolloutStrategy};
use modelservice_test_provider::NAME;
use serde_json::{Value, json};

use crate::Test;
use crate::fixture::{DEVICE, DEVICE_CLASS, Fixture, PATIENCE, TEST_PROVIDER, condition, service};
use crate::serving::classify;
use crate::team::Team;

pub(crate) const TESTS: &[Test] = &[
    (
        "devices::a_device_is_given_and_when_none_is_spare_the_status_says_what_to_do",
        |fixture| Box::pin(devices(fixture)),
    ),
    (
        "devices::a_whole_network_runs_on_another_execution_provider_and_the_status_says_so",
        |fixture| Box::pin(engaged(fixture)),
    ),
    (
        "devices::a_provider_in_a_library_runs_what_it_can_and_what_it_cannot_is_named",
        |fixture| Box::pin(plug_in(fixture)),
    ),
    ("devices::each_way_in_which_a_provider_fails_is_told", |fixture| {
        Box::pin(modes(fixture))
    }),
    (
        "devices::a_model_for_an_nvidia_gpu_is_never_served_from_the_cpu",
        |fixture| Box::pin(without_nvidia(fixture)),
    ),
    (
        "devices::the_next_class_of_a_list_is_used_where_there_is_no_device_of_the_first",
        |fixture| Box::pin(next_class(fixture)),
    ),
    (
        "devices::alternatives_that_a_driver_offers_are_tried_in_order_and_the_status_names_the_one_that_was_taken",
        |fixture| Box::pin(alternatives(fixture)),
    ),
    (
        "devices::a_request_that_no_node_can_meet_is_told_with_the_name_of_its_class",
        |fixture| Box::pin(unmet(fixture)),
    ),
];

/// Those that count every request of a load.
pub(crate) const UNDER_LOAD: &[Test] = &[
    (
        "devices::a_rolling_update_without_a_spare_device_loses_no_request",
        |fixture| Box::pin(rolling(fixture)),
    ),
    (
        "devices::the_server_of_a_device_that_turns_unhealthy_is_replaced_and_no_request_is_lost",
        |fixture| Box::pin(unhealthy(fixture)),
    ),
];

// Each node has one device, so that two servers fit and a third, or a new revision beside two, does not.
async fn devices(fixture: &Fixture) -> Result<()> {
    let _devices = fixture.devices.lock().await;
    let team = fixture.team("team-devices", &[]).await?;
    fixture
        .class(
            "made-up-tpu",
            json!({"resource": {"name": DEVICE}, "sharing": "Exclusive"}),
        )
        .await?;
    let mut wanted = service("vision", &fixture.models.plus_one);
    wanted.spec.accelerators = vec!["made-up-tpu".to_owned(), "cpu".to_owned()];
    wanted.spec.fallback_after = "1s".to_owned();
    wanted.spec.replicas = Some(2);
    let served = team.serve(&wanted).await?;
    let status = served.status.context("no status")?;
    ensure!(
        status
            .accelerator
            .as_ref()
            .is_some_and(|used| used.class == "made-up-tpu"),
        "{:?}",
        status.accelerator
    );
    for pod in team.pods("vision").await? {
        let limits = pod
            .spec
            .and_then(|spec| spec.containers.into_iter().next()?.resources?.limits);
        let devices = limits
            .and_then(|limits| limits.get(DEVICE).cloned())
            .context("no device")?;
        ensure!(devices.0 == "1", "{devices:?}");
    }

    // There is no third device, and the next class of the list is for services that get none at all.
    wanted.spec.replicas = Some(3);
    team.apply(&wanted).await?;
    let message = waits_for_a_device(&team, "vision").await?;
    ensure!(message.contains("\"made-up-tpu\""), "{message}");
    wanted.spec.replicas = Some(2);
    team.serve(&wanted).await?;

    // A new revision finds no device beside the old one, which keeps serving.
    wanted.spec.model.image = Some(fixture.models.plus_ten.clone());
    team.apply(&wanted).await?;
    let message = waits_for_a_device(&team, "vision").await?;
    ensure!(
        message.contains(DEVICE) && message.contains("Recreate"),
        "{message}"
    );

    // The solution that the message names.
    wanted.spec.rollout.strategy = RolloutStrategy::Recreate;
    team.serve(&wanted).await?;
    team.delete("vision").await
}

/// What is said once a pod has waited for a device for three seconds, while others serve; all are for the first class.
async fn waits_for_a_device(team: &Team<'_>, name: &str) -> Result<String> {
    let late = async || {
        let now = jiff::Timestamp::now();
        let pods = team.pods(name).await?;
        let waits = |pod: &Pod| {
            let created = pod.metadata.creation_timestamp.as_ref();
            let is_placed = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
            !is_placed && created.is_some_and(|created| now.duration_since(created.0).as_secs() >= 4)
        };
        anyhow::Ok(pods.iter().any(waits))
    };
    let deadline = Instant::now() + PATIENCE;
    while !late().await? {
        ensure!(Instant::now() < deadline, "no pod waits for a device");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let message = told(team, name, "Ready", ("False", "Unschedulable")).await?;
    let service = team.api::<ModelService>().get(name).await?;
    ensure!(
        condition(&service, "Available").is_some_and(|(status, ..)| status == "True"),
        "{service:?}"
    );
    for deployment in team.api::<Deployment>().list(&ListParams::default()).await? {
        let name = deployment.name_any();
        ensure!(name.ends_with("-made-up-tpu"), "{name} is for another class");
    }
    Ok(message)
}

/// The condition, once it has this status and reason.
async fn told(team: &Team<'_>, name: &str, type_: &str, wanted: (&str, &str)) -> Result<String> {
    let (status, reason) = wanted;
    let service = team
        .wait(name, &format!("{type_}={status} {reason}"), |service| {
            condition(service, type_).is_some_and(|(s, r, _)| (s, r) == wanted)
        })
        .await?;
    let (_, _, message) = condition(&service, type_).context("no condition")?;
    Ok(message.to_owned())
}

fn accelerator(service: &ModelService) -> Result<AcceleratorStatus> {
    let status = service.status.as_ref();
    let accelerator = status.and_then(|status| status.accelerator.clone());
    accelerator.context("no status.accelerator")
}

/// Of EfficientNet-Lite0, every node runs on OpenVINO, which drives the processor here.
async fn engaged(fixture: &Fixture) -> Result<()> {
    let team = fixture.team("team-engaged", &[]).await?;
    let image = fixture.runtime_image("openvino")?;
    let _devices = fixture.devices.lock().await;
    let runtime = json!({
        "image": image, "executionProvider": "OpenVINOExecutionProvider", "options": {"device_type": "CPU"},
    });
    fixture
        .class(
            "openvino-tpu",
            json!({"resource": {"name": DEVICE}, "runtime": runtime, "sharing": "Exclusive"}),
        )
        .await?;
    let mut wanted = service("photos", &fixture.models.photos);
    wanted.spec.accelerators = vec!["openvino-tpu".to_owned()];
    team.serve(&wanted).await?;
    let url = format!("http://{}", team.address("photos").await?);
    let answer = classify(fixture.cluster.command_in_node("curl")?, &url, "coffee.jpg")?;
    ensure!(answer.contains("espresso"), "{answer}");
    let message = told(&team, "photos", "AcceleratorEngaged", ("True", "DeviceEngaged")).await?;
    ensure!(message.contains("OpenVINOExecutionProvider"), "{message}");
    let used = accelerator(&team.api::<ModelService>().get("photos").await?)?;
    let devices: Vec<_> = used
        .devices
        .iter()
        .map(|device| (device.nodes, device.replicas))
        .collect();
    ensure!(
        used.class == "openvino-tpu" && devices == [(95, 1)] && used.devices[0].elsewhere.is_empty(),
        "{used:?}"
    );
    let class: AcceleratorClass = Api::all(fixture.client.clone()).get("openvino-tpu").await?;
    let status = class.status.context("the class has no status")?;
    ensure!(
        (status.nodes, status.allocatable, status.in_use) == (Some(2), Some(2), Some(1)),
        "{status:?}"
    );
    team.delete("photos").await
}

/// The runtime of a class whose execution provider is in a library, and finds a device on any machine.
fn library(fixture: &Fixture) -> Result<Value> {
    Ok(json!({
        "image": fixture.runtime_image("plugin")?, "executionProvider": "ggml",
        "plugin": {"library": "/usr/lib/libonnxruntime_ggml.so"}, "options": {"device": "cpu"},
    }))
}

async fn plug_in(fixture: &Fixture) -> Result<()> {
    let team = fixture.team("team-plug-in", &[]).await?;
    let class = |name: &'static str, runtime: Value| async move {
        fixture.class(name, json!({ "runtime": runtime })).await
    };
    let runtime = library(fixture)?;
    class("ggml", runtime.clone()).await?;
    let mut wanted = service("orders", &fixture.models.plus_one);
    wanted.spec.accelerators = vec!["ggml".to_owned()];
    team.serve(&wanted).await?;
    told(&team, "orders", "AcceleratorEngaged", ("True", "DeviceEngaged")).await?;
    let used = accelerator(&team.api::<ModelService>().get("orders").await?)?;
    ensure!(
        used.devices
            .first()
            .is_some_and(|device| device.nodes == 1 && device.elsewhere.is_empty()),
        "{used:?}"
    );

    // None of this model's nodes, whatever the list of providers says.
    let mut photos = service("photos", &fixture.models.photos);
    photos.spec.accelerators.clone_from(&wanted.spec.accelerators);
    team.apply(&photos).await?;
    let message = told(&team, "photos", "Ready", ("False", "ExecutionProviderFallback")).await?;
    ensure!(message.contains("Conv ("), "{message}");

    let mut missing_library = runtime.clone();
    missing_library["plugin"]["library"] = json!("/usr/lib/libabsent.so");
    let openvino = fixture.runtime_image("openvino")?;
    for (name, runtime, reason, words) in [
        (
            "missing-library",
            missing_library,
            "AcceleratorUnavailable",
            "/usr/lib/libabsent.so",
        ),
        (
            "other-image",
            json!({"executionProvider": "CUDAExecutionProvider"}),
            "AcceleratorUnavailable",
            "CUDAExecutionProvider",
        ),
        (
            "misspelt-option",
            json!({"image": openvino, "executionProvider": "OpenVINOExecutionProvider", "options": {"colour": "red"}}),
            "InvalidSpec",
            "colour",
        ),
    ] {
        class(name, runtime).await?;
        let mut wanted = service(name, &fixture.models.plus_one);
        wanted.spec.accelerators = vec![name.to_owned()];
        team.apply(&wanted).await?;
        let message = told(&team, name, "Ready", ("False", reason)).await?;
        ensure!(message.contains(words), "{name}: {message}");
        team.leave(name).await?;
    }
    team.leave("photos").await?;
    team.leave("orders").await
}

/// A provider with these options, and what becomes of a service on it.
struct Mode {
    name: &'static str,
    mode: &'static str,
    share: i32,
    reason: &'static str,
    words: &'static [&'static str],
}

async fn modes(fixture: &Fixture) -> Result<()> {
    let team = fixture.team("team-modes", &[]).await?;
    let image = fixture.test_provider_image()?;
    let row = |name, mode, share, reason, words| Mode {
        name,
        mode,
        share,
        reason,
        words,
    };
    let table = [
        row("all", "all", 0, "DeviceEngaged", &["TestExecutionProvider", "2"]),
        row("slow", "slow", 0, "DeviceEngaged", &["TestExecutionProvider"]),
        row("share", "part", 50, "DeviceEngaged", &["1", "Add"]),
        row(
            "part",
            "part",
            49,
            "ExecutionProviderFallback",
            &["runs 1 of the model's 2", "Add (1)"],
        ),
        row(
            "none",
            "none",
            100,
            "ExecutionProviderFallback",
            &["none of the model's 2", "Relu (1)"],
        ),
        row(
            "first-run",
            "fail-first-run",
            0,
            "AcceleratorUnavailable",
            &["the first run", "fallen off the bus"],
        ),
        row(
            "later",
            "fail-after-100",
            0,
            "DeviceEngaged",
            &["TestExecutionProvider"],
        ),
    ];
    let started = table.iter().map(|row| async {
        let plugin = json!({"library": TEST_PROVIDER});
        let runtime = json!({"image": image, "executionProvider": NAME, "plugin": plugin,
            "options": {"mode": row.mode}, "allowCpuShare": row.share});
        let class = format!("mode-{}", row.name);
        fixture.class(&class, json!({ "runtime": runtime })).await?;
        let mut wanted = service(row.name, &fixture.models.two_nodes);
        wanted.spec.accelerators = vec![class];
        team.apply(&wanted).await
    });
    futures::future::try_join_all(started).await?;
    for Mode {
        name, reason, words, ..
    } in table
    {
        let engaged = if reason == "DeviceEngaged" {
            "True"
        } else {
            "False"
        };
        let message = told(&team, name, "AcceleratorEngaged", (engaged, reason)).await?;
        for word in words {
            ensure!(message.contains(word), "{name}: {message}");
        }
    }

    // A device that is lost while its server answers.
    let load = team.load_adder("later", 50.0).await?;
    let message = told(&team, "later", "Ready", ("False", "AcceleratorUnavailable")).await?;
    let report = tokio::task::block_in_place(|| load.stop())?;
    ensure!(
        message.contains("lost its device while serving") && message.contains("fallen off the bus"),
        "{message}"
    );
    ensure!(report.answered > 0, "{:?}", report.errors);
    for row in ["all", "slow", "share", "part", "none", "first-run", "later"] {
        team.leave(row).await?;
    }
    Ok(())
}

/// The image has the provider, but neither a driver nor NVIDIA's libraries are here.
async fn without_nvidia(fixture: &Fixture) -> Result<()> {
    let team = fixture.team("team-nvidia", &[]).await?;
    let runtime =
        json!({"image": fixture.runtime_image("cuda")?, "executionProvider": "CUDAExecutionProvider"});
    fixture
        .class("nvidia-without-resource", json!({ "runtime": runtime }))
        .await?;
    fixture
        .class(
            "nvidia",
            json!({"resource": {"name": "nvidia.com/gpu"}, "runtime": runtime}),
        )
        .await?;
    for (class, reason, words) in [
        (
            "nvidia-without-resource",
            "AcceleratorUnavailable",
            "libcublasLt.so.13",
        ),
        ("nvidia", "Unschedulable", "nvidia.com/gpu"),
    ] {
        let mut wanted = service(class, &fixture.models.plus_one);
        wanted.spec.accelerators = vec![class.to_owned()];
        team.apply(&wanted).await?;
        let message = told(&team, class, "Ready", ("False", reason)).await?;
        ensure!(message.contains(words), "{class}: {message}");
        let service = team.api::<ModelService>().get(class).await?;
        ensure!(
            condition(&service, "Available").is_some_and(|(status, ..)| status == "False"),
            "{service:?}"
        );
        team.leave(class).await?;
    }
    Ok(())
}

async fn next_class(fixture: &Fixture) -> Result<()> {
    let team = fixture.team("team-next-class", &[]).await?;
    fixture
        .class("absent-npu", json!({"resource": {"name": "example.com/npu"}}))
        .await?;
    let mut wanted = service("orders", &fixture.models.plus_one);
    wanted.spec.accelerators = vec!["absent-npu".to_owned(), "cpu".to_owned()];
    wanted.spec.fallback_after = "3s".to_owned();
    let used = accelerator(&team.serve(&wanted).await?)?;
    ensure!(used.class == "cpu", "{used:?}");
    let load = team.load_adder("orders", 20.0).await?;
    tokio::task::block_in_place(|| {
        load.wait_answers(20)?;
        load.finish("on the next class")
    })?;
    team.delete("orders").await
}

/// A request of devices that the example driver offers, if they are of this model.
fn of_model(model: &str, name: &str) -> Value {
    let expression = format!("device.attributes[\"{DEVICE_CLASS}\"].model == \"{model}\"");
    json!({"name": name, "deviceClassName": DEVICE_CLASS, "selectors": [{"cel": {"expression": expression}}]})
}

// Each node has one device, as for the device plug-in.
async fn alternatives(fixture: &Fixture) -> Result<()> {
    let team = fixture.team("team-alternatives", &[]).await?;
    let wanted = [
        of_model("NEXT-GPU-MODEL", "next"),
        of_model("LATEST-GPU-MODEL", "latest"),
    ];
    fixture
        .class(
            "example-gpu",
            json!({"deviceRequest": {"firstAvailable": wanted}, "runtime": library(fixture)?, "sharing": "Exclusive"}),
        )
        .await?;
    let mut wanted = service("vision", &fixture.models.plus_one);
    wanted.spec.accelerators = vec!["example-gpu".to_owned()];
    wanted.spec.replicas = Some(2);
    team.serve(&wanted).await?;
    team.wait("vision", "both servers have the second alternative", |service| {
        let accelerator = accelerator(service).unwrap_or_default();
        let devices = accelerator.devices.iter();
        let taken: Vec<_> = devices
            .map(|device| (device.request.as_deref(), device.replicas))
            .collect();
        taken == [(Some("latest"), 2)]
    })
    .await?;
    let claims: BTreeSet<_> = team.pods("vision").await?.iter().filter_map(claim).collect();
    ensure!(claims.len() == 2, "not a claim for each pod: {claims:?}");

    wanted.spec.replicas = Some(3);
    team.apply(&wanted).await?;
    let message = told(&team, "vision", "Reconciling", ("True", "Unschedulable")).await?;
    ensure!(message.contains("\"example-gpu\""), "{message}");
    let service = team.api::<ModelService>().get("vision").await?;
    ensure!(
        condition(&service, "Available").is_some_and(|(status, ..)| status == "True"),
        "{service:?}"
    );
    team.delete("vision").await
}

async fn unmet(fixture: &Fixture) -> Result<()> {
    let team = fixture.team("team-unmet", &[]).await?;
    let absent = json!({"selectors": of_model("NEXT-GPU-MODEL", "next")["selectors"]});
    for (class, mut exactly) in [("absent-model", absent), ("two-on-a-node", json!({"count": 2}))] {
        exactly["deviceClassName"] = json!(DEVICE_CLASS);
        fixture
            .class(class, json!({"deviceRequest": {"exactly": exactly}}))
            .await?;
        let mut wanted = service(class, &fixture.models.plus_one);
        wanted.spec.accelerators = vec![class.to_owned()];
        team.apply(&wanted).await?;
        let message = told(&team, class, "Ready", ("False", "Unschedulable")).await?;
        ensure!(message.contains(&format!("\"{class}\"")), "{message}");
        team.leave(class).await?;
    }
    Ok(())
}

/// The ResourceClaim that was made for a pod.
fn claim(pod: &Pod) -> Option<String> {
    let claims = pod.status.as_ref()?.resource_claim_statuses.as_ref()?;
    claims.first()?.resource_claim_name.clone()
}

/// Two servers on two devices, of which one turns unhealthy.
async fn unhealthy(fixture: &Fixture) -> Result<()> {
    let team = fixture.team("team-unhealthy", &[]).await?;
    let _devices = fixture.devices.lock().await;
    fixture
        .class(
            "fragile-tpu",
            json!({"resource": {"name": DEVICE}, "sharing": "Exclusive"}),
        )
        .await?;
    let mut wanted = service("orders", &fixture.models.plus_one);
    wanted.spec.accelerators = vec!["fragile-tpu".to_owned()];
    wanted.spec.replicas = Some(2);
    team.serve(&wanted).await?;
    let load = team.load_adder("orders", 20.0).await?;
    tokio::task::block_in_place(|| load.wait_answers(20))?;
    let node = fixture.cluster.node(0);
    let pods = team.pods("orders").await?;
    let is_there =
        |pod: &&Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()) == Some(&node.name);
    let (broken, others): (Vec<&Pod>, Vec<&Pod>) = pods.iter().partition(is_there);
    let (&[broken], &[other]) = (&broken[..], &others[..]) else {
        bail!("not a server on each node\n{}", team.describe());
    };
    node.break_device(0)?;
    let replaced = replaced(&team, &broken.name_any(), &other.name_any()).await;
    let answered = tokio::task::block_in_place(|| load.wait_answers(40));
    node.repair_device(0)?;
    replaced?;
    answered?;
    let served = team.ready("orders").await?.status.context("no status")?;
    ensure!(served.ready_replicas == 2, "{served:?}");
    tokio::task::block_in_place(|| {
        load.wait_answers(40)?;
        load.finish("a device that turns unhealthy")
    })?;
    team.leave("orders").await
}

/// Waits until the server of a broken device is gone, and the status says why the next one waits.
async fn replaced(team: &Team<'_>, broken: &str, other: &str) -> Result<()> {
    team.until::<Pod>(broken, "gone", |pod: Option<&Pod>| pod.is_none())
        .await?;
    let message = told(team, "orders", "Reconciling", ("True", "Unschedulable")).await?;
    ensure!(message.contains("\"fragile-tpu\""), "{message}");
    let pods = team.pods("orders").await?;
    let phases = pods
        .iter()
        .filter_map(|pod| Some((pod.name_any(), pod.status.as_ref()?.phase.as_deref()?)));
    let rejected: Vec<_> = phases.filter(|(_, phase)| *phase == "Failed").collect();
    ensure!(
        rejected.is_empty(),
        "the node rejected {rejected:?}\n{}",
        team.describe()
    );
    let left = team.api::<Pod>().get(other).await?;
    ensure!(
        left.metadata.deletion_timestamp.is_none(),
        "{other} is deleted as well"
    );
    let events = team.api::<Event>().list(&ListParams::default()).await?;
    let lost = events
        .items
        .iter()
        .filter(|event| event.reason.as_deref() == Some("DeviceLost"));
    let notes: Vec<&str> = lost.filter_map(|event| event.note.as_deref()).collect();
    ensure!(
        matches!(notes[..], [note] if note.contains(broken) && note.contains(DEVICE)),
        "{notes:?}"
    );
    Ok(())
}

/// Two servers on two devices, and then one server on the only device that is left.
async fn rolling(fixture: &Fixture) -> Result<()> {
    let team = fixture.team("team-rolling", &[]).await?;
    let _devices = fixture.devices.lock().await;
    fixture
        .class(
            "scarce-tpu",
            json!({"resource": {"name": DEVICE}, "sharing": "Exclusive"}),
        )
        .await?;
    let mut wanted = service("orders", &fixture.models.plus_one);
    wanted.spec.accelerators = vec!["scarce-tpu".to_owned()];
    wanted.spec.rollout.strategy = RolloutStrategy::Rolling;
    wanted.spec.replicas = Some(2);
    team.serve(&wanted).await?;
    let load = team.load_adder("orders", 20.0).await?;
    tokio::task::block_in_place(|| load.wait_answers(40))?;
    wanted.spec.model.image = Some(fixture.models.plus_ten.clone());
    team.serve(&wanted).await?;
    let report = tokio::task::block_in_place(|| {
        load.wait_answers(40)?;
        load.finish("a rolling update on two devices")
    })?;
    ensure!(report.adds(10.0), "{:?}", report.latest);

    let mut other = service("other", &fixture.models.plus_one);
    other.spec.accelerators.clone_from(&wanted.spec.accelerators);
    wanted.spec.replicas = Some(1);
    team.serve(&wanted).await?;
    team.serve(&other).await?;
    let load = team.load_adder("orders", 20.0).await?;
    tokio::task::block_in_place(|| load.wait_answers(40))?;
    wanted.spec.model.image = Some(fixture.models.plus_one.clone());
    team.serve(&wanted).await?;
    let report = tokio::task::block_in_place(|| {
        load.wait_answers(40)?;
        load.stop()
    })?;
    eprintln!(
        "a rolling update on one device: {} answered, {} not, the slowest after {:.1?}",
        report.answered,
        report.errors.len(),
        report.latencies.iter().max().copied().unwrap_or_default()
    );
    ensure!(report.adds(1.0), "{:?}", report.latest);
    let events = team.api::<Event>().list(&ListParams::default()).await?;
    let interrupted = |event: &Event| event.reason.as_deref() == Some("ServiceInterrupted");
    ensure!(events.items.iter().any(interrupted), "nothing announced the gap");
    team.leave("other").await?;
    team.leave("orders").await
}
