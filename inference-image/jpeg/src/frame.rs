//! The frame: the image's size and its components.

use crate::Error;
use crate::upsample::Upsampling;

/// Samples along the side of a block.
pub(crate) const BLOCK: usize = 8;
/// The most blocks that libjpeg and the specification allow in one unit of an interleaved scan.
const MOST_BLOCKS_IN_A_UNIT: usize = 10;

/// One of the planes that make up the image.
#[derive(Clone, Debug)]
pub(crate) struct Component {
    pub(crate) id: u8,
    /// Horizontal and vertical sampling factor, in relation to those of the other components.
    pub(crate) h: usize,
    pub(crate) v: usize,
    pub(crate) quantisation: usize,
    /// Samples that belong to the image.
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// How it is enlarged to the image's size.
    pub(crate) upsampling: Upsampling,
}

impl Component {
    /// Blocks of a scan that contains only this component.
    pub(crate) fn blocks(&self) -> (usize, usize) {
        (self.width.div_ceil(BLOCK), self.height.div_ceil(BLOCK))
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) progressive: bool,
    pub(crate) width: u16,
    pub(crate) height: u16,
    pub(crate) components: Vec<Component>,
    /// The largest vertical factor of all components.
    pub(crate) v: usize,
    /// Units of an interleaved scan: columns and rows.
    pub(crate) units: (usize, usize),
}

impl Frame {
    /// Reads the content of a frame's segment.
    pub(crate) fn read(progressive: bool, content: &[u8]) -> Result<Self, Error> {
        let [bits, y1, y0, x1, x0, count, components @ ..] = content else {
            return Err(Error::Broken("its frame header is too short"));
        };
        if *bits != 8 {
            return Err(Error::Unsupported("its samples do not have 8 bits"));
        }
        let (width, height) = (u16::from_be_bytes([*x1, *x0]), u16::from_be_bytes([*y1, *y0]));
        if width == 0 || height == 0 {
            return Err(Error::Broken("it has no pixels"));
        }
        let components = components.as_chunks::<3>().0;
        if components.len() * 3 + 6 != content.len() || components.len() != usize::from(*count) {
            return Err(Error::Broken("its frame header has the wrong length"));
        }
        if !matches!(count, 1 | 3 | 4) {
            return Err(Error::Unsupported("it does not have 1, 3 or 4 components"));
        }
        Self::with(progressive, width, height, components)
    }

    fn with(progressive: bool, width: u16, height: u16, components: &[[u8; 3]]) -> Result<Self, Error> {
        let factors = |[_, factors, _]: &[u8; 3]| (usize::from(factors >> 4), usize::from(factors & 15));
        if components
            .iter()
            .map(factors)
            .any(|(h, v)| !(1..=4).contains(&h) || !(1..=4).contains(&v))
        {
            return Err(Error::Broken("a sampling factor is not 1 to 4"));
        }
        if components.iter().any(|&[_, _, table]| table > 3) {
            return Err(Error::Broken("a quantisation table number is not 0 to 3"));
        }
        // A single component is never interleaved, and its sampling factors do not matter.
        let alone = components.len() == 1;
        let factors = |component: &[u8; 3]| if alone { (1, 1) } else { factors(component) };
        let largest = components.iter().map(factors);
        let (h, v) = largest.fold((1, 1), |(h, v), (ch, cv)| (h.max(ch), v.max(cv)));
        let (columns, rows) = (usize::from(width), usize::from(height));
        let component = |given: &[u8; 3]| {
            let (own_h, own_v) = factors(given);
            let width = (columns * own_h).div_ceil(h);
            Ok(Component {
                id: given[0],
                h: own_h,
                v: own_v,
                quantisation: usize::from(given[2]),
                width,
                height: (rows * own_v).div_ceil(v),
                upsampling: Upsampling::choose((own_h, own_v), (h, v), width)?,
            })
        };
        Ok(Self {
            progressive,
            width,
            height,
            components: components.iter().map(component).collect::<Result<_, _>>()?,
            v,
            units: (columns.div_ceil(BLOCK * h), rows.div_ceil(BLOCK * v)),
        })
    }

    /// The components of a scan, by their position in the frame, from the IDs that its header lists. libjpeg's rule:
    /// they come in the frame's order, and an ID that was already used refers to the next component with the same ID.
    pub(crate) fn find(&self, ids: impl Iterator<Item = u8>) -> Result<Vec<usize>, Error> {
        let mut found: Vec<usize> = Vec::new();
        for id in ids {
            let place = self
                .components
                .iter()
                .enumerate()
                .position(|(place, component)| component.id == id && place >= found.len())
                .filter(|place| !found.contains(place))
                .ok_or(Error::Broken("a scan is for a component that does not exist"))?;
            found.push(place);
        }
        let blocks = found.iter().map(|&place| &self.components[place]);
        if found.len() > 1 && blocks.map(|one| one.h * one.v).sum::<usize>() > MOST_BLOCKS_IN_A_UNIT {
            return Err(Error::Unsupported("more than 10 blocks are interleaved"));
        }
        Ok(found)
    }
}
