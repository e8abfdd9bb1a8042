//! The left operand of the forward pass and of the input gradient: the pixels of a block of rows.
//!
//! If neighboring rows read neighboring pixels (stride 1, maps whose width is a multiple of 16), a block is the
//! part of the map that its rows read, with zeros around it. A tile of 16 rows then lies in it at a distance
//! that depends on the tap alone, so the tap's numbers are loaded from where they are. With 16 channels a step
//! takes two neighboring taps; where a row of the kernel has an odd number of taps, the last step also takes
//! the pixel beside it, with weights of zero. So a pixel that is not a number can reach two more outputs of its
//! image. Otherwise the pixels of each tap are copied.

use super::super::sampling::Sampling;
use super::super::tiles::PANEL;
use super::tiles::Left;
use super::{LINE, ROWS, STEP, TILE, TILE_BYTES};
use crate::simd::{Kernel, Vector, dispatch};
use half::bf16;
use std::ops::Range;

/// Rows of a block, if a row of the map has no more.
const BLOCK: usize = 128;
const NUMBER: usize = size_of::<bf16>();

/// Returns the taps in the order in which they are summed, by their places in the sampling's list; `None` has
/// weights of zero.
pub(super) fn summed_taps(sampling: &Sampling, depth: usize) -> Vec<Option<usize>> {
    if Frame::of(sampling, depth).is_none() || depth.is_multiple_of(STEP) {
        return (0..sampling.taps.len()).map(Some).collect();
    }
    let mut taps = Vec::new();
    for (tap, shift) in sampling.shifts.iter().enumerate() {
        let starts_row = tap > 0 && sampling.shifts[tap - 1][0] != shift[0];
        if starts_row && taps.len() % 2 == 1 {
            taps.push(None);
        }
        taps.push(Some(tap));
    }
    if taps.len() % 2 == 1 {
        taps.push(None);
    }
    taps
}

/// The part of a map around the rows of a block.
struct Frame {
    /// The least and the largest shift in both directions.
    least: [isize; 2],
    most: [isize; 2],
    /// Pixels of a row.
    pitch: usize,
}

impl Frame {
    /// Returns the frame of the sampling, or `None` if its pixels have to be copied for each tap. The shifts
    /// must rise from tap to tap.
    fn of(sampling: &Sampling, depth: usize) -> Option<Self> {
        let [_, _, width] = sampling.size;
        let steps = sampling.read_step == 1 && sampling.written_step == 1;
        let channels = depth == PANEL || depth.is_multiple_of(STEP);
        if sampling.taps.len() < 2 || !steps || !channels || !width.is_multiple_of(ROWS) {
            return None;
        }
        let shifts = &sampling.shifts;
        let (first, last) = (shifts[0], shifts[shifts.len() - 1]);
        // All taps of a rectangle, row by row.
        let columns = (last[1] - first[1] + 1) as usize;
        let whole = shifts.len() == (last[0] - first[0] + 1) as usize * columns;
        let rising = shifts.windows(2).all(|pair| pair[0] < pair[1]);
        (whole && rising).then_some(Self { least: first, most: last, pitch: width + columns - 1 })
    }

    /// Returns the rows of the frame around `height` rows of the map.
    fn height(&self, height: usize) -> usize {
        height + (self.most[0] - self.least[0]) as usize
    }
}

/// How the rows of a product are cut into blocks, and how a block lies in memory.
pub(super) struct Blocks<'a> {
    sampling: &'a Sampling,
    depth: usize,
    frame: Option<Frame>,
    /// Rows of a block, and blocks of a map; copied blocks go on from one map to the next.
    block: usize,
    of_map: usize,
    /// Where the tile of each step begins.
    offsets: Vec<usize>,
}

impl<'a> Blocks<'a> {
    pub(super) fn new(sampling: &'a Sampling, depth: usize) -> Self {
        let [_, height, width] = sampling.size;
        let taps = summed_taps(sampling, depth);
        let steps = (taps.len() * depth).div_ceil(STEP);
        let Some(frame) = Frame::of(sampling, depth) else {
            // At least a few tasks for each thread, of whole pairs of tiles.
            let block = sampling.len().div_ceil(8).next_multiple_of(2 * ROWS).min(BLOCK);
            let offsets = (0..steps).map(|step| step * TILE_BYTES).collect();
            return Self { sampling, depth, frame: None, block, of_map: 0, offsets };
        };
        let rows = (BLOCK / width).clamp(1, height);
        let offset = |step: usize| {
            let number = step * STEP;
            let tap = taps[number / depth].expect("a step begins with a tap");
            let [y, x] = sampling.shifts[tap];
            let pixel = (y - frame.least[0]) as usize * frame.pitch + (x - frame.least[1]) as usize;
            (pixel * depth + number % depth) * NUMBER
        };
        let offsets = (0..steps).map(offset).collect();
        Self {
            sampling,
            depth,
            block: rows * width,
            of_map: height.div_ceil(rows),
            offsets,
            frame: Some(frame),
        }
    }

    /// Returns the number of blocks.
    pub(super) fn number(&self) -> usize {
        match self.frame {
            Some(_) => self.sampling.size[0] * self.of_map,
            None => self.sampling.len().div_ceil(self.block),
        }
    }

    /// Returns the first row of a block and its number of rows.
    pub(super) fn rows(&self, number: usize) -> (usize, usize) {
        let (start, first, end) = match self.frame {
            Some(_) => {
                let map = self.sampling.size[1] * self.sampling.size[2];
                (number / self.of_map * map, number % self.of_map * self.block, map)
            }
            None => (0, number * self.block, self.sampling.len()),
        };
        (start + first, self.block.min(end - first))
    }

