//! Where a redirect leads, and what may go there. Pure.

use super::audience::is_secret_parameter;
use crate::error::FetchError;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use modelservice_contract::FetchReason;
use url::Url;

/// How many redirects a request follows.
pub(super) const MAXIMUM_REDIRECTS: usize = 10;

/// What another server may know about a request. Everything else stays behind: a list of what to drop would forget some.
const HARMLESS_HEADERS: [&str; 8] = [
    "accept",
    "accept-encoding",
    "range",
    "if-match",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "user-agent",
];

/// Where the next request goes, if an answer is a redirect that is followed.
///
/// # Errors
/// `Forbidden` if it leads from `https` to `http` or to another scheme; `Unavailable` for a redirect of a request that
/// is not repeated, or a `Location` that is no URL.
pub(super) fn next(
    method: &Method,
    from: &Url,
    status: StatusCode,
    location: Option<&HeaderValue>,
) -> Result<Option<Url>, FetchError> {
    let is_redirect = matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308);
    // S3 sends some without: its body says which region is the right one.
    let Some(location) = location.filter(|_| is_redirect) else {
        return Ok(None);
    };
    let host = from.host_str().unwrap_or_default();
    let unusable = |what: &str| FetchError::new(FetchReason::Unavailable, format!("{host} redirects {what}"));
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(unusable(&format!(
            "a {method} request, which is not sent to anybody else"
        )));
    }
    let location = location
        .to_str()
        .map_err(|_| unusable("to something that is no URL"))?;
    let mut to = from
        .join(location)
        .map_err(|_| unusable("to something that is no URL"))?;
    let refused = |what: &str| {
        let message = format!(
            "{host} redirects to {}: {what}",
            to.host_str().unwrap_or("no host")
        );
        Err(FetchError::new(FetchReason::Forbidden, message))
    };
    match (from.scheme(), to.scheme()) {
        (_, "https") | ("http", "http") => {}
        ("https", "http") => return refused("from https:// to http://, which is not followed"),
        (_, scheme) => return refused(&format!("by {scheme}:, which is not followed")),
    }
    // Credentials in a URL are not sent, whoever wrote them; neither call fails on a URL with a host.
    let _ = to.set_username("");
    let _ = to.set_password(None);
    to.set_fragment(None);
    if to.origin() != from.origin() {
        drop_echoed_secrets(from, &mut to);
    }
    Ok(Some(to))
}

/// A server that redirects with our own query appended would pass its signature on. What the server signs itself, as
/// for a content delivery network, has other values and stays.
fn drop_echoed_secrets(from: &Url, to: &mut Url) {
    let ours: Vec<(String, String)> = from
        .query_pairs()
        .filter(|(name, _)| is_secret_parameter(name))
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    let is_ours = |value: &str| ours.iter().any(|(_, secret)| secret == value);
    if !to.query_pairs().any(|(_, value)| is_ours(&value)) {
        return;
    }
    let kept: Vec<(String, String)> = to
        .query_pairs()
        .filter(|(_, value)| !is_ours(value))
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    to.set_query(None);
    if !kept.is_empty() {
        to.query_pairs_mut().extend_pairs(kept);
    }
}

/// The headers of a request that another server gets.
pub(super) fn harmless(headers: &HeaderMap) -> HeaderMap {
    let kept = headers
        .iter()
        .filter(|(name, value)| HARMLESS_HEADERS.contains(&name.as_str()) && !value.is_sensitive());
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;

    fn redirect(from: &str, location: &str) -> Result<Option<Url>, FetchError> {
        let location = HeaderValue::from_str(location).unwrap();
        next(
            &Method::GET,
            &Url::parse(from).unwrap(),
            StatusCode::FOUND,
            Some(&location),
        )
    }

    #[test]
    fn a_redirect_leads_to_its_location() {
        for (from, location, to) in [
            ("https://a.example/x/y", "z", "https://a.example/x/z"),
            ("https://a.example/x/y", "//b.example/z", "https://b.example/z"),
            (
                "http://a.example/",
                "https://b.example/?q=1",
                "https://b.example/?q=1",
            ),
            ("http://a.example/", "http://b.example/", "http://b.example/"),
            (
                "https://a.example/",
                "https://user:pass@b.example/#part",
                "https://b.example/",
            ),
            // The signature that the server makes for another one is needed there; ours is not theirs.
            (
                "https://a.example/?sig=ours-is-secret&v=1",
                "https://cdn.example/?sig=theirs&v=1",
                "https://cdn.example/?sig=theirs&v=1",
            ),
            (
                "https://a.example/?X-Amz-Signature=ours-is-secret&v=1",
                "https://b.example/?v=1&X-Amz-Signature=ours-is-secret",
                "https://b.example/?v=1",
            ),
            (
                "https://a.example/?sig=ours-is-secret",
                "https://b.example/?other=ours-is-secret",
                "https://b.example/",
            ),
            (
                "https://a.example/?sig=ours-is-secret",
                "https://a.example/y?sig=ours-is-secret",
                "https://a.example/y?sig=ours-is-secret",
            ),
        ] {
            let next = redirect(from, location).unwrap().unwrap();
            assert_eq!(next.as_str(), to, "{from} → {location}");
        }
    }

    #[test]
    fn a_redirect_to_less_than_tls_or_to_another_scheme_is_refused() {
        for (from, location, part) in [
            ("https://a.example/", "http://a.example/", "https:// to http://"),
            ("https://a.example/", "file:///etc/passwd", "file:"),
            ("http://a.example/", "ftp://b.example/", "ftp:"),
        ] {
            let error = redirect(from, location).unwrap_err();
            assert_eq!(error.reason, FetchReason::Forbidden, "{location}");
            assert!(error.message.contains(part), "{}", error.message);
        }
    }

    #[test]
    fn what_is_no_redirect_is_the_answer() {
        let from = Url::parse("https://a.example/").unwrap();
        let location = HeaderValue::from_static("/b");
        for (status, location) in [(200, Some(&location)), (304, Some(&location)), (301, None)] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(next(&Method::GET, &from, status, location), Ok(None), "{status}");
        }
    }

    #[test]
    fn a_request_with_a_body_is_sent_to_nobody_else() {
        let from = Url::parse("https://a.example/token").unwrap();
        let location = HeaderValue::from_static("https://b.example/");
        let error = next(
            &Method::POST,
            &from,
            StatusCode::TEMPORARY_REDIRECT,
            Some(&location),
        )
        .unwrap_err();
        assert!(error.message.contains("a POST request"), "{}", error.message);
    }
}
