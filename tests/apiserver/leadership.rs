//! Two replicas and one Lease.

use crate::fixture::{Operator, World, eventually, service};
use k8s_openapi::api::coordination::v1::Lease;
use local_cluster::Signal;
use std::sync::Arc;

crate::tests!(
    only_one_of_two_works_and_the_other_takes_over_at_once,
    a_frozen_leader_writes_nothing_when_it_goes_on,
);

async fn leading(operators: &[&Operator]) -> usize {
    let mut leading = Vec::new();
    for operator in operators {
        leading.push(operator.metric("leading", &[]).await);
    }
    assert!(leading.iter().sum::<f64>() <= 1.0, "{leading:?}");
    leading
        .iter()
        .position(|leads| *leads == 1.0)
        .unwrap_or(usize::MAX)
}

async fn only_one_of_two_works_and_the_other_takes_over_at_once(world: Arc<World>) {
    let place = world.namespace().await;
    // Longer than the test may take: only a released lease is taken over in time.
    let flags = [
        "--leader-elect",
        "--lease-namespace",
        &place.name,
        "--lease-duration",
        "120s",
    ];
    let mut both = [place.operator(&flags), place.operator(&flags)];
    let first = eventually("one leads", async || match leading(&[&both[0], &both[1]]).await {
        usize::MAX => Err("none"),
        leader => Ok(leader),
    })
    .await;
    place.apply(&service("photos")).await;
    place.serving("photos").await;
    assert_eq!(
        both[1 - first].metric("reconciles_total", &[]).await,
        0.0,
        "the other stands by"
    );
    assert_eq!(
        both[1 - first].get("/readyz").await.0,
        200,
        "or a rolling update never ends"
    );
    assert!(both[first].stop().await.success());
    place.apply(&service("photos").replicas(3)).await;
    eventually("the other works", async || {
        let status = place.serving("photos").await.status.unwrap();
        if status.ready_replicas == 3 {
            Ok(())
        } else {
            Err(status.ready_replicas)
        }
    })
    .await;
}

/// A leader that was paused (a VM, a debugger) believes that it is still the leader when it resumes.
async fn a_frozen_leader_writes_nothing_when_it_goes_on(world: Arc<World>) {
    let place = world.namespace().await;
    let flags = [
        "--leader-elect",
        "--lease-namespace",
        &place.name,
        "--lease-duration",
        "4s",
    ];
    let mut frozen = place.operator(&flags);
    place.apply(&service("photos")).await;
    place.serving("photos").await;
    frozen.quiet().await;
    frozen.signal(Signal::STOP);
    // A change that the frozen one has not seen yet, and would act upon.
    place.apply(&service("photos").replicas(2)).await;
    let second = place.operator(&flags);
    eventually("the second leads and works", async || {
        let status = place.service("photos").await.status.unwrap();
        if status.ready_replicas == 2 {
            Ok(())
        } else {
            Err(status.ready_replicas)
        }
    })
    .await;
    // A further change, which both would write.
    place.apply(&service("photos").replicas(3)).await;
    place.serving("photos").await;
    second.quiet().await;
    let before = place.versions().await;
    let lease = |lease: Lease| lease.spec.unwrap().holder_identity.unwrap();
    let holder = lease(place.api::<Lease>().get("modelservice-operator").await.unwrap());
    frozen.signal(Signal::CONT);
    let status = frozen.ended().await;
    assert!(!status.success(), "it starts afresh");
    assert_eq!(place.versions().await, before, "and wrote nothing");
    assert_eq!(
        lease(place.api::<Lease>().get("modelservice-operator").await.unwrap()),
        holder
    );
    assert!(frozen.log().contains("lost the lease"), "{}", frozen.log());
}
