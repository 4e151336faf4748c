//! How a component with fewer samples than the image is enlarged to the image's size.

use crate::Error;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upsampling {
    None,
    /// Doubles the columns with a triangle filter.
    Columns,
    /// Doubles the rows.
    Rows,
    Both,
    /// Repeats each sample this many times in each direction.
    Repeat {
        h: usize,
        v: usize,
    },
}

impl Upsampling {
    /// As libjpeg chooses it, for a component of `width` samples; `own` and `largest` are sampling factors.
    pub(crate) fn choose(own: (usize, usize), largest: (usize, usize), width: usize) -> Result<Self, Error> {
        // The filter needs at least three samples.
        let wide = width > 2;
        if !largest.0.is_multiple_of(own.0) || !largest.1.is_multiple_of(own.1) {
            return Err(Error::Unsupported(
                "a sampling factor does not divide the largest one",
            ));
        }
        match (largest.0 / own.0, largest.1 / own.1) {
            (1, 1) => Ok(Self::None),
            (2, 1) if wide => Ok(Self::Columns),
            (1, 2) => Ok(Self::Rows),
            (2, 2) if wide => Ok(Self::Both),
            (h, v) => Ok(Self::Repeat { h, v }),
        }
    }

    /// How many columns a sample covers.
    pub(crate) const fn columns(self) -> usize {
        match self {
            Self::None | Self::Rows => 1,
            Self::Columns | Self::Both => 2,
            Self::Repeat { h, .. } => h,
        }
    }

    /// The rows that contribute to a row of the image: the nearest one, and the one that counts for a quarter.
    #[inline(always)]
    pub(crate) fn rows(self, row: usize, height: usize) -> (usize, usize) {
        match self {
            Self::None | Self::Columns => (row, row),
            Self::Repeat { v, .. } => (row / v, row / v),
            Self::Rows | Self::Both if row.is_multiple_of(2) => (row / 2, (row / 2).saturating_sub(1)),
            Self::Rows | Self::Both => (row / 2, (row / 2 + 1).min(height - 1)),
        }
    }

    /// Fills `line` from those rows. `even` says whether the image's row is even, which is rounded down.
    #[inline(always)]
    pub(crate) fn fill(self, near: &[u8], far: &[u8], even: bool, line: &mut [u8], sums: &mut [i16]) {
        match self {
            Self::None => {}
            Self::Columns => columns(near, line),
            Self::Rows => {
                let bias = if even { 1 } else { 2 };
                for ((out, &near), &far) in line.iter_mut().zip(near).zip(far) {
                    *out = ((i16::from(near) * 3 + i16::from(far) + bias) >> 2) as u8;
                }
            }
            Self::Both => {
                for ((sum, &near), &far) in sums.iter_mut().zip(near).zip(far) {
                    *sum = i16::from(near) * 3 + i16::from(far);
                }
                both(sums, line);
            }
            Self::Repeat { h, .. } => {
                for (out, &near) in line.chunks_exact_mut(h).zip(near) {
                    out.fill(near);
                }
            }
        }
    }
}

/// Three quarters of the nearest sample and a quarter of the next one; alternately rounded down and up.
#[inline(always)]
fn columns(near: &[u8], line: &mut [u8]) {
    let count = near.len();
    let out = &mut line.as_chunks_mut::<2>().0[..count];
    let wide = |index: usize| i16::from(near[index]);
    out[0] = [near[0], ((wide(0) * 3 + wide(1) + 2) >> 2) as u8];
    let (left, middle, right) = (&near[..count - 2], &near[1..count - 1], &near[2..]);
    for (((out, &left), &middle), &right) in out[1..].iter_mut().zip(left).zip(middle).zip(right) {
        let middle = i16::from(middle) * 3;
        *out = [
            ((middle + i16::from(left) + 1) >> 2) as u8,
            ((middle + i16::from(right) + 2) >> 2) as u8,
        ];
    }
    let last = count - 1;
    out[last] = [((wide(last) * 3 + wide(last - 1) + 1) >> 2) as u8, near[last]];
}

/// The same over sums of two rows, which are four times as large.
#[inline(always)]
fn both(sums: &[i16], line: &mut [u8]) {
    let count = sums.len();
    let out = &mut line.as_chunks_mut::<2>().0[..count];
    out[0] = [
        ((sums[0] * 4 + 8) >> 4) as u8,
        ((sums[0] * 3 + sums[1] + 7) >> 4) as u8,
    ];
    let (left, middle, right) = (&sums[..count - 2], &sums[1..count - 1], &sums[2..]);
    for (((out, &left), &middle), &right) in out[1..].iter_mut().zip(left).zip(middle).zip(right) {
        *out = [
            ((middle * 3 + left + 8) >> 4) as u8,
            ((middle * 3 + right + 7) >> 4) as u8,
        ];
    }
    let last = count - 1;
    out[last] = [
        ((sums[last] * 3 + sums[last - 1] + 8) >> 4) as u8,
        ((sums[last] * 4 + 7) >> 4) as u8,
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_that_do_not_divide_are_refused_and_narrow_planes_repeated() {
        let choose = |own, largest, width| Upsampling::choose(own, largest, width);
        assert!(choose((2, 1), (3, 1), 9).is_err() && choose((1, 3), (1, 4), 9).is_err());
        assert_eq!(choose((1, 1), (2, 2), 3), Ok(Upsampling::Both));
        assert_eq!(choose((1, 1), (2, 2), 2), Ok(Upsampling::Repeat { h: 2, v: 2 }));
        assert_eq!(choose((2, 2), (2, 4), 1), Ok(Upsampling::Rows));
        assert_eq!(choose((1, 2), (4, 2), 9), Ok(Upsampling::Repeat { h: 4, v: 1 }));
    }

    /// The numbers are those of `h2v1_fancy_upsample` in libjpeg's `jdsample.c`.
    #[test]
    fn columns_are_three_quarters_of_the_nearest_sample() {
        let mut line = [0; 6];
        Upsampling::Columns.fill(&[10, 20, 45], &[], true, &mut line, &mut []);
        assert_eq!(line, [10, 13, 17, 26, 39, 45]);
    }

    #[test]
    fn the_edge_is_repeated_above_and_below() {
        let rows = |row| Upsampling::Both.rows(row, 2);
        assert_eq!([0, 1, 2, 3].map(rows), [(0, 0), (0, 1), (1, 0), (1, 1)]);
    }
}
