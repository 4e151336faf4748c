//! Markers and segments: the outer structure of a file.

use crate::Error;

/// The markers that matter here (ITU-T T.81, table B.1).
pub(crate) mod marker {
    pub(crate) const TEM: u8 = 0x01;
    pub(crate) const SOF0: u8 = 0xC0;
    pub(crate) const SOF2: u8 = 0xC2;
    pub(crate) const DHT: u8 = 0xC4;
    pub(crate) const JPG: u8 = 0xC8;
    pub(crate) const DAC: u8 = 0xCC;
    pub(crate) const SOF15: u8 = 0xCF;
    pub(crate) const RST0: u8 = 0xD0;
    pub(crate) const RST7: u8 = 0xD7;
    pub(crate) const SOI: u8 = 0xD8;
    pub(crate) const EOI: u8 = 0xD9;
    pub(crate) const SOS: u8 = 0xDA;
    pub(crate) const DQT: u8 = 0xDB;
    pub(crate) const DNL: u8 = 0xDC;
    pub(crate) const DRI: u8 = 0xDD;
    pub(crate) const APP0: u8 = 0xE0;
    pub(crate) const APP14: u8 = 0xEE;
    pub(crate) const APP15: u8 = 0xEF;
    pub(crate) const COM: u8 = 0xFE;
}

/// A marker and its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Its marker's second byte.
    pub marker: u8,
    /// The bytes after the length.
    pub content: &'a [u8],
}

/// Walks forward through a file.
#[derive(Clone, Debug)]
pub(crate) struct Segments<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) place: usize,
}

impl<'a> Segments<'a> {
    /// Starts after the marker that begins every file.
    pub(crate) fn new(bytes: &'a [u8]) -> Result<Self, Error> {
        match bytes {
            [0xFF, marker::SOI, ..] => Ok(Self { bytes, place: 2 }),
            _ => Err(Error::Broken("it does not begin like a JPEG")),
        }
    }

    /// The next marker; like libjpeg, this skips any other bytes before it.
    pub(crate) fn marker(&mut self) -> Result<u8, Error> {
        loop {
            let rest = self.bytes.get(self.place..).unwrap_or_default();
            let start = rest.iter().position(|&byte| byte == 0xFF);
            let rest = &rest[start.ok_or(Error::Truncated)?..];
            let code = rest.iter().position(|&byte| byte != 0xFF);
            let code = code.ok_or(Error::Truncated)?;
            self.place = self.bytes.len() - rest.len() + code + 1;
            if rest[code] != 0 {
                return Ok(rest[code]);
            }
        }
    }

    /// The next segment. Markers without content are skipped.
    pub(crate) fn next(&mut self) -> Result<Segment<'a>, Error> {
        loop {
            let marker = match self.marker()? {
                marker::TEM | marker::RST0..=marker::RST7 => continue,
                marker::SOI => return Err(Error::Broken("an image begins within another")),
                marker => marker,
            };
            let content = if marker == marker::EOI {
                &[]
            } else {
                self.content()?
            };
            return Ok(Segment { marker, content });
        }
    }

    fn content(&mut self) -> Result<&'a [u8], Error> {
        let rest = self.bytes.get(self.place..).unwrap_or_default();
        let [high, low, ..] = *rest else {
            return Err(Error::Truncated);
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length < 2 {
            return Err(Error::Broken("a segment is shorter than its length"));
        }
        let content = rest.get(2..length).ok_or(Error::Truncated)?;
        self.place += length;
        Ok(content)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_no_marker_is_skipped_and_what_is_missing_is_said() {
        let file = [
            0xFF, 0xD8, 7, 0xFF, 0, 0xFF, 0xFF, 0xFE, 0, 3, 9, 0xFF, 0xD0, 0xFF, 0xD9,
        ];
        let mut segments = Segments::new(&file).unwrap();
        let comment = segments.next().unwrap();
        assert_eq!((comment.marker, comment.content), (marker::COM, &[9][..]));
        assert_eq!(segments.next().unwrap().marker, marker::EOI);
        for end in 2..10 {
            let cut = Segments::new(&file[..end]).unwrap().next();
            assert_eq!(cut, Err(Error::Truncated), "cut at {end}");
        }
    }
}
