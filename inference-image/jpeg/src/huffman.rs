//! Huffman codes.

use crate::Error;
use crate::bits::Bits;

/// Codes of up to this many bits are looked up at once.
const QUICK: u32 = 10;

/// A table as stored in the file: how many codes of 1 to 16 bits there are, and their symbols in order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Specification {
    counts: [u8; 16],
    symbols: [u8; 256],
}

impl Specification {
    /// Reads a table, and returns the bytes after it.
    pub(crate) fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (counts, rest) = bytes.split_first_chunk::<16>()?;
        let total: usize = counts.iter().map(|&count| usize::from(count)).sum();
        let (given, rest) = rest.split_at_checked(total)?;
        let mut symbols = [0; 256];
        symbols.get_mut(..total)?.copy_from_slice(given);
        let counts = *counts;
        Some((Self { counts, symbols }, rest))
    }

    fn with(counts: [u8; 16], given: &[u8]) -> Self {
        let mut symbols = [0; 256];
        symbols[..given.len()].copy_from_slice(given);
        Self { counts, symbols }
    }

    /// The tables of appendix K, for luminance and chrominance, which frames of Motion JPEG omit.
    pub(crate) fn standard(dc: bool, table: usize) -> Option<Self> {
        const DC: [u8; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
        match (dc, table) {
            (true, 0) => Some(Self::with([0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0], &DC)),
            (true, 1) => Some(Self::with([0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0], &DC)),
            (false, 0) => Some(Self::with(
                [0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 125],
                &AC_LUMINANCE,
            )),
            (false, 1) => Some(Self::with(
                [0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 119],
                &AC_CHROMINANCE,
            )),
            _ => None,
        }
    }
}

/// A table for decoding.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    symbols: [u8; 256],
    /// Indexed by the next `QUICK` bits: the code's length in the upper bits and its symbol, or 0 if the code is
    /// longer.
    quick: Vec<u16>,
    /// The same with the number after the code, if it fits: the number, the zeros before it, and the total number of
    /// bits.
    numbers: Vec<Number>,
    /// By length: one more than the largest code, with all lower bits set; and the offset to a symbol's index.
    ends: [u32; 17],
    offsets: [i32; 17],
}

/// A coefficient that is not zero; `bits` is 0 if there is none.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Number {
    pub(crate) value: i16,
    pub(crate) zeros: u8,
    pub(crate) bits: u8,
}

impl Table {
    pub(crate) fn new(specification: &Specification) -> Result<Self, Error> {
        let mut table = Self {
            symbols: specification.symbols,
            quick: vec![0; 1 << QUICK],
            numbers: vec![Number::default(); 1 << QUICK],
            ends: [0; 17],
            offsets: [0; 17],
        };
        let (mut code, mut place) = (0_u32, 0_usize);
        for (length, &count) in (1_u32..).zip(&specification.counts) {
            table.offsets[length as usize] = place as i32 - code as i32;
            for _ in 0..count {
                // A code must not consist of ones only.
                if code + 1 >= 1 << length {
                    return Err(Error::Broken("a Huffman table has too many codes"));
                }
                if length <= QUICK {
                    let first = (code << (QUICK - length)) as usize;
                    let entry = (length as u16) << 8 | u16::from(table.symbols[place]);
                    table.quick[first..first + (1 << (QUICK - length))].fill(entry);
                }
                code += 1;
                place += 1;
            }
            table.ends[length as usize] = code << (16 - length);
            code <<= 1;
        }
        table.find_numbers();
        Ok(table)
    }

    fn find_numbers(&mut self) {
        for (bits, (number, &entry)) in (0_u32..).zip(self.numbers.iter_mut().zip(&self.quick)) {
            let (length, symbol) = (u32::from(entry >> 8), u32::from(entry & 0xFF));
            let size = symbol & 15;
            if length == 0 || size == 0 || length + size > QUICK {
                continue;
            }
            let value = ((bits >> (QUICK - length - size)) & ((1 << size) - 1)) as i32;
            let negative = value < 1 << (size - 1);
            *number = Number {
                value: (value - if negative { (1 << size) - 1 } else { 0 }) as i16,
                zeros: (symbol >> 4) as u8,
                bits: (length + size) as u8,
            };
        }
    }

    /// Whether every symbol may be the size of a DC difference.
    pub(crate) fn is_for_dc(specification: &Specification) -> bool {
        let count: usize = specification.counts.iter().map(|&count| usize::from(count)).sum();
        specification.symbols[..count].iter().all(|&symbol| symbol < 16)
    }

    /// The next coefficient together with its code, if both are short.
    #[inline(always)]
    pub(crate) fn number(&self, bits: &Bits<'_>) -> Number {
        self.numbers[bits.peek(QUICK)]
    }

    /// The next symbol; `fill` must have provided the bits.
    #[inline(always)]
    pub(crate) fn symbol(&self, bits: &mut Bits<'_>) -> Result<u8, Error> {
        let entry = self.quick[bits.peek(QUICK)];
        if entry == 0 {
            return self.long_symbol(bits);
        }
        bits.skip(u32::from(entry >> 8));
        Ok(entry as u8)
    }

    #[cold]
    fn long_symbol(&self, bits: &mut Bits<'_>) -> Result<u8, Error> {
        let next = bits.peek(16) as u32;
        for length in QUICK + 1..=16 {
            if next < self.ends[length as usize] {
                bits.skip(length);
                let place = (next >> (16 - length)) as i32 + self.offsets[length as usize];
                return Ok(self.symbols[(place & 0xFF) as usize]);
            }
        }
        Err(if bits.overrun() {
            bits.missing()
        } else {
            Error::Broken("a scan has an undefined code")
        })
    }
}

