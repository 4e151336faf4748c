//! Models in object stores, on a web server and on the Hub, on real kubelets: what the manifests in examples/sources say,
//! but for the servers' addresses.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use modelservice_operator::crd::{ModelService, ModelVerification};
use modelservice_test_stores::bucket::{Bucket, Kind};
use modelservice_test_stores::hub::{Access, HubServer, Kept};
use modelservice_test_stores::processes::{AZURE_ACCOUNT, AZURE_KEY, S3_KEY_ID, S3_SECRET};
use serde_json::{Value, json};

use crate::Test;
use crate::fixture::{EXAMPLE, Fixture, condition, example, is_ready, repository, run};
use crate::onnx;
use crate::team::Team;

pub(crate) const TESTS: &[Test] = &[
    (
        "stores::an_object_in_s3_is_served_with_the_right_key_and_stays_when_it_is_overwritten",
        |fixture| Box::pin(s3(fixture)),
    ),
    (
        "stores::an_object_that_the_bucket_does_not_keep_is_announced_and_never_mixed_with_another",
        |fixture| Box::pin(not_retained(fixture)),
    ),
    (
        "stores::an_archive_in_google_cloud_storage_is_served",
        |fixture| Box::pin(gcs(fixture)),
    ),
    ("stores::an_archive_in_azure_is_served", |fixture| {
        Box::pin(azure(fixture))
    }),
    (
        "stores::a_file_on_a_web_server_of_a_private_authority_is_served",
        |fixture| Box::pin(web(fixture)),
    ),
    (
        "stores::a_folder_on_the_hub_starts_from_the_cache_with_the_hub_down",
        |fixture| Box::pin(hub(fixture)),
    ),
    ("stores::only_what_the_signer_signed_is_served", |fixture| {
        Box::pin(signed(fixture))
    }),
];

/// `y = x + constant`.
fn adder(constant: f32) -> Vec<u8> {
    onnx::adder(constant, onnx::OPSET)
}

async fn secret(team: &Team<'_>, name: &str, values: &[(&str, &str)]) -> Result<()> {
    let values: std::collections::BTreeMap<_, _> = values.iter().copied().collect();
    let secret: Secret = serde_json::from_value(json!({"apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": name}, "stringData": values}))?;
    let parameters = PatchParams::apply("e2e").force();
    team.api::<Secret>()
        .patch(name, &parameters, &Patch::Apply(&secret))
        .await?;
    Ok(())
}

/// Gives a server a name in the cluster, `name.namespace:port`.
async fn name_server(team: &Team<'_>, name: &str, port: u16, server: SocketAddr) -> Result<()> {
    let service = json!({"metadata": {"name": name}, "spec": {"ports": [{"port": port}]}});
    team.api::<Service>()
        .create(&Default::default(), &serde_json::from_value(service)?)
        .await?;
    let endpoints = json!({"metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4", "ports": [{"port": server.port()}], "endpoints": [{"addresses": [server.ip()]}]});
    team.api::<EndpointSlice>()
        .create(&Default::default(), &serde_json::from_value(endpoints)?)
        .await?;
    Ok(())
}

fn socket(url: &url::Url) -> Result<SocketAddr> {
    let mut addresses = url.socket_addrs(|| None)?;
    addresses.pop().context("no address")
}

/// A bucket in S3, by the name of its server in examples/sources/s3.yaml.
async fn minio(team: &Team<'_>, bucket: &str) -> Result<Bucket> {
    let stores = team.fixture.stores()?;
    name_server(team, "minio", 9000, socket(&stores.s3)?).await?;
    Ok(Bucket::named(stores, Kind::S3, bucket.to_owned()).await)
}

