//! `helm test`: what a platform engineer runs after an installation.

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use local_cluster::tool;

use crate::Test;
use crate::fixture::{Fixture, SYSTEM, repository};

pub(crate) const TESTS: &[Test] = &[
    (
        "helm::helm_test_serves_a_model_and_gets_an_answer_or_says_what_it_lacks",
        |fixture| Box::pin(helm_test(fixture)),
    ),
    (
        "helm::helm_test_with_its_log_works_for_a_release_that_watches_another_namespace",
        |fixture| Box::pin(helm_test_of_another_namespace(fixture)),
    ),
];

const RELEASE: &str = "modelservice-operator";

// If the test passed without an answer, it would not notice a broken installation.
async fn helm_test(fixture: &Fixture) -> Result<()> {
    let Err(refusal) = helm(fixture, &["test", RELEASE, "--logs"]) else {
        bail!("`helm test` passes without a model");
    };
    ensure!(
        refusal
            .to_string()
            .contains("set the chart's value test.modelImage"),
        "{refusal}"
    );
    let model = format!("test.modelImage={}", fixture.models.plus_one);
    let chart = "charts/modelservice-operator";
    helm(
        fixture,
        &[
            "upgrade",
            RELEASE,
            chart,
            "--reuse-values",
            "--wait",
            "--set",
            &model,
        ],
    )?;
    let answer = helm(fixture, &["test", RELEASE, "--logs"])?;
    ensure!(
        answer.contains("it answered: ") && answer.contains("\"FP32\""),
        "{answer}"
    );
    Ok(())
}

// `helm test --logs` looks for the pod in the release's namespace, wherever the model is served.
async fn helm_test_of_another_namespace(fixture: &Fixture) -> Result<()> {
    let (release, served) = ("helm-release", "helm-served");
    for namespace in [release, served] {
        fixture
            .team(namespace, &[("pod-security.kubernetes.io/enforce", "restricted")])
            .await?;
    }
    // The cluster's operator already serves every namespace: only this release's test is used.
    let images = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("images.yaml");
    std::fs::write(
        &images,
        helm(fixture, &["get", "values", RELEASE, "--output=yaml"])?,
    )?;
    let set = [
        &format!("watchNamespaces={{{served}}},replicas=0,crds.enabled=false,rbac.aggregatedRoles=false"),
        &format!(
            "accelerators.clusterRole.enabled=false,test.modelImage={}",
            fixture.models.plus_one
        ),
    ];
    let values = ["--values", path(&images)?, "--set", set[0], "--set", set[1]];
    let install = ["install", "single", "charts/modelservice-operator"];
    helm_in(fixture, release, &[&install[..], &values].concat())?;
    let answer = helm_in(fixture, release, &["test", "single", "--logs"])?;
    ensure!(answer.contains("it answered: "), "{answer}");
    Ok(())
}

fn path(path: &std::path::Path) -> Result<&str> {
    path.to_str().context("no UTF-8")
}

fn helm(fixture: &Fixture, arguments: &[&str]) -> Result<String> {
    helm_in(fixture, SYSTEM, arguments)
}

fn helm_in(fixture: &Fixture, namespace: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(tool("helm")?)
        .args(arguments)
        .args(["--namespace", namespace])
        .current_dir(repository())
        .env("KUBECONFIG", fixture.cluster.kubeconfig_path())
        .output()?;
    let (out, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    ensure!(output.status.success(), "helm {arguments:?}: {out}{errors}");
    Ok(out.into_owned())
}