    /// Returns the words that a block of `count` rows takes.
    pub(super) fn words(&self, count: usize) -> usize {
        match &self.frame {
            // The last step of 16 channels reads one pixel more.
            Some(frame) => {
                let pixels = frame.height(count / self.sampling.size[2]) * frame.pitch + 1;
                (pixels * self.depth / 2).next_multiple_of(ROWS)
            }
            None => count.div_ceil(ROWS) * self.offsets.len() * TILE,
        }
    }

    /// Writes the pixels of `count` rows from row `first` on to `block`.
    pub(super) fn fill(&self, x: &[bf16], (first, count): (usize, usize), block: &mut [f32]) {
        let Self { sampling, depth, .. } = *self;
        assert!(block.len() >= self.words(count));
        let Some(frame) = &self.frame else {
            return dispatch(Copy {
                sampling,
                x,
                depth,
                first,
                count,
                steps: self.offsets.len(),
                tiles: block,
            });
        };
        let ([_, height, width], [read_height, read_width]) = (sampling.size, sampling.read);
        let (image, y) = (first / (height * width), first / width % height);
        // SAFETY: the numbers of the block, two for each word.
        let block =
            unsafe { std::slice::from_raw_parts_mut(block.as_mut_ptr().cast::<bf16>(), 2 * block.len()) };
        let [top, left] = frame.least;
        // The columns of the frame that are in the map.
        let begin = (-left).max(0) as usize;
        let end = (read_width as isize - left).clamp(begin as isize, frame.pitch as isize) as usize;
        let frame_rows = block.chunks_mut(frame.pitch * depth).take(frame.height(count / width));
        for (i, row) in frame_rows.enumerate() {
            let from = y.wrapping_add_signed(top).wrapping_add(i);
            if from < read_height && begin < end {
                let pixel = (image * read_height + from) * read_width + begin.wrapping_add_signed(left);
                row[..begin * depth].fill(bf16::ZERO);
                row[begin * depth..end * depth].copy_from_slice(&x[pixel * depth..][..(end - begin) * depth]);
                row[end * depth..].fill(bf16::ZERO);
            } else {
                row.fill(bf16::ZERO);
            }
        }
        let frame_len = frame.height(count / width) * frame.pitch * depth;
        block[frame_len..].fill(bf16::ZERO);
    }

    /// Iterates over left operands that cover `tiles` tiles of rows for some steps: the operand, its number of
    /// tiles, and the first of them.
    pub(super) fn operands(
        &self,
        block: &[f32],
        tiles: usize,
        steps: Range<usize>,
    ) -> impl Iterator<Item = (Left<'_>, usize, usize)> {
        let start = block.as_ptr().cast::<u8>();
        let of_row = self.sampling.size[2] / ROWS;
        // Tiles of one operand, the bytes from one to the next, from row to row of a tile, and from one operand
        // to the next.
        let (together, tile, row, next) = match &self.frame {
            None => (tiles, self.offsets.len() * TILE_BYTES, LINE, 0),
            Some(frame) => {
                let pixel = self.depth * NUMBER;
                let whole_row = frame.pitch * pixel;
                if of_row == 1 {
                    (tiles, whole_row, pixel, 0)
                } else {
                    (of_row, ROWS * pixel, pixel, whole_row)
                }
            }
        };
        let offsets = &self.offsets[steps];
        (0..tiles / together).map(move |i| {
            let start = start.wrapping_add(i * next);
            (Left { start, tile, row, offsets }, together, i * together)
        })
    }
}

/// Copies the pixels of each tap to left tiles, `[rows / 16][steps]`. Rows of the last tile that there are no
/// pixels for are left as they are: each sum depends on its own row alone.
struct Copy<'a> {
    sampling: &'a Sampling,
    x: &'a [bf16],
    depth: usize,
    first: usize,
    count: usize,
    steps: usize,
    tiles: &'a mut [f32],
}

impl Copy<'_> {
    /// Copies `BYTES` at a time, which must divide a pixel's channels.
    #[inline(always)]
    fn copy<const BYTES: usize>(self) {
        let Self { sampling, x, depth, first, count, steps, tiles } = self;
        let (taps, pixel_bytes) = (sampling.taps.len(), depth * size_of::<bf16>());
        assert!(tiles.len() >= count.div_ceil(ROWS) * steps * TILE);
        assert!((taps * pixel_bytes).div_ceil(LINE) == steps && pixel_bytes.is_multiple_of(BYTES));
        let start = tiles.as_mut_ptr().cast::<u8>();
        for (i, row) in sampling.rows(first).take(count).enumerate() {
            // SAFETY: there are `steps` tiles for each 16 rows, and `depth` channels of each pixel.
            unsafe {
                let to = start.add(i / ROWS * steps * TILE_BYTES + i % ROWS * LINE);
                let mut at = 0;
                for tap in 0..taps {
                    let pixel = sampling.source(row, tap);
                    let from = pixel.map(|pixel| x[pixel * depth..][..depth].as_ptr().cast::<u8>());
                    for byte in (0..pixel_bytes).step_by(BYTES) {
                        let to = to.add(at / LINE * TILE_BYTES + at % LINE);
                        match from {
                            Some(from) => to.copy_from_nonoverlapping(from.add(byte), BYTES),
                            None => to.write_bytes(0, BYTES),
                        }
                        at += BYTES;
                    }
                }
                // The last step may be half full, since channels come in sixteens.
                if at % LINE != 0 {
                    to.add(at / LINE * TILE_BYTES + at % LINE).write_bytes(0, LINE / 2);
                }
            }
        }
    }
}

impl Kernel for Copy<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        if self.depth.is_multiple_of(STEP) { self.copy::<64>() } else { self.copy::<32>() }
    }
}
