//! Managed fields: empties `managedFields` in the API server's answers before they are parsed. They make up half of
//! an object that many controllers write, and are read only to tell who disputes a field. Knows nothing of objects: it
//! cuts one list out of JSON.

use hyper::body::{Body, Bytes, Frame, SizeHint};
use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
};

/// What precedes the items of the list. Inside a JSON string its quotes would be escaped.
const BEGIN: &[u8] = b"\"managedFields\":[";

/// A JSON body in which every list `managedFields` is empty.
pub(super) struct WithoutManagedFields<B> {
    body: B,
    place: Place,
    /// What is left of the last chunk.
    rest: VecDeque<Bytes>,
    is_whole: bool,
}

impl<B> WithoutManagedFields<B> {
    pub(super) fn new(body: B) -> Self {
        Self {
            body,
            place: Place::Outside { matched: 0 },
            rest: VecDeque::new(),
            is_whole: false,
        }
    }

    /// A body that stays as it is: its answer is to tell who set which fields.
    pub(super) fn whole(body: B) -> Self {
        Self {
            is_whole: true,
            ..Self::new(body)
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for WithoutManagedFields<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        loop {
            if let Some(part) = self.rest.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(part))));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(context))
                .map(|frame| frame.map(Frame::into_data))
            {
                Some(Ok(Ok(chunk))) if self.is_whole => return Poll::Ready(Some(Ok(Frame::data(chunk)))),
                Some(Ok(Ok(chunk))) => {
                    let this = &mut *self;
                    this.place.cut(chunk, &mut this.rest);
                }
                Some(Ok(Err(trailers))) => return Poll::Ready(Some(Ok(trailers))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// Where in the text a chunk ended.
#[derive(Clone, Copy)]
enum Place {
    /// The last bytes matched this many of [`BEGIN`].
    Outside { matched: usize },
    /// In the list, inside this many brackets.
    Inside { depth: usize, text: Text },
}

#[derive(Clone, Copy)]
enum Text {
    No,
    Yes,
    Escaped,
}

impl Place {
    /// Appends what is left of `chunk` to `rest`.
    fn cut(&mut self, mut chunk: Bytes, rest: &mut VecDeque<Bytes>) {
        while !chunk.is_empty() {
            match *self {
                Self::Outside { matched } => {
                    let (length, next) = outside(&chunk, matched);
                    rest.push_back(chunk.split_to(length));
                    *self = next;
                }
                Self::Inside { depth, text } => {
                    let (length, next) = inside(&chunk, depth, text);
                    drop(chunk.split_to(length));
                    *self = next;
                }
            }
        }
    }
}

/// How many bytes to keep, and the place after them.
fn outside(chunk: &[u8], matched: usize) -> (usize, Place) {
    const INSIDE: Place = Place::Inside {
        depth: 1,
        text: Text::No,
    };
    let missing = &BEGIN[matched..];
    if chunk.starts_with(missing) {
        return (missing.len(), INSIDE);
    }
    if missing.starts_with(chunk) {
        let matched = matched + chunk.len();
        return (chunk.len(), Place::Outside { matched });
    }
    if let Some(at) = memchr::memmem::find(chunk, BEGIN) {
        return (at + BEGIN.len(), INSIDE);
    }
    let matched = (1..BEGIN.len())
        .rev()
        .find(|&length| chunk.ends_with(&BEGIN[..length]));
    let matched = matched.unwrap_or(0);
    (chunk.len(), Place::Outside { matched })
}

/// How many bytes to drop, and the place after them.
fn inside(chunk: &[u8], mut depth: usize, mut text: Text) -> (usize, Place) {
    for (at, byte) in chunk.iter().enumerate() {
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
    (chunk.len(), Place::Inside { depth, text })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use http_body_util::{BodyExt as _, Full};

    const OBJECT: &str = r#"{"metadata":{"name":"a \"managedFields\":[ b","managedFields":[{"fieldsV1":{"f:data":{"k:{\"x\":\"]\"}":{}}},"time":"\\"},{"a":[]}],"uid":"1"},"list":["managedFields"],"managedFields":[]}"#;
    const EMPTIED: &str = r#"{"metadata":{"name":"a \"managedFields\":[ b","managedFields":[],"uid":"1"},"list":["managedFields"],"managedFields":[]}"#;

    /// A cut in the wrong place makes an answer unreadable or changes its meaning.
    #[test]
    fn only_managed_fields_are_cut_out_wherever_the_text_is_split() {
        for size in 1..=OBJECT.len() {
            let (mut place, mut rest) = (Place::Outside { matched: 0 }, VecDeque::new());
            for chunk in OBJECT.as_bytes().chunks(size) {
                place.cut(Bytes::copy_from_slice(chunk), &mut rest);
            }
            let rest: Vec<u8> = rest.into_iter().flatten().collect();
            assert_eq!(String::from_utf8(rest).unwrap(), EMPTIED, "in chunks of {size}");
        }
    }

    #[tokio::test]
    async fn a_body_is_read_to_its_end() {
        let body = WithoutManagedFields::new(Full::new(Bytes::from(OBJECT.repeat(3))));
        let text = body.collect().await.unwrap().to_bytes();
        assert_eq!(text, EMPTIED.repeat(3));
        let body = WithoutManagedFields::whole(Full::new(Bytes::from(OBJECT)));
        assert_eq!(body.collect().await.unwrap().to_bytes(), OBJECT);
    }
}
