//! What an `oci://` URI names, and by which address its registry is asked. Pure: no client.

use crate::{error::FetchError, source::shown::without_user};
use modelservice_contract::FetchReason;
use oci_spec::distribution::Reference;
use url::Url;

/// Docker Hub: its name in references, and the host of its API.
const DOCKER_HUB: &str = "docker.io";
const DOCKER_HUB_API: &str = "registry-1.docker.io";

/// A repository of a registry, and what is wanted of it.
#[derive(Clone, Debug)]
pub(super) struct OciUri {
    /// Host, repository, tag and digest, as Kubernetes reads references to images.
    pub(super) reference: Reference,
    /// The registry's API, without a path.
    pub(super) registry: Url,
}

impl OciUri {
    /// Reads a URI. The endpoint can only say that the registry is asked without TLS, or at which port: another host
    /// would be a mirror, which the node configures for images and nobody for a fetch.
    ///
    /// # Errors
    /// `ConfigInvalid`, with what the URI or the endpoint should be.
    pub(super) fn parse(uri: &str, endpoint: Option<&Url>) -> Result<Self, FetchError> {
        let body = uri.strip_prefix("oci://");
        let body = body.ok_or_else(|| invalid(uri, "is not an oci:// URI"))?;
        let reference: Reference = body
            .parse()
            .map_err(|error| invalid(uri, format!("cannot be read ({error})")))?;
        let registry = match endpoint {
            None => address(&reference)?,
            Some(endpoint) => own_endpoint(uri, &reference, endpoint)?,
        };
        Ok(Self { reference, registry })
    }

    /// What is asked for: the digest if there is one, else the tag.
    pub(super) fn wanted(&self) -> &str {
        let tag = self.reference.tag().unwrap_or("latest");
        self.reference.digest().unwrap_or(tag)
    }

    /// URL below the repository.
    pub(super) fn url(&self, kind: &str, name: &str) -> Result<Url, FetchError> {
        let path = format!("/v2/{}/{kind}/{name}", self.reference.repository());
        self.registry.join(&path).map_err(|error| {
            invalid(
                &format!("{}{path}", self.registry),
                format!("is not a URL ({error})"),
            )
        })
    }
}

fn invalid(what: &str, why: impl std::fmt::Display) -> FetchError {
    FetchError::new(
        FetchReason::ConfigInvalid,
        format!(
            "{} {why}; write oci://REGISTRY/REPOSITORY:TAG or oci://REGISTRY/REPOSITORY@sha256:DIGEST",
            without_user(what)
        ),
    )
}

fn address(reference: &Reference) -> Result<Url, FetchError> {
    let host = match reference.registry() {
        DOCKER_HUB => DOCKER_HUB_API,
        host => host,
    };
    Url::parse(&format!("https://{host}")).map_err(|error| invalid(host, format!("is not a host ({error})")))
}

fn own_endpoint(uri: &str, reference: &Reference, endpoint: &Url) -> Result<Url, FetchError> {
    let own = Url::parse(&format!("{}://{}", endpoint.scheme(), reference.registry()));
    if endpoint.path() == "/" && own.is_ok_and(|own| own.origin() == endpoint.origin()) {
        return Ok(endpoint.clone());
    }
    Err(FetchError::new(
        FetchReason::ConfigInvalid,
        format!(
            "the endpoint {endpoint} is not the registry of {}: for oci:// it says only how that is asked, such as \
             http://{} for a registry without TLS",
            without_user(uri),
            reference.registry()
        ),
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;

    const DIGEST: &str = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    /// Without it, an image that the kubelet mounts is another one when it is fetched.
    #[test]
    fn references_are_read_as_kubernetes_reads_them() {
        for (uri, url) in [
            (
                "oci://ghcr.io/models/efficientnet:1".to_owned(),
                "https://ghcr.io/v2/models/efficientnet/manifests/1".to_owned(),
            ),
            (
                "oci://registry.models.svc:5000/efficientnet".to_owned(),
                "https://registry.models.svc:5000/v2/efficientnet/manifests/latest".to_owned(),
            ),
            (
                format!("oci://ghcr.io/models/efficientnet:1@{DIGEST}"),
                format!("https://ghcr.io/v2/models/efficientnet/manifests/{DIGEST}"),
            ),
            (
                "oci://models/efficientnet".to_owned(),
                "https://registry-1.docker.io/v2/models/efficientnet/manifests/latest".to_owned(),
            ),
            (
                "oci://efficientnet:2".to_owned(),
                "https://registry-1.docker.io/v2/library/efficientnet/manifests/2".to_owned(),
            ),
        ] {
            let parsed = OciUri::parse(&uri, None).unwrap();
            assert_eq!(
                parsed.url("manifests", parsed.wanted()).unwrap().as_str(),
                url,
                "{uri}"
            );
        }
    }

    /// Without it, a typo is reported by the registry, or as a host that does not resolve.
    #[test]
    fn a_reference_that_cannot_be_read_says_what_to_write() {
        for uri in [
            "oci://",
            "oci://ghcr.io/Models/x",
            "oci://ghcr.io/models/x:",
            "oci://ghcr.io/models/x@sha256:abc",
            "oci://ghcr.io/models/x@md5:9f86d081884c7d659a2feaa0c55ad015",
            "oci://ghcr.io/models/x?y",
            "oci://https://ghcr.io/models/x",
            "docker://ghcr.io/models/x",
        ] {
            let error = OciUri::parse(uri, None).unwrap_err();
            assert_eq!(error.reason, FetchReason::ConfigInvalid, "{uri}");
            assert!(
                error.message.contains("write oci://REGISTRY/"),
                "{}",
                error.message
            );
        }
    }

    /// Without it, plain HTTP would need a guess, or an endpoint could lead pull secrets to another host.
    #[test]
    fn an_endpoint_says_only_how_the_registry_is_asked() {
        let uri = "oci://registry.models.svc:5000/efficientnet";
        let parse = |endpoint: &str| OciUri::parse(uri, Some(&Url::parse(endpoint).unwrap()));
        let plain = parse("http://registry.models.svc:5000").unwrap();
        assert_eq!(plain.registry.as_str(), "http://registry.models.svc:5000/");
        for endpoint in [
            "http://mirror.models.svc:5000",
            "http://registry.models.svc",
            "http://registry.models.svc:5000/v2",
        ] {
            let error = parse(endpoint).unwrap_err();
            assert_eq!(error.reason, FetchReason::ConfigInvalid, "{endpoint}");
            let advice = "such as http://registry.models.svc:5000 for a registry without TLS";
            assert!(error.message.contains(advice), "{endpoint}: {}", error.message);
        }
    }
}
