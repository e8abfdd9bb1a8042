//! The pixels that a convolution's product reads and writes: each of its rows reads one pixel for each tap and
//! writes one pixel.
//!
//! The rows of the forward pass are the output's pixels. The input gradient of a strided convolution is cut
//! into one product for each parity of the input's pixels, since the same taps reach all pixels of a parity.

use super::geometry::Geometry;
use std::ops::Range;

/// The rows of one product. They form maps, one for each image.
pub(super) struct Sampling {
    /// Images, and sides of a map of rows.
    pub(super) size: [usize; 3],
    /// Sides of the map that is written, the step between two written pixels, and the first of them.
    written: [usize; 2],
    pub(super) written_step: usize,
    written_first: [usize; 2],
    /// Sides of the map that is read, and the step between two read pixels.
    pub(super) read: [usize; 2],
    pub(super) read_step: usize,
    /// Taps of the kernel, and where each reads if the row is the first of its map.
    pub(super) taps: Vec<(usize, usize)>,
    pub(super) shifts: Vec<[isize; 2]>,
}

/// A row of the product: its image, and its place in the map.
#[derive(Clone, Copy)]
pub(super) struct Row {
    image: usize,
    y: usize,
    x: usize,
}

/// Rows of the product that are neighbors in a row of their map.
pub(super) struct Run {
    /// The number of the first one, counted from the first row of all runs, and how many there are.
    pub(super) first: usize,
    pub(super) len: usize,
    row: Row,
}

impl Sampling {
    /// Returns the rows of the forward pass.
    pub(super) fn forward(g: &Geometry) -> Self {
        let taps = g.tap_positions();
        let shift = |tap: usize| tap as isize - g.padding as isize;
        Self {
            size: [g.n, g.out_h(), g.out_w()],
            written: [g.out_h(), g.out_w()],
            written_step: 1,
            written_first: [0, 0],
            read: [g.h, g.w],
            read_step: g.stride,
            shifts: taps.iter().map(|&(ky, kx)| [shift(ky), shift(kx)]).collect(),
            taps,
        }
    }

    /// Returns the rows of the input gradient, one product for each parity. Pixels that no tap reaches are
    /// the rows of a product without taps.
    pub(super) fn input_gradient(g: &Geometry) -> Vec<Self> {
        let stride = g.stride;
        let reaches = |kernel: usize, parity: usize| {
            (parity + g.padding + stride * kernel - kernel).is_multiple_of(stride)
        };
        let shift = |kernel: usize, parity: usize| {
            ((parity + g.padding) as isize - kernel as isize) / stride as isize
        };
        let parities = (0..stride.min(g.h)).flat_map(|y| (0..stride.min(g.w)).map(move |x| [y, x]));
        let product = |[y, x]: [usize; 2]| {
            let mut taps = g.tap_positions();
            taps.retain(|&(ky, kx)| reaches(ky, y) && reaches(kx, x));
            Self {
                size: [g.n, (g.h - y).div_ceil(stride), (g.w - x).div_ceil(stride)],
                written: [g.h, g.w],
                written_step: stride,
                written_first: [y, x],
                read: [g.out_h(), g.out_w()],
                read_step: 1,
                shifts: taps.iter().map(|&(ky, kx)| [shift(ky, y), shift(kx, x)]).collect(),
                taps,
            }
        };
        parities.map(product).collect()
    }

    /// Turns the order of the taps around.
    pub(super) fn reverse_taps(&mut self) {
        self.taps.reverse();
        self.shifts.reverse();
    }

    /// Returns the number of rows.
    pub(super) fn len(&self) -> usize {
        self.size.iter().product()
    }

    /// Iterates over the rows from row `first` on.
    pub(super) fn rows(&self, first: usize) -> impl Iterator<Item = Row> {
        let [images, height, width] = self.size;
        let (mut image, mut y, mut x) = (first / (height * width), first / width % height, first % width);
        std::iter::from_fn(move || {
            if image == images {
                return None;
            }
            let row = Row { image, y, x };
            x += 1;
            if x == width {
                (x, y) = (0, y + 1);
            }
            if y == height {
                (y, image) = (0, image + 1);
            }
            Some(row)
        })
    }

    /// Returns the number of the pixel that `row` writes.
    pub(super) fn target(&self, row: Row) -> usize {
        let ([height, width], [y, x]) = (self.written, self.written_first);
        (row.image * height + row.y * self.written_step + y) * width + row.x * self.written_step + x
    }

    /// Iterates over the runs of `count` rows from row `first` on: rows that are neighbors in a row of their map.
    pub(super) fn runs(&self, first: usize, count: usize) -> impl Iterator<Item = Run> {
        let [_, height, width] = self.size;
        let mut done = 0;
        std::iter::from_fn(move || {
            if done == count {
                return None;
            }
            let at = first + done;
            let row = Row { image: at / (height * width), y: at / width % height, x: at % width };
            let run = Run { first: done, len: (width - row.x).min(count - done), row };
            done += run.len;
            Some(run)
        })
    }

    /// Returns the number of the first pixel that a run writes, and the distance to the next one.
    pub(super) fn targets(&self, run: &Run) -> (usize, usize) {
        (self.target(run.row), self.written_step)
    }

    /// Returns the rows of a run that read pixels through tap number `tap`, the number of the first of these
    /// pixels, and the distance to the next one. The other rows read outside of the map.
    pub(super) fn sources(&self, run: &Run, tap: usize) -> (Range<usize>, usize, usize) {
        let ([height, width], [shift_y, shift_x]) = (self.read, self.shifts[tap]);
        let y = (run.row.y * self.read_step).wrapping_add_signed(shift_y);
        if y >= height {
            return (0..0, 0, 0);
        }
        let step = self.read_step as isize;
        // Where the first row of the run reads; it may be outside.
        let x = (run.row.x * self.read_step) as isize + shift_x;
        let inside = |edge: isize| (edge - x + step - 1).div_euclid(step).clamp(0, run.len as isize) as usize;
        let rows = inside(0)..inside(width as isize);
        let pixel = (run.row.image * height + y) * width;
        (rows.clone(), pixel.wrapping_add_signed(x + rows.start as isize * step), self.read_step)
    }

    /// Returns the number of the pixel that `row` reads through tap number `tap`, or `None` outside of the
    /// map.
    #[inline]
    pub(super) fn source(&self, row: Row, tap: usize) -> Option<usize> {
        let ([height, width], [shift_y, shift_x]) = (self.read, self.shifts[tap]);
        // A negative coordinate wraps to a huge one, so one comparison checks both ends.
        let y = (row.y * self.read_step).wrapping_add_signed(shift_y);
        let x = (row.x * self.read_step).wrapping_add_signed(shift_x);
        (y < height && x < width).then(|| (row.image * height + y) * width + x)
    }
}