async fn minio_secret(team: &Team<'_>, host: &str, key: &str) -> Result<()> {
    let values = [
        ("endpoints", format!("http://{host}:9000")),
        ("AWS_ACCESS_KEY_ID", S3_KEY_ID.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", key.to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
    ];
    let values = values.each_ref().map(|(name, value)| (*name, value.as_str()));
    secret(team, "minio", &values).await
}

/// The digests of what a service's servers serve.
async fn served(team: &Team<'_>) -> Result<Vec<String>> {
    let mut digests = Vec::new();
    for pod in team.pods(EXAMPLE).await? {
        let report = team.management(&pod, modelservice_contract::REPORT_PATH)?;
        let report: modelservice_contract::Report = serde_json::from_str(&report)?;
        digests.push(report.models.first().context("no model")?.digest.clone());
    }
    Ok(digests)
}

/// Serves it by two servers.
async fn scale_to_two(team: &Team<'_>, wanted: &mut ModelService) -> Result<Vec<String>> {
    wanted.spec.replicas = Some(2);
    team.apply(wanted).await?;
    let two = |service: &ModelService| {
        is_ready(service)
            && service
                .status
                .as_ref()
                .is_some_and(|status| status.ready_replicas == 2)
    };
    team.wait(EXAMPLE, "two servers are ready", two).await?;
    served(team).await
}

// A wrong key must lead to the Secret that has it, and must not be readable in the status. What serves must not depend on
// when a server starts.
async fn s3(fixture: &Fixture) -> Result<()> {
    let storage = fixture.team("storage", &[]).await?;
    let bucket = minio(&storage, "models").await?;
    bucket.keep_versions().await;
    bucket.put("efficientnet-lite0/model.onnx", &adder(1.0)).await;
    bucket.put("efficientnet-lite0-old/model.onnx", b"no model").await;
    let restricted = ("pod-security.kubernetes.io/enforce", "restricted");
    let team = fixture.team("team-s3", &[restricted]).await?;
    let wrong = "a-value-that-nobody-reads";
    minio_secret(&team, "minio.storage", wrong).await?;
    // No store keeps the list of a folder, so what the example names would be announced: see `unversioned`.
    let object = [("efficientnet-lite0/", "efficientnet-lite0/model.onnx")];
    let mut wanted = example("s3.yaml", &object)?;
    team.apply(&wanted).await?;
    let denied = |service: &ModelService| {
        condition(service, "Stalled").is_some_and(|(_, reason, message)| {
            let parts = ["answers 403: ", "AWS_SECRET_ACCESS_KEY", "Secret \"minio\""];
            reason == "ModelFetchFailed" && parts.iter().all(|part| message.contains(part))
        })
    };
    let told = team
        .wait(EXAMPLE, "what was denied, with which key", denied)
        .await?;
    ensure!(!serde_json::to_string(&told)?.contains(wrong), "{told:?}");

    minio_secret(&team, "minio.storage", S3_SECRET).await?;
    let ready = team.ready(EXAMPLE).await?;
    ensure!(condition(&ready, "SourceNotRetained").is_none(), "{ready:?}");
    let first = served(&team).await?;
    bucket.put("efficientnet-lite0/model.onnx", &adder(10.0)).await;
    let both = scale_to_two(&team, &mut wanted).await?;
    ensure!(
        both.iter().all(|digest| *digest == first[0]),
        "{first:?}, {both:?}"
    );
    team.delete(EXAMPLE).await
}

// Its owner must know before a node fails, and then get an error instead of two different models.
async fn not_retained(fixture: &Fixture) -> Result<()> {
    let team = fixture.team("team-s3-unversioned", &[]).await?;
    let bucket = minio(&team, "overwritten").await?;
    bucket.put("efficientnet-lite0/model.onnx", &adder(1.0)).await;
    let host = "minio.team-s3-unversioned";
    minio_secret(&team, host, S3_SECRET).await?;
    let words = [("minio.storage", host), ("s3://models/", "s3://overwritten/")];
    let mut wanted = example("s3.yaml", &words)?;
    let ready = team.serve(&wanted).await?;
    let told = condition(&ready, "SourceNotRetained").context("nobody is told")?;
    ensure!(told.0 == "True", "{told:?}");

    bucket.put("efficientnet-lite0/model.onnx", &adder(10.0)).await;
    let load = team.load_adder(EXAMPLE, 10.0).await?;
    wanted.spec.replicas = Some(2);
    team.apply(&wanted).await?;
    let changed = |service: &ModelService| {
        let conditions = service.status.iter().flat_map(|status| &status.conditions);
        conditions.into_iter().any(|one| one.reason == "SourceChanged")
    };
    team.wait(EXAMPLE, "the second server is refused the other model", changed)
        .await?;
    load.wait_answers(5)?;
    let report = load.finish("beside a server that does not start")?;
    ensure!(report.adds(1.0), "{report:?}");
    team.delete(EXAMPLE).await
}

/// An archive with a model, made by a program that adds the file `model.onnx` to the file `archive`.
fn archive(program: &str, arguments: &[&str]) -> Result<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("model.onnx"), adder(1.0))?;
    let mut command = Command::new(program);
    command.args(arguments).args(["archive", "model.onnx"]);
    run(command.current_dir(folder.path()))?;
    Ok(std::fs::read(folder.path().join("archive"))?)
}

