//! Devices that a real device plug-in offers: servers request them, the status shows them, and a missing one has a
//! reason.

use anyhow::{Context, Result, ensure};
use modelservice_operator::crd::RolloutStrategy;
use serde_json::json;

use crate::Test;
use crate::fixture::{DEVICE, Fixture, condition, service};

pub(crate) const TESTS: &[Test] = &[(
    "devices::a_device_is_given_and_when_none_is_spare_the_status_says_what_to_do",
    |fixture| Box::pin(devices(fixture)),
)];

// Each node has one device, so that two servers fit and a third, or a new revision beside two, does not.
async fn devices(fixture: &Fixture) -> Result<()> {
    let team = fixture.team("team-devices", &[]).await?;
    fixture
        .class(
            "made-up-tpu",
            json!({"resource": {"name": DEVICE}, "sharing": "Exclusive"}),
        )
        .await?;
    let mut wanted = service("vision", &fixture.models.plus_one);
    wanted.spec.accelerators = vec!["made-up-tpu".to_owned()];
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

    // A new revision finds no device beside the old one, which keeps serving.
    wanted.spec.model.image.clone_from(&fixture.models.plus_ten);
    team.apply(&wanted).await?;
    let stuck = team
        .wait("vision", "Unschedulable", |service| {
            condition(service, "Ready").is_some_and(|(_, reason, _)| reason == "Unschedulable")
        })
        .await?;
    let (_, _, message) = condition(&stuck, "Ready").context("no condition")?;
    ensure!(
        message.contains(DEVICE) && message.contains("Recreate"),
        "{message}"
    );
    ensure!(
        condition(&stuck, "Available").is_some_and(|(status, ..)| status == "True"),
        "{stuck:?}"
    );

    // The solution that the message names.
    wanted.spec.rollout.strategy = RolloutStrategy::Recreate;
    team.serve(&wanted).await?;
    team.delete("vision").await
}
