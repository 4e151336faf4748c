//! Files on web servers.

use super::{
    answer::{check_is_file, content_range, strong_tag},
    name::name,
};
use crate::{
    credentials::{Credentials, Secret},
    error::FetchError,
    http::{Asked, Audience, Request, Response, Used, bare, exactly, failure},
    source::{
        access::Access,
        api::{Form, Found, Object, Source},
    },
};
use bytes::Bytes;
use futures::{StreamExt, future::BoxFuture, stream::BoxStream};
use http::{HeaderValue, StatusCode, header};
use modelservice_contract::{FetchReason, IdentityKind, SourceIdentity};
use std::{
    ops::Range,
    sync::atomic::{AtomicBool, Ordering},
};
use url::Url;

/// What a URL's path may end with: a model, or an archive of a package.
const ENDINGS: [&str; 6] = [".onnx", ".tar", ".tar.gz", ".tgz", ".tar.zst", ".zip"];

/// A file on a web server.
pub struct HttpsSource {
    url: Url,
    name: String,
    access: Access,
    digest: Option<String>,
    has_ranges: AtomicBool,
}

/// What a server says of the file, before its bytes.
struct Facts {
    size: Option<u64>,
    tag: Option<String>,
    has_ranges: bool,
    has_end: bool,
}

impl HttpsSource {
    /// The file at a URL. `digest` is the one that is configured for the model, if there is one.
    ///
    /// # Errors
    /// `ConfigInvalid` for a URL that is no `https://`, or that ends with nothing that is known.
    pub fn new(uri: &str, access: Access, digest: Option<String>) -> Result<Self, FetchError> {
        let invalid = |what: &str| {
            let message = format!(
                "the URI {what}; write https://HOST/PATH, whose path ends with one of {}",
                ENDINGS.join(", ")
            );
            FetchError::new(FetchReason::ConfigInvalid, message)
        };
        let mut url = Url::parse(uri).map_err(|error| invalid(&format!("is no URL ({error})")))?;
        if url.scheme() != "https" {
            return Err(invalid("is not https://"));
        }
        url.set_fragment(None);
        let name = name(&url).ok_or_else(|| invalid("names no file"))?;
        let lower = name.to_ascii_lowercase();
        if !ENDINGS.iter().any(|ending| lower.ends_with(ending)) {
            return Err(invalid(&format!("ends with {name:?}")));
        }
        Ok(Self {
            url,
            name,
            access,
            digest,
            has_ranges: AtomicBool::new(false),
        })
    }

    fn asked(&self, is_frozen: bool, used: Used) -> Asked {
        Asked {
            what: bare(&self.url),
            used,
            is_frozen,
        }
    }

    /// Sends a request with the Secret's headers as they are now.
    async fn get(&self, range: &Range<u64>, tag: Option<&str>) -> Result<Response, FetchError> {
        let mut request = Request::get(self.url.clone()).range(range);
        if let Some(tag) = tag {
            let value = HeaderValue::try_from(tag)
                .map_err(|_| FetchError::new(FetchReason::ConfigInvalid, format!("{tag:?} is no ETag")))?;
            // The first makes a server refuse another version; the second makes one that ignores the first send all of
            // it, which is noticed.
            request = request
                .header(header::IF_MATCH, value.clone())
                .header(header::IF_RANGE, value);
        }
        let secret = self
            .access
            .credentials
            .as_ref()
            .map(Credentials::read)
            .transpose()?;
        let headers = secret
            .as_ref()
            .map(Secret::headers)
            .transpose()?
            .unwrap_or_default();
        let used = if headers.is_empty() {
            Used::Nothing
        } else {
            Used::Secret("headers".to_owned())
        };
        let audience = match &secret {
            Some(secret) if !headers.is_empty() => secret.audience(),
            // What signs the URL is for the server that it names.
            _ => Audience::origin_of(&self.url),
        };
        let request = headers
            .into_iter()
            .fold(request.audience(audience), |request, (name, value)| {
                request.secret_header(name, value)
            });
        let response = self.access.client.send(request).await?;
        if response.status.is_success() {
            check_is_file(&bare(&self.url), &response)?;
            Ok(response)
        } else if response.status == StatusCode::RANGE_NOT_SATISFIABLE && range.start == 0 {
            Err(FetchError::new(
                FetchReason::PackageInvalid,
                format!("{}: the file is empty", bare(&self.url)),
            ))
        } else {
            Err(failure(response, &self.asked(tag.is_some(), used)).await)
        }
    }

