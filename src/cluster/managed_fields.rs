//! Lean: takes `managedFields` out of what the API server answers, before it is parsed. They are half of an object
//! that many controllers write, and nobody here reads them. Knows nothing of objects: it cuts one list out of JSON.

use hyper::body::{Body, Bytes, Frame, SizeHint};
use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
};

/// What comes before the list's items. Inside a string of JSON its quotes would be escaped.
const BEGIN: &[u8] = b"\"managedFields\":[";

/// A body of JSON in which every list `managedFields` is empty.
pub(super) struct Lean<B> {
    body: B,
    place: Place,
    /// Kept parts of the last piece that arrived.
    kept: VecDeque<Bytes>,
}

impl<B> Lean<B> {
    pub(super) fn new(body: B) -> Self {
        Self {
            body,
            place: Place::Outside { matched: 0 },
            kept: VecDeque::new(),
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Lean<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        loop {
            if let Some(part) = self.kept.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(part))));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(context))
                .map(|frame| frame.map(Frame::into_data))
            {
                Some(Ok(Ok(piece))) => {
                    let this = &mut *self;
                    this.place.cut(piece, &mut this.kept);
                }
                Some(Ok(Err(trailers))) => return Poll::Ready(Some(Ok(trailers))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.kept.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// Where in the text a piece ended.
#[derive(Clone, Copy)]
enum Place {
    /// So many bytes of [`BEGIN`] were the last ones.
    Outside { matched: usize },
    /// In the list, below so many brackets.
    Inside { depth: usize, text: Text },
}

#[derive(Clone, Copy)]
enum Text {
    No,
    Yes,
    Escaped,
}

impl Place {
    /// Moves what is kept of `piece` into `kept`.
    fn cut(&mut self, mut piece: Bytes, kept: &mut VecDeque<Bytes>) {
        while !piece.is_empty() {
            match *self {
                Self::Outside { matched } => {
                    let (length, next) = outside(&piece, matched);
                    kept.push_back(piece.split_to(length));
                    *self = next;
                }
                Self::Inside { depth, text } => {
                    let (length, next) = inside(&piece, depth, text);
                    drop(piece.split_to(length));
                    *self = next;
                }
            }
        }
    }
}

/// How much is kept, and where one is then.
fn outside(piece: &[u8], matched: usize) -> (usize, Place) {
    const INSIDE: Place = Place::Inside {
        depth: 1,
        text: Text::No,
    };
    let rest = &BEGIN[matched..];
    if piece.starts_with(rest) {
        return (rest.len(), INSIDE);
    }
    if rest.starts_with(piece) {
        let matched = matched + piece.len();
        return (piece.len(), Place::Outside { matched });
    }
    if let Some(at) = memchr::memmem::find(piece, BEGIN) {
        return (at + BEGIN.len(), INSIDE);
    }
    let matched = (1..BEGIN.len())
        .rev()
        .find(|&length| piece.ends_with(&BEGIN[..length]));
    let matched = matched.unwrap_or(0);
    (piece.len(), Place::Outside { matched })
}

/// How much is dropped, and where one is then.
fn inside(piece: &[u8], mut depth: usize, mut text: Text) -> (usize, Place) {
    for (at, byte) in piece.iter().enumerate() {
        text = match (text, byte) {
            (Text::No, b'[' | b'{') => {
                depth += 1;
                Text::No
            }
            (Text::No, b']' | b'}') => {
                depth -= 1;
                if depth == 0 {
                    return (at, Place::Outside { matched: 0 });
                }
                Text::No
            }
            (Text::No, b'"') | (Text::Escaped, _) => Text::Yes,
            (Text::Yes, b'\\') => Text::Escaped,
            (Text::Yes, b'"') => Text::No,
            (text, _) => text,
        };
    }
    (piece.len(), Place::Inside { depth, text })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use http_body_util::{BodyExt as _, Full};

    const OBJECT: &str = r#"{"metadata":{"name":"a \"managedFields\":[ b","managedFields":[{"fieldsV1":{"f:data":{"k:{\"x\":\"]\"}":{}}},"time":"\\"},{"a":[]}],"uid":"1"},"list":["managedFields"],"managedFields":[]}"#;
    const LEAN: &str = r#"{"metadata":{"name":"a \"managedFields\":[ b","managedFields":[],"uid":"1"},"list":["managedFields"],"managedFields":[]}"#;

    /// A cut at the wrong place is an answer that cannot be read, or one that says something else.
    #[test]
    fn only_managed_fields_are_cut_out_wherever_the_text_is_split() {
        for size in 1..=OBJECT.len() {
            let (mut place, mut kept) = (Place::Outside { matched: 0 }, VecDeque::new());
            for piece in OBJECT.as_bytes().chunks(size) {
                place.cut(Bytes::copy_from_slice(piece), &mut kept);
            }
            let kept: Vec<u8> = kept.into_iter().flatten().collect();
            assert_eq!(String::from_utf8(kept).unwrap(), LEAN, "in pieces of {size}");
        }
    }

    #[tokio::test]
    async fn a_body_is_read_to_its_end() {
        let body = Lean::new(Full::new(Bytes::from(OBJECT.repeat(3))));
        let text = body.collect().await.unwrap().to_bytes();
        assert_eq!(text, LEAN.repeat(3));
    }
}
