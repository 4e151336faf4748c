//! What a user of a model gets: answers, sizes, suspension, deletion.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Secret, Service};
use modelservice_operator::crd::{AuthSettings, ModelService};
use serde_json::json;

use crate::Test;
use crate::fixture::{Fixture, condition, photo, service};

pub(crate) const TESTS: &[Test] = &[
    (
        "serving::a_photograph_is_classified_under_restricted_pod_security_and_deletion_leaves_nothing",
        |fixture| Box::pin(photographs(fixture)),
    ),
    (
        "serving::a_service_with_tokens_answers_those_who_have_one_and_says_when_there_are_none",
        |fixture| Box::pin(tokens(fixture)),
    ),
    (
        "serving::kubectl_scale_and_suspend_change_the_size_and_nothing_else",
        |fixture| Box::pin(sizes(fixture)),
    ),
];

// This is the whole point: if it fails, nobody can use the product.
async fn photographs(fixture: &Fixture) -> Result<()> {
    let team = fixture
        .team(
            "team-photos",
            &[("pod-security.kubernetes.io/enforce", "restricted")],
        )
        .await?;
    let served = team.serve(&service("photos", &fixture.models.photos)).await?;
    let status = served.status.context("no status")?;
    let url = status.url.context("no URL")?;
    for (file, expected) in [
        ("coffee.jpg", &["espresso"][..]),
        ("cat.jpg", &["tabby", "tiger cat", "Egyptian cat"]),
    ] {
        let answer = classify(fixture.cluster.command_in_node("curl")?, &url, file)?;
        ensure!(
            expected.iter().any(|label| answer.contains(label)),
            "{file}: none of {expected:?} in {answer}"
        );
    }
    over_grpc(fixture, &url)?;
    let answer = through_port_forward(fixture, &team.namespace)?;
    ensure!(answer.contains("espresso"), "{answer}");

    let model = team.wait("photos", "the signature is published", |service| {
        service
            .status
            .as_ref()
            .is_some_and(|status| status.model.is_some())
    });
    let model = model
        .await?
        .status
        .and_then(|status| status.model)
        .context("no model")?;
    ensure!(
        model.digest.starts_with("sha256:") && model.signature.opset == 17,
        "{model:?}"
    );
    ensure!(
        model.signature.inputs.len() == 1 && model.signature.outputs.len() == 1,
        "{model:?}"
    );
    team.delete("photos").await
}

