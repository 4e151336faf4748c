//! A body that must have exactly as many bytes as were asked for.

use crate::error::FetchError;
use bytes::Bytes;
use futures::{Stream, StreamExt, stream::BoxStream};

/// Ends a stream with `Unavailable` if it brings fewer or more than `length` bytes; what is too much is not passed on.
#[must_use]
pub fn exactly(
    stream: impl Stream<Item = Result<Bytes, FetchError>> + Send + 'static,
    length: u64,
    what: String,
) -> BoxStream<'static, Result<Bytes, FetchError>> {
    let state = Some((Box::pin(stream), 0_u64, what));
    let guarded = futures::stream::unfold(state, move |state| async move {
        let (mut stream, seen, what) = state?;
        match stream.next().await {
            None if seen == length => None,
            None => {
                let message = format!("{what}: the body ended after {seen} of {length} bytes");
                Some((Err(FetchError::unavailable(message)), None))
            }
            Some(Err(error)) => Some((Err(error), None)),
            Some(Ok(piece)) if seen + piece.len() as u64 > length => {
                let message =
                    format!("{what}: the body has more than the {length} bytes that were asked for");
                Some((Err(FetchError::unavailable(message)), None))
            }
            Some(Ok(piece)) => {
                let seen = seen + piece.len() as u64;
                Some((Ok(piece), Some((stream, seen, what))))
            }
        }
    });
    guarded.boxed()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;
    use futures::executor::block_on;

    fn pass(pieces: &[&'static str], length: u64) -> Vec<Result<Bytes, FetchError>> {
        let pieces: Vec<_> = pieces
            .iter()
            .map(|piece| Ok(Bytes::from_static(piece.as_bytes())))
            .collect();
        block_on(exactly(futures::stream::iter(pieces), length, "a.onnx".to_owned()).collect())
    }

    #[test]
    fn a_body_of_the_right_length_passes() {
        assert!(pass(&["ab", "c"], 3).iter().all(Result::is_ok));
        assert!(pass(&[], 0).is_empty());
    }

    #[test]
    fn a_body_that_is_too_short_or_too_long_ends_with_an_error() {
        for (pieces, length, part) in [
            (&["ab"][..], 3, "after 2 of 3 bytes"),
            (&[], 3, "after 0 of 3 bytes"),
            (&["ab", "cd"], 3, "more than the 3 bytes"),
        ] {
            let items = pass(pieces, length);
            let error = items.last().unwrap().as_ref().unwrap_err();
            assert!(error.message.contains(part), "{}", error.message);
        }
    }
}
