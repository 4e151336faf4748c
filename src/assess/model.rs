//! Model: what is served, where it comes from, and whether it can be had again. Pure.

use super::verdict::Verdict;
use crate::{
    apply::Applied,
    crd::{ModelServiceStatus, ModelStatus, Signature, TensorStatus},
    observe::Observed,
    reason::Reason,
    revision::{FrozenSource, Source, hash_of_key},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use modelservice_contract::{IdentityKind, ModelReport, SourceIdentity, TensorSpec, Verification};

/// The model of a revision: what a server reported about it, and where it comes from.
pub(super) fn model(
    observed: &Observed,
    applied: &Applied,
    previous: &ModelServiceStatus,
    revision: &str,
) -> Option<ModelStatus> {
    let reported = reported(observed, previous, revision)?;
    let frozen = applied
        .deployment(revision)
        .and_then(|live| FrozenSource::of(live));
    let Some(frozen) = frozen else {
        return Some(reported);
    };
    Some(ModelStatus {
        source: Some(frozen.source.uri()),
        delivery: Some(frozen.source.delivery().to_owned()),
        identity: identity(&frozen.source),
        // A server starts only after its model has been verified.
        verified: frozen.verification.as_ref().map(signer),
        ..reported
    })
}

/// Which version it is; a mounted image's is in its name.
fn identity(source: &Source) -> Option<String> {
    match source {
        Source::ImageVolume(_) | Source::Claim(_) => None,
        Source::Fetched { identity, .. } => Some(said(identity)),
    }
}

fn said(SourceIdentity { kind, value, .. }: &SourceIdentity) -> String {
    let kind = match kind {
        // A digest says itself what it is.
        IdentityKind::OciDigest | IdentityKind::Digest => return value.clone(),
        IdentityKind::Commit => "commit",
        IdentityKind::Version => "version",
        IdentityKind::Generation => "generation",
        IdentityKind::ETag => "ETag",
        IdentityKind::Folder => "folder",
    };
    format!("{kind} {value}")
}

fn signer(Verification { public_key }: &Verification) -> String {
    format!("public key {}", fingerprint(public_key))
}

/// `sha256:` and the digest of the key's DER, as `openssl pkey -pubin -outform DER | sha256sum` has it.
fn fingerprint(pem: &str) -> String {
    hash_of_key(pem).map_or_else(|| "unreadable".to_owned(), |hex| format!("sha256:{hex}"))
}

/// Why a server that starts later may not get its model: of the revision that serves, or else of the next one.
pub(super) fn not_retained(observed: &Observed, applied: &Applied) -> Option<String> {
    let target = applied
        .decision()
        .map(|decision| decision.rollout.target.as_str());
    let revisions = applied.traffic().into_iter().chain(target);
    revisions.into_iter().find_map(|revision| {
        let frozen = FrozenSource::of(applied.deployment(revision)?)?;
        if frozen.is_retained || observed.service.spec.suspend {
            return None;
        }
        let uri = frozen.source.uri();
        Some(match &frozen.source {
            Source::Claim(_) => format!(
                "nothing pins what is in {uri}, which revision {revision} serves: if its files change, servers that start \
                 later serve something else. Set spec.model.digest"
            ),
            source => format!(
                "{uri} does not keep the version that revision {revision} serves ({}): once it is overwritten, no further \
                 server can start. {}, or share a cache that keeps everything (spec.fetch.cache without maximumSize)",
                identity(source).unwrap_or_default(),
                remedy(source)
            ),
        })
    })
}

/// What keeps a version, besides a cache. The version of a folder is of its list, which no store keeps, and web servers
/// have no versions.
fn remedy(source: &Source) -> &'static str {
    match source {
        Source::Fetched { identity, .. } if identity.kind == IdentityKind::Folder => {
            "Pack the folder into one archive in a bucket with versioning and name that, never write to these names again"
        }
        Source::Fetched { uri, .. } if uri.starts_with("https://") => "Never write to this name again",
        _ => "Turn on the store's versioning and set spec.model.refresh, never write to this name again",
    }
}

/// Whether the model of the revision that has the traffic has the signature that is asked for; `None` if none is. What was
/// verified stays so while no server runs, and whatever becomes of the next revision.
pub(super) fn verified(
    observed: &Observed,
    applied: &Applied,
    previous: &ModelServiceStatus,
    verdict: &Verdict,
) -> Option<(bool, Reason, String)> {
    let traffic = applied.traffic();
    let serving = traffic.and_then(|revision| applied.deployment(revision));
    let key = serving.and_then(|live| FrozenSource::of(live)?.verification);
    if key.is_none() && observed.service.spec.model.verification.is_none() {
        return None;
    }
    let refused = match verdict {
        Verdict::Failed { reason, message, .. } if *reason == Reason::SignatureInvalid => Some(message),
        _ => None,
    };
    let serves = serving.is_some_and(|live| {
        let status = live.status.as_ref();
        status.and_then(|status| status.available_replicas).unwrap_or(0) > 0
    });
    let target = applied
        .decision()
        .map(|decision| decision.rollout.target.as_str());
    let stays = was_verified(previous, traffic) && (refused.is_none() || target != traffic);
    Some(match (key, refused) {
        (Some(key), _) if serves || stays => (
            true,
            Reason::SignatureValid,
            format!(
                "the model of revision {} is signed by {}",
                traffic.unwrap_or_default(),
                signer(&key)
            ),
        ),
        (_, Some(message)) => (false, Reason::SignatureInvalid, message.clone()),
        (_, None) => (
            false,
            Reason::Progressing,
            "no server has verified its model yet".to_owned(),
        ),
    })
}

/// Whether a server of the revision that has the traffic has verified its model before.
fn was_verified(previous: &ModelServiceStatus, traffic: Option<&str>) -> bool {
    let is_true = |condition: &Condition| condition.type_ == "ModelVerified" && condition.status == "True";
    previous.current_revision.as_deref() == traffic && previous.conditions.iter().any(is_true)
}

/// What a server of the revision reported, now or earlier.
fn reported(observed: &Observed, previous: &ModelServiceStatus, revision: &str) -> Option<ModelStatus> {
    let Some(report) = observed
        .reported
        .models
        .get(revision)
        .and_then(|report| report.models.first())
    else {
        return previous.model.clone().filter(|model| model.revision == revision);
    };
    let ModelReport {
        name: _,
        digest,
        opset,
        inputs,
        outputs,
        // The server's own endpoints show these.
        digest_covers: _,
        digest_checked: _,
        producer: _,
        description: _,
        metadata: _,
        graph: _,
        load_seconds: _,
        assignment: _,
        batching: _,
    } = report.clone();
    let tensors = |specs: Vec<TensorSpec>| {
        specs
            .into_iter()
            .map(
                |TensorSpec {
                     name,
                     datatype,
                     shape,
                 }| TensorStatus {
                    name,
                    datatype,
                    shape,
                },
            )
            .collect()
    };
    let signature = Signature {
        opset,
        inputs: tensors(inputs),
        outputs: tensors(outputs),
    };
    Some(ModelStatus {
        revision: revision.to_owned(),
        digest,
        signature,
        ..ModelStatus::default()
    })
}
