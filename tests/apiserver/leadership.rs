//! Two replicas and one Lease.

use crate::fixture::{Operator, Place, World, eventually, service};
use k8s_openapi::api::coordination::v1::Lease;
use local_cluster::Signal;
use modelservice_operator::crd::ModelService;
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

/// The flags of a replica that elects a leader.
fn electing<'a>(place: &'a Place, lease_duration: &'a str) -> [&'a str; 5] {
    [
        "--leader-elect",
        "--lease-namespace",
        &place.name,
        "--lease-duration",
        lease_duration,
    ]
}

/// How many servers are ready, if not as many as these.
fn all_ready(service: ModelService, replicas: i32) -> Result<(), i32> {
    let ready = service.status.unwrap().ready_replicas;
    if ready == replicas { Ok(()) } else { Err(ready) }
}

async fn only_one_of_two_works_and_the_other_takes_over_at_once(world: Arc<World>) {
    let place = world.namespace().await;
    // Longer than the test may take: only a lease that was given up is taken over in time.
    let flags = electing(&place, "120s");
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
        all_ready(place.serving("photos").await, 3)
    })
    .await;
}

/// A leader that was paused (a VM, a debugger) believes that it is still the leader when it resumes.
async fn a_frozen_leader_writes_nothing_when_it_goes_on(world: Arc<World>) {
    let place = world.namespace().await;
    let flags = electing(&place, "4s");
    let mut frozen = place.operator(&flags);
    place.apply(&service("photos")).await;
    place.serving("photos").await;
    frozen.quiet().await;
    frozen.signal(Signal::STOP);
    // A change that the frozen one has not seen yet, and would act upon.
    place.apply(&service("photos").replicas(2)).await;
    let second = place.operator(&flags);
    eventually("the second leads and works", async || {
        all_ready(place.service("photos").await, 2)
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
