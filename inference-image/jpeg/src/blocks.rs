//! From bits to the coefficients of a block.

use crate::Error;
use crate::bits::Bits;
use crate::header::ZIGZAG;
use crate::huffman::Table;

const TOO_MANY: Error = Error::Broken("a block has too many coefficients");

#[inline(always)]
pub(crate) fn difference(bits: &mut Bits<'_>, dc: &Table) -> Result<i32, Error> {
    bits.fill();
    let size = dc.symbol(bits)?;
    Ok(bits.number(u32::from(size)))
}

/// Decodes a whole block; returns whether it is flat.
#[inline(always)]
pub(crate) fn sequential(
    bits: &mut Bits<'_>,
    dc: &Table,
    ac: &Table,
    prediction: &mut i32,
    block: &mut [i16; 64],
) -> Result<bool, Error> {
    *prediction = prediction.wrapping_add(difference(bits, dc)?);
    block[0] = *prediction as i16;
    let (mut place, mut flat) = (1, true);
    while place < 64 {
        bits.fill();
        let number = ac.number(bits);
        if number.bits > 0 {
            bits.skip(u32::from(number.bits));
            place += usize::from(number.zeros);
            let natural = *ZIGZAG.get(place).ok_or(TOO_MANY)?;
            block[usize::from(natural & 63)] = number.value;
        } else {
            let symbol = ac.symbol(bits)?;
            let (zeros, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
            if size == 0 && zeros < 15 {
                break;
            }
            place += zeros;
            if size > 0 {
                let natural = *ZIGZAG.get(place).ok_or(TOO_MANY)?;
                block[usize::from(natural & 63)] = bits.number(size) as i16;
            }
        }
        place += 1;
        flat = false;
    }
    Ok(flat)
}

/// A progressive scan's part of each block: the first and the last coefficient, and the bits that are omitted.
#[derive(Clone, Debug)]
pub(crate) struct Band {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) low: u8,
    /// Remaining blocks without further coefficients.
    pub(crate) ends: u32,
}

impl Band {
    /// The upper bits of the coefficients (figure G.3 of the specification).
    pub(crate) fn first(
        &mut self,
        bits: &mut Bits<'_>,
        ac: &Table,
        block: &mut [i16; 64],
    ) -> Result<(), Error> {
        if self.ends > 0 {
            self.ends -= 1;
            return Ok(());
        }
        let mut place = self.start;
        while place <= self.end {
            bits.fill();
            let symbol = ac.symbol(bits)?;
            let (zeros, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
            if size == 0 && zeros < 15 {
                self.ends = (1 << zeros) - 1 + bits.take(zeros) as u32;
                return Ok(());
            }
            place += zeros as usize;
            if size > 0 {
                let number = (bits.number(size) << self.low) as i16;
                *self.coefficient(place, block)? = number;
            }
            place += 1;
        }
        Ok(())
    }

    /// One more bit of the coefficients (figure G.7).
    pub(crate) fn refine(
        &mut self,
        bits: &mut Bits<'_>,
        ac: &Table,
        block: &mut [i16; 64],
    ) -> Result<(), Error> {
        let mut place = self.start;
        while place <= self.end && self.ends == 0 {
            bits.fill();
            let symbol = ac.symbol(bits)?;
            let (zeros, size) = (u32::from(symbol >> 4), symbol & 15);
            let new = match size {
                0 if zeros < 15 => {
                    self.ends = (1 << zeros) + bits.take(zeros) as u32;
                    break;
                }
                0 => 0,
                1 if bits.take(1) == 1 => 1 << self.low,
                1 => -1 << self.low,
                _ => return Err(Error::Broken("a scan refines a coefficient by more than a bit")),
            };
            place = self.refine_until(place, Some(zeros), bits, block);
            if new != 0 {
                *self.coefficient(place, block)? = new;
            }
            place += 1;
        }
        if self.ends > 0 {
            self.refine_until(place, None, bits, block);
            self.ends -= 1;
        }
        Ok(())
    }

    /// Refines nonzero coefficients up to the zero after this many others, or up to the end; returns its position.
    #[inline(always)]
    fn refine_until(
        &self,
        start: usize,
        mut zeros: Option<u32>,
        bits: &mut Bits<'_>,
        block: &mut [i16; 64],
    ) -> usize {
        for place in start..=self.end {
            let coefficient = &mut block[usize::from(ZIGZAG[place])];
            if *coefficient != 0 {
                refine(bits, coefficient, self.low);
            } else if let Some(zeros) = &mut zeros {
                if *zeros == 0 {
                    return place;
                }
                *zeros -= 1;
            }
        }
        self.end + 1
    }

    fn coefficient<'b>(&self, place: usize, block: &'b mut [i16; 64]) -> Result<&'b mut i16, Error> {
        if place > self.end {
            return Err(TOO_MANY);
        }
        Ok(&mut block[usize::from(ZIGZAG[place])])
    }
}

#[inline(always)]
fn refine(bits: &mut Bits<'_>, coefficient: &mut i16, low: u8) {
    let bit = 1_i16 << low;
    if bits.bit() && *coefficient & bit == 0 {
        let step = if *coefficient > 0 { bit } else { -bit };
        *coefficient = coefficient.wrapping_add(step);
    }
}
