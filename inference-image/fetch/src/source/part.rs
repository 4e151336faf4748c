//! A part of an object, from an answer that may be of another part.

use super::api::Object;
use crate::{
    error::FetchError,
    http::{Response, exactly},
};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream::BoxStream};
use http::{StatusCode, header};
use std::ops::Range;

/// Exactly the bytes of `range` from a successful answer. A server without ranges sends the whole object, of which the
/// rest is skipped: slow, but right.
///
/// # Errors
/// `Unavailable` if the answer is of another part, or of an object of another size.
pub(super) fn part(
    response: Response,
    object: &Object,
    range: &Range<u64>,
) -> Result<BoxStream<'static, Result<Bytes, FetchError>>, FetchError> {
    let length = range.end - range.start;
    let lie = |what: String| FetchError::unavailable(format!("{}: {what}", object.key));
    if response.status == StatusCode::PARTIAL_CONTENT {
        let stated = response
            .header(header::CONTENT_RANGE.as_str())
            .unwrap_or_default();
        let wanted = format!("bytes {}-{}/", range.start, range.end - 1);
        let total = stated.strip_prefix(&wanted).ok_or_else(|| {
            lie(format!(
                "bytes {}-{} were asked for, and the answer is {stated:?}",
                range.start,
                range.end - 1
            ))
        })?;
        check_size(object, total.parse().ok()).map_err(lie)?;
        return Ok(exactly(response.stream(), length, object.key.clone()));
    }
    check_size(object, response.content_length()).map_err(lie)?;
    let all = response.stream();
    if object.size == Some(length) {
        return Ok(exactly(all, length, object.key.clone()));
    }
    Ok(exactly(cut(all, range.clone()), length, object.key.clone()))
}

fn check_size(object: &Object, total: Option<u64>) -> Result<(), String> {
    match (object.size, total) {
        (Some(size), Some(total)) if size != total => Err(format!(
            "it has {size} bytes in the source's list, and {total} in the answer to its download"
        )),
        _ => Ok(()),
    }
}

/// The bytes of a range from a stream of everything.
fn cut(
    stream: impl Stream<Item = Result<Bytes, FetchError>> + Send + 'static,
    range: Range<u64>,
) -> impl Stream<Item = Result<Bytes, FetchError>> + Send + 'static {
    let mut at = 0_u64;
    let pieces = stream.map(move |piece| {
        let piece = piece?;
        let (start, end) = (at, at + piece.len() as u64);
        at = end;
        let from = range.start.clamp(start, end) - start;
        let to = range.end.clamp(start, end) - start;
        // Both are at most the piece's length, which is a usize.
        #[allow(clippy::cast_possible_truncation)]
        let cut = piece.slice(from as usize..to as usize);
        Ok((cut, end >= range.end))
    });
    let mut is_over = false;
    pieces
        .take_while(move |piece| {
            let goes_on = !is_over;
            is_over = matches!(piece, Ok((_, true)));
            std::future::ready(goes_on)
        })
        .filter_map(|piece| {
            std::future::ready(match piece {
                Ok((bytes, _)) => (!bytes.is_empty()).then_some(Ok(bytes)),
                Err(error) => Some(Err(error)),
            })
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;
    use futures::executor::block_on;

    /// Without it, a server without ranges gives a file whose parts all begin with its first bytes.
    #[test]
    fn a_range_is_cut_out_of_everything() {
        for (range, expected) in [
            (0..3, "abc"),
            (2..5, "cde"),
            (3..6, "def"),
            (6..8, "gh"),
            (1..2, "b"),
        ] {
            let pieces = ["ab", "cd", "ef", "gh"].map(|piece| Ok(Bytes::from_static(piece.as_bytes())));
            let stream = cut(futures::stream::iter(pieces), range.clone());
            let cut: Vec<Bytes> = block_on(stream.map(Result::unwrap).collect());
            assert_eq!(cut.concat(), expected.as_bytes(), "{range:?}");
        }
    }
}
