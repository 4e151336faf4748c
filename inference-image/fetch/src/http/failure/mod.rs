//! What a failed answer means: kinds of failures, the store's own words, and when to try again.

use super::message::{Response, host};
use crate::error::{FetchError, Retry};
use http::{HeaderMap, StatusCode, header};
use modelservice_contract::FetchReason;
use serde_json::Value;
use std::time::{Duration, SystemTime};

/// How much of a body is looked at for the store's own words, in bytes.
const BODY: usize = 64 << 10;
/// How many characters of them are repeated.
const WORDS: usize = 300;
/// The longest wait that a store can ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// What was asked for, and with what.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// What was asked for, as in the configuration (`s3://models/resnet`).
    pub what: String,
    /// Which credentials were used.
    pub used: Used,
    /// Whether exactly one version was asked for, so that its absence means that the source has changed.
    pub is_frozen: bool,
}

/// Which credentials were used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Used {
    /// None.
    #[default]
    Nothing,
    /// Keys of the Secret, by name.
    Secret(String),
    /// An image pull secret, by name.
    PullSecret(String),
    /// The pod's own identity.
    PodIdentity,
}

impl Used {
    fn advice(&self) -> String {
        match self {
            Self::Nothing => "The request carried no credentials; name a Secret with some in \
                              spec.fetch.credentials, or make the source public"
                .to_owned(),
            Self::Secret(keys) => format!(
                "The request used {keys} of the credentials' Secret; check that they are right, still valid, and may read it"
            ),
            Self::PullSecret(name) => format!(
                "The request used the image pull secret {name}; check that it is right, still valid, and may pull it"
            ),
            Self::PodIdentity => {
                "The request used the pod's own identity; check that the role of its service account may \
                                  read it"
                    .to_owned()
            }
        }
    }
}

/// The error that an answer with a failed status stands for. Reads its body.
pub async fn failure(response: Response, asked: &Asked) -> FetchError {
    let (status, headers, host) = (response.status, response.headers.clone(), host(&response.url));
    let secrets = response.secrets.clone();
    // An error's body that breaks off is no other error.
    let body = response.bytes(BODY).await.unwrap_or_default();
    // Before it is cut: of a secret at the cut, a part would stay.
    let words = bounded(&redacted(words(&headers, &body), &secrets));
    classify(status, &headers, &host, &words, asked)
}

fn classify(status: StatusCode, headers: &HeaderMap, host: &str, words: &str, asked: &Asked) -> FetchError {
    let reason = reason(status, words, asked.is_frozen);
    let says = match (words.is_empty(), status.canonical_reason()) {
        (false, _) => format!("{}: {words}", status.as_u16()),
        (true, Some(name)) => format!("{} {name}", status.as_u16()),
        (true, None) => status.as_u16().to_string(),
    };
    let advice = match reason {
        FetchReason::Denied => Some(asked.used.advice()),
        FetchReason::SourceChanged => Some(
            "The version that belongs to this revision is no longer there; set a new spec.model.refresh to use what is \
             there now"
                .to_owned(),
        ),
        FetchReason::NotFound if asked.used == Used::Nothing => {
            Some("Check the URI; some stores say this also of what they show to nobody without credentials".to_owned())
        }
        FetchReason::NotFound => Some("Check the URI".to_owned()),
        _ if status.is_redirection() => Some(region(headers)),
        _ => None,
    };
    let advice = advice.map(|advice| format!(". {advice}")).unwrap_or_default();
    let says = says.trim_end_matches('.');
    FetchError {
        reason,
        message: format!("{}: {host} answers {says}{advice}", asked.what),
        retry: match reason {
            // The kubelet may be about to renew them in the mounted Secret.
            FetchReason::Denied if words.contains("ExpiredToken") || words.contains("expired") => Retry::Soon,
            _ => retry(status, headers),
        },
    }
}

