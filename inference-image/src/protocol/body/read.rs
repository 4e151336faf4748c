//! Reads request bodies.

use super::budget::Budget;
use super::discard::discard;
use super::encoding::{Decoder, Encoding, Refused};
use super::sink::{Full, Reservation, Sink};
use super::zero_copy::ZeroCopyBody;
use crate::protocol::error::ApiError;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use http_body_util::BodyExt;
use std::sync::Arc;
use std::time::Instant;
use tokio::time::timeout;

/// A whole body.
pub(crate) struct Received {
    /// The bytes; their memory is accounted for as long as any part of them exists.
    pub(crate) bytes: Bytes,
    /// Extends this to whatever was built from them.
    pub(crate) room: Arc<Reservation>,
}

/// How a body is to be read.
#[derive(Default)]
pub(crate) struct ReadOptions {
    /// The byte that must be aligned like a tensor.
    pub(crate) aligned_at: usize,
    /// When the client stops waiting for the response.
    pub(crate) deadline: Option<Instant>,
    /// Reads its bytes without a copy, if that is possible.
    pub(crate) zero_copy: Option<ZeroCopyBody>,
}

impl Budget {
    /// Reads a whole body, and decompresses it.
    ///
    /// # Errors
    /// 413 if it is too large, 415 if it is compressed in another way than gzip or deflate, 408 if it takes too long,
    /// 504 if it takes longer than the client waits, 503 if there is no memory for it, 400 if the client disconnects
    /// or the body is not compressed as its header says.
    pub(crate) async fn read(
        &self,
        headers: &HeaderMap,
        body: Body,
        wanted: ReadOptions,
    ) -> Result<Received, ApiError> {
        let encoding = Encoding::of_body(headers)
            .map_err(|problem| ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, problem))?;
        let announced = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        if announced.is_some_and(|length| length > self.max_body) {
            // A client that asks first (`Expect: 100-continue`) gets a refusal before it sends the body.
            if !headers.contains_key(header::EXPECT) {
                discard(body, self.times.discard).await;
            }
            return Err(self.too_large());
        }
        let expected = announced.filter(|_| encoding.is_none());
        let reading = async {
            let sink = self.sink(expected, wanted.aligned_at).await?;
            match (wanted.zero_copy, expected) {
                (Some(zero_copy), Some(length)) => self.fill_zero_copy(sink, &zero_copy, length).await,
                _ => self.fill(Decoder::new(encoding, sink), body).await,
            }
        };
        self.in_time(wanted.deadline, reading).await
    }

    async fn fill(&self, mut decoder: Decoder, mut body: Body) -> Result<Received, ApiError> {
        while let Some(data) = next(&mut body).await? {
            if let Err(refused) = self.push(&mut decoder, &data).await {
                drop(decoder);
                discard(body, self.times.discard).await;
                return Err(self.refused(refused));
            }
        }
        let sink = decoder.finish().map_err(|refused| self.refused(refused))?;
        let (bytes, room) = sink.finish();
        Ok(Received { bytes, room })
    }

    /// The connection discards what has not been read in the end.
    async fn fill_zero_copy(
        &self,
        mut sink: Sink,
        zero_copy: &ZeroCopyBody,
        length: usize,
    ) -> Result<Received, ApiError> {
        while sink.len() < length {
            let room = timeout(self.times.room, sink.reserve(1)).await;
            let room = room.unwrap_or(Err(Full::Memory));
            room.map_err(|full| self.refused(Refused::Full(full)))?;
            if sink.append(zero_copy).await.map_err(|error| broken_off(&error))? == 0 {
                return Err(broken_off(&"it ended early"));
            }
        }
        let (bytes, room) = sink.finish();
        Ok(Received { bytes, room })
    }
}

/// The next bytes of a body.
///
/// # Errors
/// 400 if the client disconnects.
pub(crate) async fn next(body: &mut Body) -> Result<Option<Bytes>, ApiError> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| broken_off(&error))?;
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

fn broken_off(error: &dyn std::fmt::Display) -> ApiError {
    ApiError::bad_request(format!("the body ended before it was complete: {error}"))
}
