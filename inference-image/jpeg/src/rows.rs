//! From blocks to rows of pixels. For each component, only the rows of one unit are kept, and the rows above that the
//! filters still need: the last rows of a unit are produced once the next unit is available.

use crate::color::Color;
use crate::frame::{BLOCK, Component, Frame};
use crate::idct;
use crate::upsample::Upsampling;

pub(crate) struct Rows<'p> {
    color: Color,
    planes: Vec<Plane>,
    /// Rows of the image that one row of samples with the smallest sampling factor covers.
    group: usize,
    width: usize,
    height: usize,
    pixels: &'p mut [u8],
}

/// The kept rows of a component.
struct Plane {
    component: Component,
    steps: [u16; 64],
    /// `component.v` + 1 rows of the previous unit, then those of this one.
    window: Vec<u8>,
    stride: usize,
    /// The last enlarged row, and room for sums.
    line: Vec<u8>,
    sums: Vec<i16>,
    /// Where the requested row begins in the window, if it need not be enlarged.
    start: usize,
}

impl<'p> Rows<'p> {
    pub(crate) fn new(frame: &Frame, color: Color, pixels: &'p mut [u8]) -> Self {
        let plane = |component: &Component| Plane {
            component: component.clone(),
            steps: [0; 64],
            stride: frame.units.0 * component.h * BLOCK,
            window: vec![0; frame.units.0 * component.h * BLOCK * (component.v * (BLOCK + 1) + 1)],
            line: vec![0; component.width * component.upsampling.columns()],
            sums: vec![0; component.width],
            start: 0,
        };
        Self {
            color,
            planes: frame.components.iter().map(plane).collect(),
            group: frame.v,
            width: usize::from(frame.width),
            height: usize::from(frame.height),
            pixels,
        }
    }

    /// The steps of a component's coefficients.
    pub(crate) fn set_steps(&mut self, component: usize, steps: [u16; 64]) {
        self.planes[component].steps = steps;
    }

    /// Puts a block into this row of units: its column, and its row within the unit. `flat` means that only its first
    /// coefficient is nonzero.
    #[inline(always)]
    pub(crate) fn put(&mut self, component: usize, column: usize, row: usize, block: &[i16; 64], flat: bool) {
        let plane = &mut self.planes[component];
        let line = plane.component.v + 1 + row * BLOCK;
        let samples = &mut plane.window[line * plane.stride + column * BLOCK..];
        if flat {
            idct::flat(block[0], plane.steps[0], samples, plane.stride);
        } else {
            idct::inverse(block, &plane.steps, samples, plane.stride);
        }
    }

    /// Call this when all blocks of a row of units are there.
    #[inline(always)]
    pub(crate) fn finish(&mut self, unit: usize) {
        let row = |group: usize| (group * self.group).min(self.height);
        let (first, end) = (row((unit * BLOCK).saturating_sub(1)), row(unit * BLOCK + BLOCK));
        // The last group's rows wait for the rows below, if there are any.
        let end = if end < self.height {
            row(unit * BLOCK + BLOCK - 1)
        } else {
            end
        };
        let bytes = self.width * self.color.channels();
        let rows = self.pixels[first * bytes..end * bytes].chunks_exact_mut(bytes);
        for (row, out) in (first..).zip(rows) {
            for plane in &mut self.planes {
                plane.enlarge(row, unit);
            }
            let mut lines = [&[][..]; 4];
            for (line, plane) in lines.iter_mut().zip(&self.planes) {
                *line = plane.enlarged();
            }
            self.color.convert(lines, out);
        }
        for plane in &mut self.planes {
            plane
                .window
                .copy_within(plane.component.v * BLOCK * plane.stride.., 0);
        }
    }
}

impl Plane {
    /// Computes the component's row for a row of the image.
    #[inline(always)]
    fn enlarge(&mut self, row: usize, unit: usize) {
        let Component {
            v,
            width,
            height,
            upsampling,
            ..
        } = self.component;
        let (near, far) = upsampling.rows(row, height);
        let start = |row: usize| (row + v + 1 - unit * BLOCK * v) * self.stride;
        let (near, far) = (start(near), start(far));
        self.start = near;
        upsampling.fill(
            &self.window[near..near + width],
            &self.window[far..far + width],
            row.is_multiple_of(2),
            &mut self.line,
            &mut self.sums,
        );
    }

    #[inline(always)]
    fn enlarged(&self) -> &[u8] {
        match self.component.upsampling {
            Upsampling::None => &self.window[self.start..self.start + self.component.width],
            _ => &self.line,
        }
    }
}