/// Table K.5.
const AC_LUMINANCE: [u8; 162] = [
    0x01, 0x02, 0x03, 0x00, 0x04, 0x11, 0x05, 0x12, 0x21, 0x31, 0x41, 0x06, 0x13, 0x51, 0x61, 0x07, 0x22,
    0x71, 0x14, 0x32, 0x81, 0x91, 0xA1, 0x08, 0x23, 0x42, 0xB1, 0xC1, 0x15, 0x52, 0xD1, 0xF0, 0x24, 0x33,
    0x62, 0x72, 0x82, 0x09, 0x0A, 0x16, 0x17, 0x18, 0x19, 0x1A, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2A, 0x34,
    0x35, 0x36, 0x37, 0x38, 0x39, 0x3A, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4A, 0x53, 0x54, 0x55,
    0x56, 0x57, 0x58, 0x59, 0x5A, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6A, 0x73, 0x74, 0x75, 0x76,
    0x77, 0x78, 0x79, 0x7A, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x92, 0x93, 0x94, 0x95, 0x96,
    0x97, 0x98, 0x99, 0x9A, 0xA2, 0xA3, 0xA4, 0xA5, 0xA6, 0xA7, 0xA8, 0xA9, 0xAA, 0xB2, 0xB3, 0xB4, 0xB5,
    0xB6, 0xB7, 0xB8, 0xB9, 0xBA, 0xC2, 0xC3, 0xC4, 0xC5, 0xC6, 0xC7, 0xC8, 0xC9, 0xCA, 0xD2, 0xD3, 0xD4,
    0xD5, 0xD6, 0xD7, 0xD8, 0xD9, 0xDA, 0xE1, 0xE2, 0xE3, 0xE4, 0xE5, 0xE6, 0xE7, 0xE8, 0xE9, 0xEA, 0xF1,
    0xF2, 0xF3, 0xF4, 0xF5, 0xF6, 0xF7, 0xF8, 0xF9, 0xFA,
];

/// Table K.6.
const AC_CHROMINANCE: [u8; 162] = [
    0x00, 0x01, 0x02, 0x03, 0x11, 0x04, 0x05, 0x21, 0x31, 0x06, 0x12, 0x41, 0x51, 0x07, 0x61, 0x71, 0x13,
    0x22, 0x32, 0x81, 0x08, 0x14, 0x42, 0x91, 0xA1, 0xB1, 0xC1, 0x09, 0x23, 0x33, 0x52, 0xF0, 0x15, 0x62,
    0x72, 0xD1, 0x0A, 0x16, 0x24, 0x34, 0xE1, 0x25, 0xF1, 0x17, 0x18, 0x19, 0x1A, 0x26, 0x27, 0x28, 0x29,
    0x2A, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3A, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4A, 0x53, 0x54,
    0x55, 0x56, 0x57, 0x58, 0x59, 0x5A, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6A, 0x73, 0x74, 0x75,
    0x76, 0x77, 0x78, 0x79, 0x7A, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x92, 0x93, 0x94,
    0x95, 0x96, 0x97, 0x98, 0x99, 0x9A, 0xA2, 0xA3, 0xA4, 0xA5, 0xA6, 0xA7, 0xA8, 0xA9, 0xAA, 0xB2, 0xB3,
    0xB4, 0xB5, 0xB6, 0xB7, 0xB8, 0xB9, 0xBA, 0xC2, 0xC3, 0xC4, 0xC5, 0xC6, 0xC7, 0xC8, 0xC9, 0xCA, 0xD2,
    0xD3, 0xD4, 0xD5, 0xD6, 0xD7, 0xD8, 0xD9, 0xDA, 0xE2, 0xE3, 0xE4, 0xE5, 0xE6, 0xE7, 0xE8, 0xE9, 0xEA,
    0xF2, 0xF3, 0xF4, 0xF5, 0xF6, 0xF7, 0xF8, 0xF9, 0xFA,
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::segments::Segments;

    fn bits(bytes: &[u8]) -> Bits<'_> {
        let mut bits = Bits::new(&Segments { bytes, place: 0 });
        bits.fill();
        bits
    }

    #[test]
    fn codes_of_every_length_are_found() {
        let standard = Specification::standard(false, 0).unwrap();
        let table = Table::new(&standard).unwrap();
        // From table K.5 of the specification: codes of 2, 11, 16 and 16 bits.
        for (code, symbol) in [
            ([0x00, 0x00], 0x01),
            ([0xFF, 0x20], 0xF0),
            ([0xFF, 0x83], 0x0A),
            ([0xFF, 0xFE], 0xFA),
        ] {
            let stuffed: Vec<u8> = code
                .iter()
                .flat_map(|&byte| if byte == 0xFF { vec![byte, 0] } else { vec![byte] })
                .collect();
            assert_eq!(table.symbol(&mut bits(&stuffed)), Ok(symbol), "{code:X?}");
        }
    }

    #[test]
    fn a_table_with_too_many_codes_is_refused() {
        let full = |counts: &[u8]| {
            let mut all = [0; 16];
            all[..counts.len()].copy_from_slice(counts);
            Table::new(&Specification::with(all, &[0; 9])).is_ok()
        };
        assert!(full(&[1, 1, 1]) && full(&[0, 3]));
        assert!(!full(&[2]) && !full(&[1, 2]) && !full(&[0, 4]) && !full(&[9]));
    }
}
