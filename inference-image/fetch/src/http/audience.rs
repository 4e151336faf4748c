//! To which servers credentials may be sent. Pure.

use crate::error::FetchError;
use http::{HeaderMap, HeaderName, HeaderValue};
use modelservice_contract::FetchReason;
use percent_encoding::percent_decode_str;
use std::sync::Arc;
use url::{Origin, Url};

/// Parameters of a query that sign it, or that are credentials themselves (S3, Google Cloud Storage, Azure, CloudFront).
const SECRET_PARAMETERS: [&str; 13] = [
    "x-amz-credential",
    "x-amz-security-token",
    "x-amz-signature",
    "x-goog-credential",
    "x-goog-signature",
    "awsaccesskeyid",
    "googleaccessid",
    "signature",
    "sig",
    "policy",
    "key-pair-id",
    "token",
    "webidentitytoken",
];

/// Headers that are credentials, whoever sets them.
const SECRET_HEADERS: [&str; 4] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "x-amz-security-token",
];

/// To which servers the credentials of a request may be sent: none, unless it says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audience(Arc<[Listed]>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Listed {
    Origin(Origin),
    /// Hosts whose name ends so, by TLS on its usual port.
    Below(&'static str),
}

impl Audience {
    /// Servers from a list of URLs and hosts, one a line; `#` begins a comment. A host stands for `https://`.
    ///
    /// # Errors
    /// `ConfigInvalid` for a line that is neither, or an empty list.
    pub fn parse(list: &str) -> Result<Self, FetchError> {
        let lines = list.lines().map(str::trim);
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let listed: Vec<Listed> = lines.map(parse_line).collect::<Result<_, _>>()?;
        if listed.is_empty() {
            return Err(invalid("the file `endpoints` lists nothing"));
        }
        Ok(Self(listed.into()))
    }

    /// Servers of a vendor: hosts whose name ends so (`.amazonaws.com`).
    #[must_use]
    pub fn below(suffixes: &[&'static str]) -> Self {
        Self(suffixes.iter().copied().map(Listed::Below).collect())
    }

    /// One server.
    #[must_use]
    pub fn origin_of(url: &Url) -> Self {
        Self([Listed::Origin(url.origin())].into())
    }

    /// Whether credentials may be sent to a URL's server.
    #[must_use]
    pub fn allows(&self, url: &Url) -> bool {
        let origin = url.origin();
        self.0.iter().any(|listed| match listed {
            Listed::Origin(listed) => *listed == origin,
            Listed::Below(suffix) => {
                url.scheme() == "https"
                    && url.port().is_none()
                    && url.host_str().is_some_and(|host| host.ends_with(suffix))
            }
        })
    }
}

fn parse_line(line: &str) -> Result<Listed, FetchError> {
    let text = if line.contains("://") {
        line.to_owned()
    } else {
        format!("https://{line}")
    };
    let url =
        Url::parse(&text).map_err(|error| invalid(format!("{line:?} in the file `endpoints`: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(invalid(format!(
            "{line:?} in the file `endpoints` is neither https:// nor http://"
        )));
    }
    if url.host_str().is_some_and(|host| host.contains('*')) {
        return Err(invalid(format!(
            "{line:?} in the file `endpoints`: patterns are not supported"
        )));
    }
    Ok(Listed::Origin(url.origin()))
}

fn invalid(what: impl std::fmt::Display) -> FetchError {
    FetchError::new(
        FetchReason::ConfigInvalid,
        format!(
            "credentials' Secret: {what}; its key `endpoints` must list, one a line, the servers that its credentials are \
             for, such as `s3.eu-west-1.amazonaws.com` or `http://minio.storage.svc:9000`"
        ),
    )
}

/// Whether a header is a credential.
pub(super) fn is_secret_header(name: &HeaderName, value: &HeaderValue) -> bool {
    value.is_sensitive() || SECRET_HEADERS.contains(&name.as_str())
}

/// Whether a parameter of a query is a credential.
pub(super) fn is_secret_parameter(name: &str) -> bool {
    SECRET_PARAMETERS.contains(&name.to_ascii_lowercase().as_str())
}

/// Parameters that the fetcher sets itself, to values that are no secrets: a store's words about them are worth reading.
const HARMLESS_PARAMETERS: [&str; 7] = [
    "restype",
    "prefix",
    "include",
    "versionid",
    "generation",
    "service",
    "scope",
];