    async fn facts(&self, tag: Option<&str>) -> Result<Facts, FetchError> {
        // Not `HEAD`: many servers, and every signed URL, answer only what they were made for. The rest of the body is
        // not waited for.
        let response = self.get(&(0..1), tag).await?;
        let total = content_range(&response).map(|(_, total)| total);
        let is_part = response.status == StatusCode::PARTIAL_CONTENT;
        let has_ranges = is_part && total.is_some();
        // The length of a part is not the file's.
        let size = if is_part { total } else { response.content_length() };
        Ok(Facts {
            size,
            tag: strong_tag(&response),
            has_ranges,
            has_end: size.is_some() || (!is_part && response.headers.contains_key(header::TRANSFER_ENCODING)),
        })
    }

    async fn find_version(&self, version: Option<&SourceIdentity>) -> Result<Found, FetchError> {
        let tag = match version {
            Some(version) if version.kind == IdentityKind::ETag => Some(version.value.as_str()),
            _ => None,
        };
        let facts = self.facts(tag).await?;
        if tag.is_some() && facts.tag.as_deref() != tag {
            return Err(self.changed());
        }
        let identity = match version {
            Some(version) if version.kind == IdentityKind::ETag => version.clone(),
            Some(version)
                if version.kind == IdentityKind::Digest && Some(&version.value) == self.digest.as_ref() =>
            {
                version.clone()
            }
            Some(version) => {
                let message = format!(
                    "{}: a {:?} is not what this revision has",
                    bare(&self.url),
                    version.kind
                );
                return Err(FetchError::new(FetchReason::ConfigInvalid, message));
            }
            None => self.identity(&facts)?,
        };
        if !facts.has_end && self.digest.is_none() {
            let message = format!(
                "{}: the server does not say how long the file is, so that a part of it would look like all of it; set \
                 spec.model.digest",
                bare(&self.url)
            );
            return Err(FetchError::new(FetchReason::ConfigInvalid, message));
        }
        self.has_ranges.store(facts.has_ranges, Ordering::Relaxed);
        let object = Object {
            name: self.name.clone(),
            // Without what may sign it.
            key: bare(&self.url),
            size: facts.size,
            version: facts.tag.filter(|_| identity.kind == IdentityKind::ETag),
            sha256: None,
        };
        Ok(Found {
            identity,
            objects: vec![object],
            form: Form::Files,
        })
    }

    fn identity(&self, facts: &Facts) -> Result<SourceIdentity, FetchError> {
        let (kind, value) = match (&facts.tag, &self.digest) {
            (Some(tag), _) => (IdentityKind::ETag, tag),
            (None, Some(digest)) => (IdentityKind::Digest, digest),
            (None, None) => {
                let message = format!(
                    "{}: the server gives the file no strong ETag, so that nothing says which version this is; set \
                     spec.model.digest to the SHA-256 of the model or of the package (`modelservice-server digest FOLDER` \
                     prints it)",
                    bare(&self.url)
                );
                return Err(FetchError::new(FetchReason::ConfigInvalid, message));
            }
        };
        Ok(SourceIdentity {
            kind,
            value: value.clone(),
            is_retained: false,
        })
    }

