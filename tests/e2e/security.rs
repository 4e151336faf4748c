//! Settings that have no effect in a server although they are present.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{EnvVar, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::DeleteParams;

use crate::Test;
use crate::fixture::{Fixture, service};

pub(crate) const TESTS: &[Test] = &[(
    "security::variables_of_the_loader_do_nothing_in_a_server",
    |fixture| Box::pin(loader_variables(fixture)),
)];

// A webhook may add variables that spec.pod.env refuses. If the loader used them, it would complain that a model is
// not a library.
async fn loader_variables(fixture: &Fixture) -> Result<()> {
    let team = fixture.team("team-loader", &[]).await?;
    team.serve(&service("adder", &fixture.models.plus_one)).await?;
    let server = team.pods("adder").await?.into_iter().next();
    let mut spec = server.and_then(|pod| pod.spec).context("no pod")?;
    spec.node_name = None;
    let variables = ["LD_PRELOAD", "LD_AUDIT", "ORT_DYLIB_PATH"].map(|name| EnvVar {
        name: name.to_owned(),
        value: Some("/mnt/model/model.onnx".to_owned()),
        value_from: None,
    });
    spec.containers[0].env.get_or_insert_default().extend(variables);
    let preloaded = Pod {
        metadata: ObjectMeta {
            name: Some("preloaded".to_owned()),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        status: None,
    };
    team.api::<Pod>().create(&Default::default(), &preloaded).await?;
    let is_ready = |pod: Option<&Pod>| {
        let conditions = pod.and_then(|pod| pod.status.as_ref()?.conditions.as_ref());
        conditions
            .into_iter()
            .flatten()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True")
    };
    team.until("preloaded", "ready", is_ready).await?;
    let arguments = ["-n", &team.namespace, "logs", "preloaded"];
    let log = fixture.cluster.kubectl(&arguments)?;
    ensure!(log.contains("serving") && !log.contains("ld.so"), "{log}");
    // Nothing would make it anew: a node that has it cannot be drained.
    team.api::<Pod>()
        .delete("preloaded", &DeleteParams::default())
        .await?;
    team.until("preloaded", "gone", |pod: Option<&Pod>| pod.is_none())
        .await?;
    team.leave("adder").await
}
