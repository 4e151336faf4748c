//! gzip and deflate: of requests while they arrive, of responses if the client asks for it.

use super::sink::{Full, Sink};
use crate::protocol::error::Quoted;
use axum::http::{HeaderMap, header};
use flate2::Compression;
use flate2::write::{GzEncoder, MultiGzDecoder, ZlibDecoder, ZlibEncoder};
use std::io::{self, Write};

/// How a body is compressed. `deflate` is zlib's format, as HTTP defines it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// RFC 1952.
    Gzip,
    /// RFC 1950.
    Deflate,
}

impl Encoding {
    /// The encoding of this name, in any case; `Ok(None)` is no encoding.
    pub(crate) fn parse(name: &str) -> Result<Option<Self>, String> {
        match name.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(None),
            "gzip" | "x-gzip" => Ok(Some(Self::Gzip)),
            "deflate" => Ok(Some(Self::Deflate)),
            _ => Err(format!(
                "the encoding {} is not understood: use gzip, deflate or none",
                Quoted(name)
            )),
        }
    }

    /// Its name in headers.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    /// The encoding for a response: the client's preference among those that are supported.
    pub(crate) fn accepted(headers: &HeaderMap) -> Option<Self> {
        let offers = headers.get_all(header::ACCEPT_ENCODING).iter();
        let offers = offers
            .filter_map(|value| value.to_str().ok())
            .flat_map(|list| list.split(','));
        let mut best: Option<(f32, Self)> = None;
        for offer in offers {
            let (name, weight) = offer.split_once(';').unwrap_or((offer, ""));
            let weight = weight
                .trim()
                .strip_prefix("q=")
                .map_or(Some(1.0), |q| q.parse().ok());
            let (Ok(Some(encoding)), Some(weight)) = (Self::parse(name), weight) else {
                continue;
            };
            if weight > best.map_or(0.0, |(weight, _)| weight) {
                best = Some((weight, encoding));
            }
        }
        best.map(|(_, encoding)| encoding)
    }

    /// The parts, compressed as one. Fast rather than small: most of what is sent is floating-point numbers.
    pub(crate) fn compress(self, parts: &[impl AsRef<[u8]>]) -> io::Result<Vec<u8>> {
        let all =
            |encoder: &mut dyn Write| parts.iter().try_for_each(|part| encoder.write_all(part.as_ref()));
        match self {
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                all(&mut encoder)?;
                encoder.finish()
            }
            Self::Deflate => {
                let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
                all(&mut encoder)?;
                encoder.finish()
            }
        }
    }
}

/// Writes what arrives into a sink, as it is or decompressed.
pub(crate) enum Decoder {
    /// As it is.
    Plain(Sink),
    /// From gzip.
    Gzip(Box<MultiGzDecoder<Inflated>>),
    /// From zlib.
    Deflate(Box<ZlibDecoder<Inflated>>),
}

/// A sink as a writer, which remembers why it rejected data.
pub(crate) struct Inflated {
    sink: Sink,
    full: Option<Full>,
}

/// Why a body was rejected.
#[derive(Debug)]
pub(crate) enum Refused {
    /// It does not fit.
    Full(Full),
    /// It is not compressed as its header says.
    Broken(io::Error),
}

impl Write for Inflated {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.sink.push(data).map_err(|full| {
            self.full = Some(full);
            io::Error::from(io::ErrorKind::WriteZero)
        })?;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Decoder {
    pub(crate) fn new(encoding: Option<Encoding>, sink: Sink) -> Self {
        let inflated = |sink| Inflated { sink, full: None };
        match encoding {
            None => Self::Plain(sink),
            Some(Encoding::Gzip) => Self::Gzip(Box::new(MultiGzDecoder::new(inflated(sink)))),
            Some(Encoding::Deflate) => Self::Deflate(Box::new(ZlibDecoder::new(inflated(sink)))),
        }
    }

    /// Waits until there is memory for this many bytes. Decompressed bytes are accepted only if there is memory for
    /// them at once.
    pub(super) async fn reserve(&mut self, more: usize) -> Result<(), Refused> {
        match self {
            Self::Plain(sink) => sink.reserve(more).await.map_err(Refused::Full),
            Self::Gzip(_) | Self::Deflate(_) => Ok(()),
        }
    }

    pub(super) fn push(&mut self, data: &[u8]) -> Result<(), Refused> {
        let result = match self {
            Self::Plain(sink) => return sink.push(data).map_err(Refused::Full),
            Self::Gzip(decoder) => decoder.write_all(data),
            Self::Deflate(decoder) => decoder.write_all(data),
        };
        result.map_err(|error| self.explain(error))
    }

    /// The sink, once the whole body has arrived.
    pub(crate) fn finish(mut self) -> Result<Sink, Refused> {
        let result = match &mut self {
            Self::Plain(_) => Ok(()),
            Self::Gzip(decoder) => decoder.try_finish(),
            Self::Deflate(decoder) => decoder.try_finish(),
        };
        result.map_err(|error| self.explain(error))?;
        let inflated = match self {
            Self::Plain(sink) => return Ok(sink),
            Self::Gzip(decoder) => decoder.finish(),
            Self::Deflate(decoder) => decoder.finish(),
        };
        inflated.map(|inflated| inflated.sink).map_err(Refused::Broken)
    }

    fn explain(&self, error: io::Error) -> Refused {
        let inflated = match self {
            Self::Plain(_) => None,
            Self::Gzip(decoder) => Some(decoder.get_ref()),
            Self::Deflate(decoder) => Some(decoder.get_ref()),
        };
        let full = inflated.and_then(|inflated| inflated.full);
        full.map_or(Refused::Broken(error), Refused::Full)
    }
}