fn reason(status: StatusCode, words: &str, is_frozen: bool) -> FetchReason {
    match status.as_u16() {
        401 | 403 | 407 => FetchReason::Denied,
        // What is said of credentials that have expired or are malformed, with this status.
        400 if [
            "ExpiredToken",
            "InvalidToken",
            "TokenRefreshRequired",
            "AuthorizationHeaderMalformed",
            "invalid_grant",
            "invalid_client",
        ]
        .iter()
        .any(|code| words.contains(code)) =>
        {
            FetchReason::Denied
        }
        404 | 410 if is_frozen => FetchReason::SourceChanged,
        // S3 answers so if a version has another form than its own.
        400 if is_frozen && words.contains("version") => FetchReason::SourceChanged,
        404 | 410 => FetchReason::NotFound,
        412 => FetchReason::SourceChanged,
        _ => FetchReason::Unavailable,
    }
}

fn region(headers: &HeaderMap) -> String {
    let region = headers
        .get("x-amz-bucket-region")
        .and_then(|region| region.to_str().ok());
    match region {
        Some(region) => {
            format!("The bucket is in the region {region}; set AWS_REGION in the credentials' Secret to it")
        }
        None => "It redirects without saying where; check the endpoint and the region".to_owned(),
    }
}

fn retry(status: StatusCode, headers: &HeaderMap) -> Retry {
    match status.as_u16() {
        429 | 503 => wait(headers, SystemTime::now()).map_or(Retry::Soon, Retry::After),
        408 | 425 | 500..=599 => Retry::Soon,
        _ => Retry::Never,
    }
}

/// `Retry-After`: seconds or a date.
fn wait(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text)
            .ok()?
            .duration_since(now)
            .unwrap_or_default(),
    };
    Some(wait.min(LONGEST_WAIT))
}

/// The store's own words: code and message of an XML or JSON body, headers of the Hub and of Azure, or short text.
fn words(headers: &HeaderMap, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let text = text.trim_start_matches('\u{feff}').trim();
    let said = if text.starts_with('<') {
        xml(text)
    } else if text.starts_with(['{', '[']) {
        serde_json::from_str(text).ok().and_then(|value| json(&value))
    } else {
        (!text.is_empty()).then(|| text.to_owned())
    };
    in_line(&said.or_else(|| in_headers(headers)).unwrap_or_default())
}

fn xml(text: &str) -> Option<String> {
    let element = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        rest.split_once(&format!("</{name}>"))
            .map(|(value, _)| value.trim())
    };
    joined(element("Code"), element("Message"))
}

/// `{"error": {"code", "message"}}` (Google), `{"error", "error_description"}` (OAuth), `{"errors": [{"code", "message"}]}`
/// (registries), `{"error"}` (the Hub), `{"message"}`.
fn json(value: &Value) -> Option<String> {
    let text = |value: &Value, name: &str| match value.get(name) {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Number(number)) => Some(number.to_string()),
        _ => None,
    };
    let inner = match (
        value.get("error"),
        value.get("errors").and_then(|errors| errors.get(0)),
    ) {
        (Some(error @ Value::Object(_)), _) => error,
        (_, Some(error)) => error,
        _ => value,
    };
    let code = text(inner, "code").or_else(|| text(inner, "error"));
    let message = text(inner, "message").or_else(|| text(inner, "error_description"));
    joined(code.as_deref(), message.as_deref())
}

fn in_headers(headers: &HeaderMap) -> Option<String> {
    let header = |names: [&str; 2]| names.iter().find_map(|name| headers.get(*name)?.to_str().ok());
    joined(
        header(["x-error-code", "x-ms-error-code"]),
        header(["x-error-message", "x-minio-error-desc"]),
    )
}

fn joined(code: Option<&str>, message: Option<&str>) -> Option<String> {
    match (code, message) {
        (Some(code), Some(message)) => Some(format!("{code}: {message}")),
        (code, message) => code.or(message).map(str::to_owned),
    }
}

/// One line without control characters.
fn in_line(text: &str) -> String {
    let line: Vec<&str> = text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .collect();
    line.join(" ")
}

fn bounded(line: &str) -> String {
    match line.char_indices().nth(WORDS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

/// A store may repeat what it was sent.
fn redacted(words: String, secrets: &[String]) -> String {
    secrets
        .iter()
        .fold(words, |words, secret| words.replace(secret, "[redacted]"))
}

#[cfg(test)]
mod tests;
