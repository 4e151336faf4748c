//! The parts before the first scan, some of which may change between scans.

use crate::Error;
use crate::color::Color;
use crate::frame::Frame;
use crate::huffman::Specification;
use crate::segments::{Segment, Segments, marker};

/// The current tables: each may be replaced between two scans.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tables {
    /// In row-major order.
    pub(crate) quantisation: [Option<[u16; 64]>; 4],
    pub(crate) dc: [Option<Specification>; 4],
    pub(crate) ac: [Option<Specification>; 4],
    /// Units between two restart markers; 0 means no markers.
    pub(crate) restart_interval: usize,
}

/// A file up to its first scan.
#[derive(Debug)]
pub(crate) struct Header<'a> {
    pub(crate) frame: Frame,
    pub(crate) color: Color,
    pub(crate) tables: Tables,
    pub(crate) application: Vec<Segment<'a>>,
    /// The content of the first scan's header.
    pub(crate) scan: &'a [u8],
    /// The segments, positioned at the first scan's data.
    pub(crate) segments: Segments<'a>,
}

impl<'a> Header<'a> {
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, Error> {
        let mut segments = Segments::new(bytes)?;
        let (mut tables, mut frame, mut application) = (Tables::default(), None, Vec::new());
        loop {
            let segment = segments.next()?;
            let Segment { marker, content } = segment;
            match marker {
                marker::SOF0..=marker::SOF15
                    if !matches!(marker, marker::DHT | marker::JPG | marker::DAC) =>
                {
                    if frame.is_some() {
                        return Err(Error::Broken("it has two frames"));
                    }
                    frame = Some(Frame::read(process(marker)?, content)?);
                }
                marker::APP0..=marker::APP15 => application.push(segment),
                marker::SOS => {
                    let frame: Frame = frame.ok_or(Error::Broken("a scan comes before the frame"))?;
                    return Ok(Self {
                        color: Color::of(&frame, &application),
                        frame,
                        tables,
                        application,
                        scan: content,
                        segments,
                    });
                }
                marker::EOI => return Err(Error::Broken("it has no scan")),
                _ => tables.read(segment)?,
            }
        }
    }
}

/// Whether the coding process is progressive.
fn process(marker: u8) -> Result<bool, Error> {
    match marker {
        marker::SOF0..=marker::SOF2 => Ok(marker == marker::SOF2),
        0xC9 | 0xCA => Err(Error::Unsupported("arithmetic coding")),
        0xC3 | 0xCB => Err(Error::Unsupported("lossless coding")),
        _ => Err(Error::Unsupported("hierarchical coding")),
    }
}

impl Tables {
    /// Reads a segment that may precede any scan.
    pub(crate) fn read(&mut self, segment: Segment<'_>) -> Result<(), Error> {
        let Segment { marker, content } = segment;
        match marker {
            marker::DQT => self.read_quantisation(content),
            marker::DHT => self.read_huffman(content),
            marker::DRI => {
                let interval = content.try_into().map(u16::from_be_bytes);
                let interval =
                    interval.map_err(|_| Error::Broken("its restart interval has the wrong length"))?;
                self.restart_interval = usize::from(interval);
                Ok(())
            }
            marker::DAC | marker::DNL | marker::COM | marker::APP0..=marker::APP15 => Ok(()),
            _ => Err(Error::Broken("it has a marker that does not belong there")),
        }
    }

    fn read_quantisation(&mut self, mut content: &[u8]) -> Result<(), Error> {
        const WRONG: Error = Error::Broken("a quantisation table is broken");
        while let [kind, rest @ ..] = content {
            let bytes = match kind >> 4 {
                0 => 1,
                1 => 2,
                _ => return Err(WRONG),
            };
            let (values, after) = rest.split_at_checked(64 * bytes).ok_or(WRONG)?;
            let mut table = [0; 64];
            for (value, &place) in values.chunks_exact(bytes).zip(&ZIGZAG) {
                table[usize::from(place)] = value.iter().fold(0, |all, &byte| (all << 8) | u16::from(byte));
            }
            *self.quantisation.get_mut(usize::from(kind & 15)).ok_or(WRONG)? = Some(table);
            content = after;
        }
        Ok(())
    }

    fn read_huffman(&mut self, mut content: &[u8]) -> Result<(), Error> {
        const WRONG: Error = Error::Broken("a Huffman table is broken");
        while let [kind, rest @ ..] = content {
            let (specification, after) = Specification::read(rest).ok_or(WRONG)?;
            let tables = match kind >> 4 {
                0 => &mut self.dc,
                1 => &mut self.ac,
                _ => return Err(WRONG),
            };
            *tables.get_mut(usize::from(kind & 15)).ok_or(WRONG)? = Some(specification);
            content = after;
        }
        Ok(())
    }
}

/// The row-major positions of a block's coefficients in the order of the file.
pub(crate) const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7,
    14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39,
    46, 53, 60, 61, 54, 47, 55, 62, 63,
];