// Asks the Service's gRPC port whether the model is ready. The call is framed here, so that no client library hides
// what is sent.
fn over_grpc(fixture: &Fixture, url: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (question, answer) = (folder.path().join("question"), folder.path().join("answer"));
    std::fs::write(&question, b"\x00\x00\x00\x00\x08\x0a\x06photos")?;
    let mut curl = fixture.cluster.command_in_node("curl")?;
    curl.args([
        "--silent",
        "--show-error",
        "--fail-with-body",
        "--max-time",
        "30",
        "--http2-prior-knowledge",
    ])
    .args([
        "-H",
        "Content-Type: application/grpc",
        "-H",
        "TE: trailers",
        "--data-binary",
    ])
    .arg(format!("@{}", question.display()))
    .arg("--output")
    .arg(&answer)
    .arg(format!("{url}:8001/inference.GRPCInferenceService/ModelReady"));
    let output = curl.output()?;
    ensure!(
        output.status.success(),
        "gRPC: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let answer = std::fs::read(&answer)?;
    ensure!(answer == b"\x00\x00\x00\x00\x02\x08\x01", "gRPC: {answer:?}");
    Ok(())
}

// From this machine, as described in docs/networking.md.
fn through_port_forward(fixture: &Fixture, namespace: &str) -> Result<String> {
    let mut kubectl = fixture.cluster.kubectl_command()?;
    kubectl.args(["-n", namespace, "port-forward", "service/photos", ":80"]);
    let mut forward = kubectl.stdout(Stdio::piped()).spawn()?;
    // Kept open: kubectl prints something about every connection.
    let mut said = BufReader::new(forward.stdout.take().context("no output")?);
    let mut line = String::new();
    said.read_line(&mut line)?;
    let address = line
        .split_whitespace()
        .nth(2)
        .with_context(|| format!("no address in {line:?}"));
    let answer = address
        .and_then(|address| classify(Command::new("curl"), &format!("http://{address}"), "coffee.jpg"));
    forward.kill()?;
    forward.wait()?;
    answer
}

pub(crate) fn classify(mut curl: Command, url: &str, file: &str) -> Result<String> {
    let output = curl
        .args([
            "--silent",
            "--show-error",
            "--fail-with-body",
            "--max-time",
            "30",
            "-H",
            "Content-Type: image/jpeg",
        ])
        .arg("--data-binary")
        .arg(format!("@{}", photo(file).display()))
        .arg(format!("{url}/v2/models/photos:classify"))
        .output()?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    ensure!(output.status.success(), "{file}: {said}");
    Ok(said)
}

// The status must name a missing Secret: the operator may not read it, and the kubelet would silently wait for it.
async fn tokens(fixture: &Fixture) -> Result<()> {
    let team = fixture.team("team-tokens", &[]).await?;
    let mut wanted = service("adder", &fixture.models.plus_one);
    wanted.spec.server.auth = Some(AuthSettings {
        token_secret_name: "known".into(),
    });
    team.apply(&wanted).await?;
    let named = |service: &_| {
        condition(service, "Ready").is_some_and(|(_, reason, message)| {
            reason == "InvalidSpec" && message.contains("/etc/modelservice/auth/tokens")
        })
    };
    team.wait("adder", "the missing tokens are named", named).await?;

    let secret = json!({"metadata": {"name": "known"}, "stringData": {"tokens": "one\ntwo\n"}});
    let secret: Secret = serde_json::from_value(secret)?;
    team.api().create(&Default::default(), &secret).await?;
    team.ready("adder").await?;
    let reported = |service: &ModelService| {
        service
            .status
            .as_ref()
            .is_some_and(|status| status.model.is_some())
    };
    let served = team
        .wait("adder", "the report is read without a token", reported)
        .await?;
    let status = served.status.context("no status")?;
    let url = format!("{}/v2/models/adder", status.url.context("no URL")?);
    for (token, expected) in [("two", "200"), ("three", "401")] {
        let mut curl = fixture.cluster.command_in_node("curl")?;
        curl.args([
            "--silent",
            "--max-time",
            "30",
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code}",
        ])
        .args(["-H", &format!("Authorization: Bearer {token}"), &url]);
        let said = curl.output()?.stdout;
        ensure!(
            said == expected.as_bytes(),
            "{token}: {}",
            String::from_utf8_lossy(&said)
        );
    }
    team.delete("adder").await
}

// Owners change these two settings daily; restarting the remaining servers would be an outage.
async fn sizes(fixture: &Fixture) -> Result<()> {
    let team = fixture.team("team-sizes", &[]).await?;
    let served = team.serve(&service("adder", &fixture.models.plus_one)).await?;
    let revision = served
        .status
        .and_then(|status| status.current_revision)
        .context("no revision")?;
    let first = team.pods("adder").await?;

    fixture.cluster.kubectl(&[
        "-n",
        &team.namespace,
        "scale",
        "modelservice/adder",
        "--replicas=2",
    ])?;
    team.wait("adder", "two servers are ready", |service| {
        service
            .status
            .as_ref()
            .is_some_and(|status| status.ready_replicas == 2)
    })
    .await?;
    let names: Vec<_> = team
        .pods("adder")
        .await?
        .into_iter()
        .filter_map(|pod| pod.metadata.name)
        .collect();
    ensure!(
        first.iter().all(|pod| pod
            .metadata
            .name
            .as_ref()
            .is_some_and(|name| names.contains(name))),
        "{names:?}"
    );

    let mut suspended = service("adder", &fixture.models.plus_one);
    suspended.spec.suspend = true;
    team.apply(&suspended).await?;
    team.wait("adder", "Suspended", |service| {
        condition(service, "Ready")
            .is_some_and(|(status, reason, _)| status == "True" && reason == "Suspended")
    })
    .await?;
    ensure!(
        team.pods("adder").await?.is_empty(),
        "servers of a suspended service run"
    );
    team.api::<Service>()
        .get("adder")
        .await
        .context("the Service must stay")?;

    suspended.spec.suspend = false;
    let resumed = team.serve(&suspended).await?;
    ensure!(
        resumed.status.and_then(|status| status.current_revision) == Some(revision.clone()),
        "another revision"
    );
    let deployments = team.api::<Deployment>().list(&Default::default()).await?.items;
    ensure!(
        deployments.len() == 1,
        "{} Deployments for one revision",
        deployments.len()
    );
    team.delete("adder").await
}
