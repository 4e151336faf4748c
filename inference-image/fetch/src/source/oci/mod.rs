//! Images and artifacts in OCI registries: images, files that ORAS pushed, and models in the form of CNCF ModelPack; what a
//! volume of the kind `image` mounts only if it is an image.
//!
//! The protocol is own code with the types of `oci-spec`. `oci-client` builds an HTTP client of its own, to which neither
//! the policy for addresses nor the rule for redirects could apply. TLS is left out only if `endpoint` says so
//! (`http://` and the registry's own host): a registry is not asked in plain text because it has no TLS.

mod challenge;
mod key;
mod layers;
mod manifest;
mod pull_secrets;
mod reference;
mod session;

use super::{
    access::Access,
    api::{Found, Object, Source},
    part::part,
};
use crate::{error::FetchError, http::Request};
use bytes::Bytes;
use futures::{
    FutureExt, StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use http::{HeaderValue, header};
use manifest::Document;
use modelservice_contract::{FetchReason, IdentityKind, SourceIdentity};
use oci_spec::image::ImageManifest;
use pull_secrets::LoginFiles;
use reference::OciUri;
use session::Session;
use std::{ops::Range, path::PathBuf};

/// A repository of a registry, at a tag or a digest.
#[derive(Debug)]
pub struct Oci {
    uri: OciUri,
    name: String,
    session: Session,
}

impl Oci {
    /// A source for an `oci://` URI. The endpoint says whether the registry is asked without TLS; `pull_secrets` is the
    /// folder with a folder for each image pull secret.
    ///
    /// # Errors
    /// `ConfigInvalid` for a wrong URI or endpoint.
    pub fn new(uri: &str, access: Access, pull_secrets: impl Into<PathBuf>) -> Result<Self, FetchError> {
        let parsed = OciUri::parse(uri, access.endpoint.as_ref())?;
        let files = LoginFiles {
            pull_secrets: pull_secrets.into(),
            credentials: access.credentials,
        };
        Ok(Self {
            session: Session::new(access.client, uri, &parsed, files),
            uri: parsed,
            name: uri.to_owned(),
        })
    }

    async fn find_version(&self, version: Option<&SourceIdentity>) -> Result<Found, FetchError> {
        let wanted = match version {
            None => self.uri.wanted(),
            Some(version) if version.kind == IdentityKind::OciDigest => version.value.as_str(),
            Some(version) => {
                return Err(FetchError::new(
                    FetchReason::ConfigInvalid,
                    format!(
                        "the version of an oci:// source is a digest, not {:?} {:?}",
                        version.kind, version.value
                    ),
                ));
            }
        };
        let (digest, manifest) = self.manifest(wanted, version.is_some()).await?;
        let (objects, form) = layers::objects(&self.name, &manifest)?;
        Ok(Found {
            identity: version.cloned().unwrap_or(SourceIdentity {
                kind: IdentityKind::OciDigest,
                value: digest,
                is_retained: true,
            }),
            objects,
            form,
        })
    }

    /// The manifest at a tag or a digest, and its digest. Of an index, the manifest of one platform: what is frozen is what
    /// every pod gets, whatever its node.
    async fn manifest(&self, wanted: &str, is_frozen: bool) -> Result<(String, ImageManifest), FetchError> {
        let (digest, document) = self.document(wanted, is_frozen).await?;
        let index = match document {
            Document::Manifest(manifest) => return Ok((digest, *manifest)),
            Document::Index(index) => index,
        };
        let chosen = manifest::choose(&self.name, &index)?.digest().to_string();
        match self.document(&chosen, is_frozen).await? {
            (digest, Document::Manifest(manifest)) => Ok((digest, *manifest)),
            (_, Document::Index(_)) => Err(FetchError::new(
                FetchReason::PackageInvalid,
                format!("{} is an index of indexes, which is not supported", self.name),
            )),
        }
    }

    /// What is at a tag or a digest, and its digest, which is checked.
    async fn document(&self, wanted: &str, is_frozen: bool) -> Result<(String, Document), FetchError> {
        let url = self.uri.url("manifests", wanted)?;
        // Media types are always a header.
        let accepted = HeaderValue::try_from(manifest::accepted())
            .map_err(|error| FetchError::new(FetchReason::SystemError, error.to_string()))?;
        let request = Request::get(url).header(header::ACCEPT, accepted);
        let response = self.session.send(request, is_frozen).await?;
        let content_type = response.header("content-type").map(str::to_owned);
        let stated = response.header("docker-content-digest").map(str::to_owned);
        let content = response.bytes(manifest::LARGEST_MANIFEST).await?;
        let digest = manifest::digest_of(&content);
        // Of a tag, only the registry knows the digest; it may state it in another algorithm.
        let expected = if wanted.starts_with("sha256:") {
            Some(wanted.to_owned())
        } else {
            stated.filter(|stated| stated.starts_with("sha256:"))
        };
        if let Some(expected) = expected.filter(|expected| *expected != digest) {
            return Err(FetchError::unavailable(format!(
                "{}: the registry has sent a manifest with the digest {digest} instead of {expected}",
                self.name
            )));
        }
        Ok((
            digest,
            manifest::parse(&self.name, &content, content_type.as_deref())?,
        ))
    }

    async fn open(
        &self,
        object: &Object,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, Result<Bytes, FetchError>>, FetchError> {
        if range.is_empty() {
            return Ok(stream::empty().boxed());
        }
        let url = self.uri.url("blobs", &object.key)?;
        let response = self.session.send(Request::get(url).range(&range), true).await?;
        part(response, object, &range)
    }
}

impl Source for Oci {
    fn find<'a>(&'a self, version: Option<&'a SourceIdentity>) -> BoxFuture<'a, Result<Found, FetchError>> {
        self.find_version(version).boxed()
    }

    fn read<'a>(
        &'a self,
        object: &'a Object,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Result<Bytes, FetchError>>, FetchError>> {
        self.open(object, range).boxed()
    }
}
