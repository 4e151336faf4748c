//! What an answer says of a file. Pure.

use crate::{error::FetchError, http::Response};
use modelservice_contract::FetchReason;
use std::ops::Range;

/// A body that is compressed on its way has another length and other ranges; a page is no model.
pub(super) fn check_is_file(url: &str, response: &Response) -> Result<(), FetchError> {
    if let Some(encoding) = response
        .header("content-encoding")
        .filter(|encoding| *encoding != "identity")
    {
        let message = format!(
            "{url}: the server compresses its answer ({encoding:?}) although it was asked not to; switch that off there"
        );
        return Err(FetchError::new(FetchReason::Unavailable, message));
    }
    if response
        .header("content-type")
        .is_some_and(|kind| kind.starts_with("text/html"))
    {
        let message = format!(
            "{url}: the server answers with a web page, not with a file; it may want a login: add the header to send as \
             the key `headers` of a Secret"
        );
        return Err(FetchError::new(FetchReason::Denied, message));
    }
    Ok(())
}

pub(super) fn strong_tag(response: &Response) -> Option<String> {
    let tag = response.header("etag")?;
    let is_strong = tag.len() > 2 && tag.starts_with('"') && tag.ends_with('"');
    is_strong.then(|| tag.to_owned())
}

/// `Content-Range: bytes 0-9/100`.
pub(super) fn content_range(response: &Response) -> Option<(Range<u64>, u64)> {
    parse_content_range(response.header("content-range")?)
}

fn parse_content_range(text: &str) -> Option<(Range<u64>, u64)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, total): (u64, u64, u64) =
        (first.parse().ok()?, last.parse().ok()?, total.parse().ok()?);
    let end = last.checked_add(1)?;
    (first < end && end <= total).then_some((first..end, total))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;

    #[test]
    fn only_a_content_range_that_makes_sense_is_believed() {
        assert_eq!(parse_content_range("bytes 0-9/100"), Some((0..10, 100)));
        assert_eq!(parse_content_range("bytes 99-99/100"), Some((99..100, 100)));
        for text in [
            "bytes 0-9/*",
            "bytes */100",
            "bytes 9-0/100",
            "bytes 0-100/100",
            "bytes 0-18446744073709551615/18446744073709551615",
            "items 0-9/100",
            "",
        ] {
            assert_eq!(parse_content_range(text), None, "{text}");
        }
    }
}