async fn gcs(fixture: &Fixture) -> Result<()> {
    let team = fixture.team("team-gcs", &[]).await?;
    let bucket = Bucket::named(fixture.stores()?, Kind::Gcs, "models".into()).await;
    let model = archive("tar", &["--create", "--gzip", "--file"])?;
    bucket.put("efficientnet-lite0.tar.gz", &model).await;
    let mut wanted = example("gcs.yaml", &[])?;
    wanted.spec.model.endpoint = Some(bucket.server().origin().ascii_serialization());
    team.serve(&wanted).await?;
    team.delete(EXAMPLE).await
}

async fn azure(fixture: &Fixture) -> Result<()> {
    let team = fixture.team("team-azure", &[]).await?;
    let stores = fixture.stores()?;
    let bucket = Bucket::named(stores, Kind::Azure, "models".into()).await;
    let model = archive("python3", &["-m", "zipfile", "--create"])?;
    bucket.put("efficientnet-lite0.zip", &model).await;
    // The server looks for the account where Azure has it: first in the host's name.
    name_server(&team, AZURE_ACCOUNT, 10000, socket(&stores.azure)?).await?;
    let endpoint = format!("http://{AZURE_ACCOUNT}.team-azure:10000");
    let keys = [
        ("endpoints", endpoint.as_str()),
        ("AZURE_STORAGE_ACCOUNT", AZURE_ACCOUNT),
        ("AZURE_STORAGE_KEY", AZURE_KEY),
    ];
    secret(&team, "azure", &keys).await?;
    let words = [("https://account.blob.core.windows.net", endpoint.as_str())];
    team.serve(&example("azure.yaml", &words)?).await?;
    team.delete(EXAMPLE).await
}

async fn web(fixture: &Fixture) -> Result<()> {
    let team = fixture.team("team-https", &[]).await?;
    let stores = fixture.stores()?;
    let web = stores.web(&fixture.place()).map_err(anyhow::Error::msg)?;
    let bucket = Bucket::named(stores, Kind::S3, "public".into()).await;
    bucket.put("efficientnet-lite0.onnx", &adder(1.0)).await;
    bucket.make_public().await;
    let origin = web.url.origin().ascii_serialization();
    let keys = [("endpoints", origin.as_str()), ("ca.crt", web.authority.as_str())];
    secret(&team, "models", &keys).await?;
    let wanted = example(
        "https.yaml",
        &[("https://models.example", &format!("{origin}/public"))],
    )?;
    let ready = team.serve(&wanted).await?;
    let told = condition(&ready, "SourceNotRetained").context("nobody is told")?;
    ensure!(told.0 == "True", "{told:?}");
    team.delete(EXAMPLE).await
}

/// A claim named `models` that all servers share, in a folder of this machine that every node sees.
async fn shared_claim(team: &Team<'_>) -> Result<PersistentVolume> {
    let folder = team.fixture.cluster.folder().join("shared-cache");
    std::fs::create_dir_all(&folder)?;
    let volume = json!({"metadata": {"name": "shared-cache"}, "spec": {
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany"], "storageClassName": "shared-cache",
        "local": {"path": folder},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
            {"key": "kubernetes.io/hostname", "operator": "In", "values": ["node-1"]}]}]}}}});
    let claim = json!({"metadata": {"name": "models"}, "spec": {"accessModes": ["ReadWriteMany"],
        "storageClassName": "shared-cache", "volumeName": "shared-cache",
        "resources": {"requests": {"storage": "1Gi"}}}});
    let claims = team.api::<PersistentVolumeClaim>();
    claims
        .create(&Default::default(), &serde_json::from_value(claim)?)
        .await?;
    let volumes: Api<PersistentVolume> = Api::all(team.fixture.client.clone());
    Ok(volumes
        .create(&Default::default(), &serde_json::from_value(volume)?)
        .await?)
}

