//! `helm test`: what a platform engineer runs after an installation.

use std::process::Command;

use anyhow::{Result, bail, ensure};
use local_cluster::tool;

use crate::Test;
use crate::fixture::{Fixture, SYSTEM, repository};

pub(crate) const TESTS: &[Test] = &[(
    "helm::helm_test_serves_a_model_and_gets_an_answer_or_says_what_it_lacks",
    |fixture| Box::pin(helm_test(fixture)),
)];

const RELEASE: &str = "modelservice-operator";

// A test that is green without an answer lets a broken installation pass.
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

fn helm(fixture: &Fixture, arguments: &[&str]) -> Result<String> {
    let output = Command::new(tool("helm")?)
        .args(arguments)
        .args(["--namespace", SYSTEM])
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
