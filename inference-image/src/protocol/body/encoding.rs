//! gzip and deflate: of requests while they arrive, of responses if the client asks for it.

use super::sink::{Full, Sink};
use crate::protocol::error::Quoted;
use crate::protocol::header_list::{elements, weighted};
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
                "the encoding {} is not supported: use gzip, deflate or none",
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

    /// The one encoding of a body; `Ok(None)` if it has none.
    ///
    /// # Errors
    /// If it has another one, or several.
    pub(crate) fn of_body(headers: &HeaderMap) -> Result<Option<Self>, String> {
        let mut found = None;
        for line in headers.get_all(header::CONTENT_ENCODING) {
            for name in String::from_utf8_lossy(line.as_bytes()).split(',') {
                let encoding = Self::parse(name)?;
                if encoding.is_some() && found.is_some() {
                    return Err(
                        "a body that is compressed several times is not supported: compress it once"
                            .to_owned(),
                    );
                }
                found = found.or(encoding);
            }
        }
        Ok(found)
    }

    /// The encoding for a response: the client's preference among those that are supported. Unknown elements of the
    /// list are ignored.
    pub(crate) fn accepted(headers: &HeaderMap) -> Option<Self> {
        let (mut best, mut plain): (Option<(f32, Self)>, f32) = (None, 0.0);
        for (name, weight) in elements(headers, &header::ACCEPT_ENCODING).filter_map(weighted) {
            match Self::parse(name) {
                Ok(Some(encoding)) if weight > best.map_or(0.0, |(best, _)| best) => {
                    best = Some((weight, encoding));
                }
                Ok(None) => plain = plain.max(weight),
                Ok(Some(_)) | Err(_) => {}
            }
        }
        best.filter(|(weight, _)| *weight >= plain)
            .map(|(_, encoding)| encoding)
    }

    /// The parts, compressed as one. Optimised for speed, since floating-point numbers do not compress well.
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

/// Writes received bytes into a sink, unchanged or decompressed.
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
    /// It is too large.
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use axum::http::HeaderName;

    fn headers(name: &HeaderName, lines: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines.split('\n') {
            headers.append(name, line.parse().unwrap());
        }
        headers
    }

    /// A client must not get an encoding that it says it cannot read.
    #[test]
    fn a_response_is_encoded_as_its_client_prefers() {
        for (lines, expected) in [
            ("", None),
            ("gzip", Some(Encoding::Gzip)),
            ("X-GZip", Some(Encoding::Gzip)),
            ("br, deflate, gzip", Some(Encoding::Deflate)),
            ("deflate;q=0.5, gzip;q=0.8", Some(Encoding::Gzip)),
            ("deflate;q=0.5\ngzip;Q=0.8", Some(Encoding::Gzip)),
            ("gzip;q=0", None),
            ("gzip;Q=0", None),
            ("gzip ; q = 0.000", None),
            ("gzip;q=0, deflate;q=0.1", Some(Encoding::Deflate)),
            ("gzip;q=inf, deflate", Some(Encoding::Deflate)),
            ("identity, gzip;q=0.5", None),
            ("identity;q=0.5, gzip;q=0.5", Some(Encoding::Gzip)),
            ("*", None),
            (",, gzip ,", Some(Encoding::Gzip)),
        ] {
            let headers = headers(&header::ACCEPT_ENCODING, lines);
            assert_eq!(Encoding::accepted(&headers), expected, "{lines}");
        }
    }

    /// Decompressing a body once that was compressed twice gives the wrong bytes.
    #[test]
    fn a_body_has_one_encoding_whatever_the_number_of_lines() {
        for (lines, expected) in [
            ("", Ok(None)),
            ("identity", Ok(None)),
            ("GZIP", Ok(Some(Encoding::Gzip))),
            ("identity, deflate ,", Ok(Some(Encoding::Deflate))),
            ("identity\ngzip", Ok(Some(Encoding::Gzip))),
            ("gzip\ngzip", Err("several times")),
            ("gzip, deflate", Err("several times")),
            ("gzip\nbr", Err("br")),
            ("br", Err("br")),
            ("gzip;q=1", Err("gzip;q=1")),
        ] {
            let found = Encoding::of_body(&headers(&header::CONTENT_ENCODING, lines));
            match expected {
                Ok(encoding) => assert_eq!(found, Ok(encoding), "{lines}"),
                Err(words) => assert!(found.unwrap_err().contains(words), "{lines}"),
            }
        }
    }
}