// Otherwise every new server depends on the Hub for as long as a model is served.
async fn hub(fixture: &Fixture) -> Result<()> {
    let team = fixture.team("team-hub", &[]).await?;
    let hub = HubServer::start_at(&fixture.place()).await;
    let repository = "onnx-community/efficientnet-lite0";
    let push = |model| {
        let files = [
            ("README.md", Kept::Git, b"# EfficientNet".to_vec()),
            ("onnx/model.onnx", Kept::Lfs, adder(model)),
            ("onnx/config.json", Kept::Git, b"{}".to_vec()),
        ];
        hub.push(repository, Access::Public, "main", &files)
    };
    push(1.0);
    let volume = shared_claim(&team).await?;
    let mut wanted = example("hub.yaml", &[])?;
    wanted.spec.model.endpoint = Some(hub.hub.url());
    team.serve(&wanted).await?;
    let first = served(&team).await?;
    push(10.0);
    drop(hub);
    let both = scale_to_two(&team, &mut wanted).await?;
    ensure!(
        both.iter().all(|digest| *digest == first[0]),
        "{first:?}, {both:?}"
    );
    team.delete(EXAMPLE).await?;
    let claims = team.api::<PersistentVolumeClaim>();
    claims.delete("models", &DeleteParams::default()).await?;
    let volumes: Api<PersistentVolume> = Api::all(fixture.client.clone());
    volumes
        .delete(&volume.name_any(), &DeleteParams::default())
        .await?;
    Ok(())
}

/// A model's signature and the public key of its signer, by the program that docs/model-signing.md names.
fn sign(model: &[u8]) -> Result<(Vec<u8>, String)> {
    let program = repository().join(".cache/venv-signing/bin/model_signing");
    let prepare = "inference-image/fetch/tests/signing/prepare";
    ensure!(
        program.exists(),
        "{} is missing; run {prepare}",
        program.display()
    );
    let folder = tempfile::tempdir()?;
    std::fs::create_dir(folder.path().join("photos"))?;
    std::fs::write(folder.path().join("photos/model.onnx"), model)?;
    let script = "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out signer.key
        openssl pkey -in signer.key -pubout -out signer.pub
        \"$0\" sign key photos --private_key signer.key --signature photos/model.sig";
    let mut command = Command::new("bash");
    command.args(["-euc", script]).arg(program);
    run(command.current_dir(folder.path()))?;
    let signature = std::fs::read(folder.path().join("photos/model.sig"))?;
    Ok((
        signature,
        std::fs::read_to_string(folder.path().join("signer.pub"))?,
    ))
}

// Whoever can write to a store must not decide what is served.
async fn signed(fixture: &Fixture) -> Result<()> {
    let team = fixture.team("team-signed", &[]).await?;
    let bucket = minio(&team, "signed").await?;
    let model = adder(1.0);
    let (signature, key) = sign(&model)?;
    bucket.put("efficientnet-lite0/model.onnx", &model).await;
    bucket.put("efficientnet-lite0/model.sig", &signature).await;
    let host = "minio.team-signed";
    minio_secret(&team, host, S3_SECRET).await?;
    let words = [("minio.storage", host), ("s3://models/", "s3://signed/")];
    let mut wanted = example("s3.yaml", &words)?;
    let keys = std::fs::read(repository().join("inference-image/fetch/tests/signing/signed.json"))?;
    let keys: Value = serde_json::from_slice(&keys)?;
    let other = keys["keys"]["other"].as_str().context("no key")?;
    wanted.spec.model.verification = Some(ModelVerification {
        public_key: other.to_owned(),
    });
    team.apply(&wanted).await?;
    let refused = |service: &ModelService| {
        condition(service, "Stalled").is_some_and(|(_, reason, message)| {
            reason == "SignatureInvalid" && message.contains("by another key")
        })
    };
    let told = team
        .wait(EXAMPLE, "the signature is by another key", refused)
        .await?;
    let verified = condition(&told, "ModelVerified").context("no ModelVerified")?;
    ensure!(verified.0 == "False", "{verified:?}");
    ensure!(
        condition(&told, "Available").is_some_and(|one| one.0 == "False"),
        "{told:?}"
    );

    wanted.spec.model.verification = Some(ModelVerification { public_key: key });
    team.serve(&wanted).await?;
    let verified = |service: &ModelService| {
        let model = service.status.as_ref().and_then(|status| status.model.as_ref());
        let signer = model.and_then(|model| model.verified.as_deref());
        signer.is_some_and(|signer| signer.contains("sha256:"))
            && condition(service, "ModelVerified").is_some_and(|one| one.0 == "True")
    };
    team.wait(EXAMPLE, "the served model's signer is named", verified)
        .await?;
    team.delete(EXAMPLE).await
}