    async fn read_range(
        &self,
        object: &Object,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, Result<Bytes, FetchError>>, FetchError> {
        let has_ranges = self.has_ranges.load(Ordering::Relaxed);
        let is_whole = range.start == 0 && object.size.is_none_or(|size| size == range.end);
        if !has_ranges && !is_whole {
            let message = format!("{}: the server sends no parts of a file", bare(&self.url));
            return Err(FetchError::new(FetchReason::SystemError, message));
        }
        let asked = if has_ranges { range.clone() } else { 0..0 };
        let tag = object.version.as_deref();
        let response = self.get(&asked, tag).await?;
        if tag.is_some() && strong_tag(&response).as_deref() != tag {
            return Err(self.changed());
        }
        self.check_part(&response, object, &range, is_whole)?;
        // Without a length, the body's own end is the file's.
        match object.size {
            Some(_) => Ok(exactly(
                response.stream(),
                range.end - range.start,
                bare(&self.url),
            )),
            None => Ok(response.stream()),
        }
    }

    /// Whether an answer is the part that was asked for, of the file that was found.
    fn check_part(
        &self,
        response: &Response,
        object: &Object,
        range: &Range<u64>,
        is_whole: bool,
    ) -> Result<(), FetchError> {
        let wrong = |what: &str| {
            Err(FetchError::unavailable(format!(
                "{}: the server {what}",
                bare(&self.url)
            )))
        };
        let is_other_size = |size| object.size.is_some_and(|known| known != size);
        if response.status == StatusCode::PARTIAL_CONTENT {
            return match content_range(response) {
                // Without an ETag, the length is all that tells it from another file.
                Some((_, total)) if is_other_size(total) && object.version.is_none() => Err(self.changed()),
                Some((answered, total)) if answered == *range && !is_other_size(total) => Ok(()),
                _ => wrong("sends another part of the file than it was asked for"),
            };
        }
        if !is_whole {
            return wrong("sent parts of the file before, and now all of it");
        }
        match response.content_length() {
            Some(length) if is_other_size(length) => {
                wrong(&format!("now says that the file has {length} bytes"))
            }
            _ => Ok(()),
        }
    }

    fn changed(&self) -> FetchError {
        let message = format!(
            "{}: the file is no longer what it was when this revision was made; set a new spec.model.refresh to use what is \
             there now",
            bare(&self.url)
        );
        FetchError::new(FetchReason::SourceChanged, message)
    }
}

impl Source for HttpsSource {
    fn find<'a>(&'a self, version: Option<&'a SourceIdentity>) -> BoxFuture<'a, Result<Found, FetchError>> {
        Box::pin(self.find_version(version))
    }

    fn read<'a>(
        &'a self,
        object: &'a Object,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Result<Bytes, FetchError>>, FetchError>> {
        Box::pin(async move {
            if range.is_empty() {
                return Ok(futures::stream::empty().boxed());
            }
            self.read_range(object, range).await
        })
    }

    /// Known once the file has been found.
    fn has_ranges(&self) -> bool {
        self.has_ranges.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;
    use crate::http::{Client, Policy, Timeouts};

    fn source(uri: &str) -> Result<HttpsSource, FetchError> {
        let access = Access {
            client: Client::new(Policy::default(), None, Timeouts::default()).unwrap(),
            providers: None,
            credentials: None,
            endpoint: None,
        };
        HttpsSource::new(uri, access, None)
    }

    #[test]
    fn a_url_names_a_file() {
        for (uri, name) in [
            ("https://a.example/models/resnet.onnx", "resnet.onnx"),
            ("https://a.example/RESNET.ONNX?version=1#top", "RESNET.ONNX"),
            ("https://a.example/a%20b+c.tar.gz", "a b+c.tar.gz"),
            ("https://a.example/a%26b=c.zip", "a&b=c.zip"),
            ("https://a.example/x.tar.zst", "x.tar.zst"),
            ("https://a.example/x.tgz", "x.tgz"),
        ] {
            assert_eq!(source(uri).unwrap().name, name, "{uri}");
        }
    }

    #[test]
    fn a_url_of_nothing_that_is_known_is_refused() {
        for (uri, part) in [
            ("a.onnx", "is no URL"),
            ("http://a.example/a.onnx", "is not https://"),
            ("https://a.example/", "names no file"),
            ("https://a.example/models/", "names no file"),
            ("https://a.example/%2e%2e%2fa.onnx", "names no file"),
            ("https://a.example/a.pt", "ends with \"a.pt\""),
            ("https://a.example/get?path=a.onnx", "ends with \"get\""),
            ("https://a.example/a.tar.xz", "ends with \"a.tar.xz\""),
        ] {
            let error = source(uri).map(|source| source.name).unwrap_err();
            assert_eq!(error.reason, FetchReason::ConfigInvalid);
            assert!(error.message.contains(part), "{uri}: {}", error.message);
            assert!(error.message.contains(".tar.zst"), "{}", error.message);
        }
    }
}