/// Values of a request that must appear nowhere, the longest first: headers with and without their scheme (`Bearer`); and
/// all of the query, because nobody knows which parameter of a stranger's URL signs it, as it is written and as it is meant.
pub(super) fn secrets(url: &Url, headers: &HeaderMap) -> Vec<String> {
    let headers = headers
        .iter()
        .filter(|(name, value)| is_secret_header(name, value));
    let headers = headers
        .filter_map(|(_, value)| value.to_str().ok())
        .flat_map(|value| {
            let bare = value.split_once(' ').map_or(value, |(_, bare)| bare);
            [value.to_owned(), bare.to_owned()]
        });
    let query = url.query().unwrap_or_default();
    let mut secrets: Vec<String> = headers
        .chain(query.split('&').flat_map(secret_values))
        .chain([query.to_owned()])
        // Shorter ones are no secrets, and would blank out ordinary words.
        .filter(|secret| secret.len() >= 6)
        .collect();
    // One may be part of another.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets
}

/// The value of a parameter: as it is written, and decoded with and without `+` for a space.
fn secret_values(parameter: &str) -> Vec<String> {
    let (name, raw) = parameter.split_once('=').unwrap_or(("", parameter));
    if HARMLESS_PARAMETERS.contains(&name.to_ascii_lowercase().as_str()) {
        return Vec::new();
    }
    let form = url::form_urlencoded::parse(parameter.as_bytes());
    let form = form.map(|(name, value)| if value.is_empty() { name } else { value }.into_owned());
    let decoded = percent_decode_str(raw).decode_utf8_lossy().into_owned();
    form.chain([raw.to_owned(), decoded]).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;

    #[test]
    fn credentials_go_to_listed_servers_only() {
        let list =
            "# ours\n s3.eu-west-1.amazonaws.com\nhttp://minio.storage.svc:9000/\n\nhub.example:8443\n";
        let audience = Audience::parse(list).unwrap();
        for (url, allowed) in [
            ("https://s3.eu-west-1.amazonaws.com/models/a", true),
            ("https://S3.eu-west-1.amazonaws.com:443/models/a", true),
            ("http://s3.eu-west-1.amazonaws.com/models/a", false),
            ("https://s3.eu-west-1.amazonaws.com:8443/models/a", false),
            ("https://models.s3.eu-west-1.amazonaws.com/a", false),
            ("https://s3.eu-west-1.amazonaws.com.evil.example/", false),
            ("http://minio.storage.svc:9000/models", true),
            ("http://minio.storage.svc/models", false),
            ("https://minio.storage.svc:9000/models", false),
            ("https://hub.example:8443/", true),
            ("https://hub.example/", false),
        ] {
            assert_eq!(audience.allows(&Url::parse(url).unwrap()), allowed, "{url}");
        }
        assert!(!Audience::default().allows(&Url::parse("https://hub.example/").unwrap()));
    }

    #[test]
    fn a_vendors_servers_are_reached_by_tls_on_the_usual_port() {
        let audience = Audience::below(&[".amazonaws.com"]);
        for (url, allowed) in [
            ("https://s3.eu-west-1.amazonaws.com/models", true),
            ("http://s3.eu-west-1.amazonaws.com/models", false),
            ("https://s3.eu-west-1.amazonaws.com:8443/models", false),
            ("https://evilamazonaws.com/models", false),
            ("https://s3.amazonaws.com.evil.example/models", false),
        ] {
            assert_eq!(audience.allows(&Url::parse(url).unwrap()), allowed, "{url}");
        }
    }

    #[test]
    fn a_wrong_list_says_what_to_write() {
        for (list, part) in [
            ("", "lists nothing"),
            ("# nothing\n", "lists nothing"),
            ("s3://models", "neither https"),
            ("*.example.com", "patterns"),
            ("https://", "\"https://\""),
            ("a b", "\"a b\""),
        ] {
            let error = Audience::parse(list).unwrap_err();
            assert_eq!(error.reason, FetchReason::ConfigInvalid);
            assert!(error.message.contains(part), "{list:?}: {}", error.message);
            assert!(error.message.contains("one a line"), "{}", error.message);
        }
    }

    /// Nobody knows which parameter of a stranger's URL is the secret one.
    #[test]
    fn every_value_of_a_query_is_secret_as_it_is_written_and_as_it_is_meant() {
        let query = "id=s3cr%2Fet+one&a=b&restype=container&bare-token";
        let url = Url::parse(&format!("https://a.example/?{query}")).unwrap();
        let secrets = secrets(&url, &HeaderMap::new());
        for secret in [query, "s3cr%2Fet+one", "s3cr/et one", "s3cr/et+one", "bare-token"] {
            assert!(secrets.iter().any(|one| one == secret), "{secret}: {secrets:?}");
        }
        assert_eq!(secrets[0], query, "the longest comes first");
        for word in ["container", "b", "restype"] {
            assert!(secrets.iter().all(|secret| secret != word), "{word}: {secrets:?}");
        }
    }
}
