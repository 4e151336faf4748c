//! Self-test: creates a ModelService and sends it a request. `helm test` runs it in the cluster.

use crate::{
    cluster::inference_server,
    crd::{FIELD_MANAGER, Model, ModelService, ModelServiceSpec, TensorStatus},
    process::duration::duration,
};
use anyhow::{Context as _, bail};
use http_body_util::Full;
use hyper::{Request, body::Bytes};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams},
    runtime::wait::await_condition,
};
use serde_json::{Value, json};
use std::{
    io::Write as _,
    time::{Duration, Instant},
};
use tokio::net::TcpStream;

/// Longest answer that is read, in bytes.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Settings of the self-test.
#[derive(Clone, Debug, clap::Args)]
pub struct Settings {
    /// Image of a small model package, pinned by digest
    #[arg(long)]
    model_image: String,
    /// Namespace of the ModelService
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    self_test_namespace: String,
    /// Name of the ModelService
    #[arg(long, default_value = "modelservice-self-test")]
    name: String,
    /// How long the ModelService may take to become Ready
    #[arg(long, default_value = "3m", value_parser = duration)]
    timeout: Duration,
}

/// Applies a ModelService, waits until it is Ready, sends one request, and deletes the service in any case.
///
/// # Errors
/// When it is not Ready in time (the error quotes its status), or does not answer.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let client = Client::try_default()
        .await
        .context("no cluster: run in a pod, or set KUBECONFIG")?;
    let services: Api<ModelService> = Api::namespaced(client, &settings.self_test_namespace);
    if settings.model_image.is_empty() {
        bail!(
            "no model to test with: set the chart's value test.modelImage (here: --model-image) to the image of a small model package, pinned by digest"
        );
    }
    let outcome = attempt(&services, &settings).await;
    match services.delete(&settings.name, &DeleteParams::background()).await {
        // It was never created; the outcome says why.
        Err(kube::Error::Api(status)) if status.code == 404 => outcome,
        deleted => outcome.and(deleted.map(drop).context("deleting the ModelService")),
    }
}

async fn attempt(services: &Api<ModelService>, settings: &Settings) -> anyhow::Result<()> {
    let name = &settings.name;
    let spec: ModelServiceSpec = serde_json::from_value(json!({
        "model": Model { image: Some(settings.model_image.clone()), ..Model::default() },
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": "500m", "memory": "512Mi"}},
    }))?;
    let service = ModelService::new(name, spec);
    services
        .patch(
            name,
            &PatchParams::apply(&format!("{FIELD_MANAGER}-self-test")).force(),
            &Patch::Apply(&service),
        )
        .await
        .with_context(|| format!("applying ModelService {name:?}"))?;
    say(&format!("applied ModelService {name}"))?;
    let ready = await_condition(services.clone(), name, |service: Option<&ModelService>| {
        service.is_some_and(|service| service.is_ready() && model(service).is_some())
    });
    if tokio::time::timeout(settings.timeout, ready).await.is_err() {
        let status = services.get_opt(name).await?.and_then(|service| service.status);
        bail!(
            "not Ready after {:?}; its status: {}",
            settings.timeout,
            serde_json::to_string_pretty(&status)?
        );
    }
    let service = services.get(name).await?;
    say("it is Ready")?;
    let inputs: Vec<Value> = model(&service).into_iter().flatten().map(zeros).collect();
    let host = format!("{name}.{}.svc", settings.self_test_namespace);
    let stream = connect(&host, settings.timeout).await?;
    let answer = infer(stream, &host, name, &json!({"inputs": inputs})).await?;
    say(&format!(
        "it answered: {}",
        answer.chars().take(300).collect::<String>()
    ))
}

fn model(service: &ModelService) -> Option<&Vec<TensorStatus>> {
    Some(&service.status.as_ref()?.model.as_ref()?.signature.inputs)
}

fn zeros(input: &TensorStatus) -> Value {
    let shape: Vec<i64> = input.shape.iter().map(|size| (*size).max(1)).collect();
    let count = usize::try_from(shape.iter().product::<i64>()).unwrap_or(0);
    json!({"name": input.name, "datatype": input.datatype, "shape": shape, "data": vec![0; count]})
}

/// Connects to a Service; this node learns of its server a moment after that becomes ready.
async fn connect(host: &str, patience: Duration) -> anyhow::Result<TcpStream> {
    const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(200);
    let deadline = Instant::now() + patience;
    loop {
        match TcpStream::connect((host, 80)).await {
            Ok(stream) => return Ok(stream),
            Err(error) if Instant::now() >= deadline => {
                return Err(error).with_context(|| format!("connecting to {host} for {patience:?}"));
            }
            Err(_) => tokio::time::sleep(BETWEEN_ATTEMPTS).await,
        }
    }
}

async fn infer(stream: TcpStream, host: &str, model: &str, body: &Value) -> anyhow::Result<String> {
    let request = Request::post(format!("/v2/models/{model}/infer"))
        .header("host", host)
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body.to_string())))?;
    let (answer, _) = inference_server::send(stream, request, MAX_ANSWER_BYTES).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn say(line: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}
