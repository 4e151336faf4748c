//! The namespace of a test: creates services, waits for what happens to them, and describes everything when a test
//! fails.

use std::fmt::Debug;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use hyper::body::Bytes;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::runtime::wait::{Condition, await_condition};
use modelservice_contract::MANAGEMENT_PORT;
use modelservice_operator::crd::{ModelService, SERVICE_LABEL};

use crate::fixture::{Fixture, PATIENCE, is_ready};
use crate::kept_alive::KeptAlive;
use crate::load::{Load, Target};

/// A request to one of the adding models.
const ADDENDS: &str =
    r#"{"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}"#;

/// A namespace of one test.
pub(crate) struct Team<'a> {
    pub fixture: &'a Fixture,
    pub namespace: String,
}

impl Team<'_> {
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.fixture.client.clone(), &self.namespace)
    }

    /// Creates or changes a service.
    pub(crate) async fn apply(&self, service: &ModelService) -> Result<()> {
        let parameters = PatchParams::apply("e2e").force();
        let name = service.name_any();
        self.api::<ModelService>()
            .patch(&name, &parameters, &Patch::Apply(service))
            .await?;
        Ok(())
    }

    /// Waits until a service is as wanted; the error shows it, its pods and events, and the operator's log.
    pub(crate) async fn wait(
        &self,
        name: &str,
        what: &str,
        is_so: impl Fn(&ModelService) -> bool,
    ) -> Result<ModelService> {
        let wanted = |service: Option<&ModelService>| service.is_some_and(&is_so);
        let found = self.until::<ModelService>(name, what, wanted).await?;
        found.context("the service is gone")
    }

    /// Waits until an object of this namespace is as wanted.
    pub(crate) async fn until<K>(&self, name: &str, what: &str, is_so: impl Condition<K>) -> Result<Option<K>>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + Debug
            + Send
            + serde::de::DeserializeOwned
            + 'static,
        K::DynamicType: Default,
    {
        let waiting = await_condition(self.api::<K>(), name, is_so);
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(found) => Ok(found?),
            Err(_) => bail!(
                "{}/{name}: not so after {} s: {what}\n{}",
                self.namespace,
                PATIENCE.as_secs(),
                self.describe()
            ),
        }
    }

    /// Waits until the present spec is served.
    pub(crate) async fn ready(&self, name: &str) -> Result<ModelService> {
        self.wait(name, "Ready", is_ready).await
    }

    /// Applies a service and waits until it is served.
    pub(crate) async fn serve(&self, service: &ModelService) -> Result<ModelService> {
        self.apply(service).await?;
        self.ready(&service.name_any()).await
    }

    /// The address of a Service, as a node's network knows it.
    pub(crate) async fn address(&self, name: &str) -> Result<SocketAddr> {
        let service = self.api::<Service>().get(name).await?;
        let address = service
            .spec
            .and_then(|spec| spec.cluster_ip)
            .context("the Service has no address")?;
        Ok(SocketAddr::from((address.parse::<Ipv4Addr>()?, 80)))
    }

    /// Sends four numbers to one of the adding models, `rate` times a second.
    pub(crate) async fn load_adder(&self, name: &str, rate: f64) -> Result<Load> {
        let target = self
            .target(name, "/infer", "application/json", ADDENDS.into(), rate)
            .await?;
        Load::start(&self.fixture.cluster.netns(), target)
    }

    /// Sends a photograph, `rate` times a second.
    pub(crate) async fn load_photo(&self, name: &str, photo: &Path, rate: f64) -> Result<Load> {
        let photo = std::fs::read(photo)?;
        let target = self
            .target(name, ":classify", "image/jpeg", photo.into(), rate)
            .await?;
        Load::start(&self.fixture.cluster.netns(), target)
    }

    /// Sends four numbers over each of `count` kept-alive connections, one request after the other.
    pub(crate) async fn keep_alive(&self, name: &str, count: usize) -> Result<KeptAlive> {
        let target = self
            .target(name, "/infer", "application/json", ADDENDS.into(), 0.0)
            .await?;
        KeptAlive::start(&self.fixture.cluster.netns(), target, count)
    }

    async fn target(
        &self,
        name: &str,
        verb: &str,
        content_type: &'static str,
        body: Bytes,
        rate: f64,
    ) -> Result<Target> {
        Ok(Target {
            address: self.address(name).await?,
            path: format!("/v2/models/{name}{verb}"),
            content_type,
            body,
            rate,
        })
    }

    /// Everything here that belongs to a service, as `kind/name`.
    pub(crate) async fn children(&self, name: &str) -> Result<Vec<String>> {
        let kinds = "deployments,replicasets,pods,services,endpointslices,horizontalpodautoscalers,\
                     poddisruptionbudgets,resourceclaimtemplates,resourceclaims";
        let selector = format!("{SERVICE_LABEL}={name}");
        let arguments = ["-n", &self.namespace, "get", kinds, "-l", &selector, "-o", "name"];
        Ok(self
            .fixture
            .cluster
            .kubectl(&arguments)?
            .lines()
            .map(str::to_owned)
            .collect())
    }

    /// Deletes a service and leaves the rest to the cluster, which is removed soon.
    pub(crate) async fn leave(&self, name: &str) -> Result<()> {
        self.api::<ModelService>()
            .delete(name, &DeleteParams::default())
            .await?;
        Ok(())
    }

    /// Deletes a service and waits until nothing of it is left.
    pub(crate) async fn delete(&self, name: &str) -> Result<()> {
        self.api::<ModelService>()
            .delete(name, &DeleteParams::default())
            .await?;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let children = self.children(name).await?;
            if children.is_empty() {
                return Ok(());
            }
            ensure!(
                tokio::time::Instant::now() < deadline,
                "left of {name}: {children:?}\n{}",
                self.describe()
            );
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Pods of a service that are not terminating.
    pub(crate) async fn pods(&self, name: &str) -> Result<Vec<Pod>> {
        let selector = ListParams::default().labels(&format!("{SERVICE_LABEL}={name}"));
        let pods = self.api::<Pod>().list(&selector).await?;
        Ok(pods
            .items
            .into_iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
            .collect())
    }

    /// What a pod's management port answers.
    pub(crate) fn management(&self, pod: &Pod, path: &str) -> Result<String> {
        let address = pod.status.as_ref().and_then(|status| status.pod_ip.as_ref());
        let url = format!(
            "http://{}:{MANAGEMENT_PORT}{path}",
            address.context("the pod has no address")?
        );
        let mut curl = self.fixture.cluster.command_in_node("curl")?;
        let output = curl
            .args(["--silent", "--show-error", "--fail", "--max-time", "10", &url])
            .output()?;
        ensure!(
            output.status.success(),
            "{url}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Everything that could explain why a test failed.
    pub(crate) fn describe(&self) -> String {
        let show = |arguments: &[&str]| {
            let all = [&["-n", self.namespace.as_str()], arguments].concat();
            self.fixture
                .cluster
                .kubectl(&all)
                .unwrap_or_else(|error| format!("{error:#}"))
        };
        [
            show(&["get", "modelservices,deployments,pods,hpa", "-o", "wide"]),
            show(&[
                "get",
                "modelservices",
                "-o",
                "jsonpath={range .items[*]}{.metadata.name}: {.status}{\"\\n\"}{end}",
            ]),
            show(&["get", "events", "--sort-by=.lastTimestamp"]),
            self.fixture.operator_log(),
        ]
        .join("\n")
    }
}
