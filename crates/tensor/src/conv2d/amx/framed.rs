//! Products whose left operand lies in memory as it is: the map around a block of rows.
//!
//! If neighboring rows read neighboring pixels (stride 1, maps whose width is a multiple of 16), a tile of 16
//! rows lies in the map at a distance that depends on the tap alone. So a block is the part of the map that its
//! rows read, with zeros around it, and tiles are loaded from there. With 16 channels a step takes two
//! neighboring taps; where a row of the kernel has an odd number of taps, its last step also takes the pixel
//! beside it, with weights of zero. So a pixel that is not a number can also reach one more output of its image for
//! each row of the kernel.

use super::super::sampling::Sampling;
use super::super::tiles::PANEL;
use super::Narrow;
use super::pack::Weights;
use crate::memory::with_scratch;
use crate::simd::amx::{LINE, Left, ROWS, Right, STEP, TILE, TILE_BYTES, Tiles};
use crate::simd::{SharedMut, dispatch};
use crate::team;
use half::bf16;
use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};

/// Rows of a block, if a row of the map has no more.
const BLOCK: usize = 256;
/// Steps that are taken at once. More than elsewhere: a frame is smaller than copied tiles, and its tiles
/// overlap.
const STEPS: usize = 18;
/// Blocks of a task: while one is multiplied, the memory of the next one is fetched.
const BLOCKS: usize = 4;

/// The part of a map around a block of its rows.
pub(super) struct Frame {
    /// The least shift in both directions, and how far the largest is from it.
    least: [isize; 2],
    reach: [usize; 2],
    /// Pixels of a row of the frame.
    pitch: usize,
}

impl Frame {
    /// Returns the frame of the sampling, or `None` if its pixels have to be copied for each tap. The shifts
    /// must rise from tap to tap.
    pub(super) fn of(sampling: &Sampling, depth: usize) -> Option<Self> {
        let [_, _, width] = sampling.size;
        let neighbors = sampling.read_step == 1 && sampling.written_step == 1;
        let channels = depth == PANEL || depth.is_multiple_of(STEP);
        if !(neighbors && channels && width.is_multiple_of(ROWS)) {
            return None;
        }
        let shifts = &sampling.shifts;
        let (first, last) = (*shifts.first()?, *shifts.last()?);
        let reach = [0, 1].map(|axis| usize::try_from(last[axis] - first[axis]).ok());
        let reach = [reach[0]?, reach[1]?];
        // All taps of a rectangle, row by row.
        let whole = shifts.len() == (reach[0] + 1) * (reach[1] + 1);
        let rising = shifts.windows(2).all(|pair| pair[0] < pair[1]);
        (whole && rising).then_some(Self { least: first, reach, pitch: width + reach[1] })
    }

    /// Returns whether there is one tap, which reads the pixel that its row writes: then the frame is the map.
    /// With 16 channels a step reads one pixel more.
    fn is_map(&self, depth: usize) -> bool {
        self.reach == [0, 0] && self.least == [0, 0] && depth.is_multiple_of(STEP)
    }

    /// Returns the taps in the order in which they are summed, by their places in the sampling's list; `None`
    /// has weights of zero.
    pub(super) fn taps(&self, depth: usize) -> Vec<Option<usize>> {
        let width = self.reach[1] + 1;
        let padded = if depth == PANEL { width.next_multiple_of(2) } else { width };
        (0..=self.reach[0])
            .flat_map(|y| (0..padded).map(move |x| (x < width).then_some(y * width + x)))
            .collect()
    }

    /// Returns where the tile of each step begins in the frame, in bytes.
    fn offsets(&self, depth: usize) -> Vec<usize> {
        let taps = self.taps(depth);
        let width = self.reach[1] + 1;
        let offset = |step: usize| {
            let number = step * STEP;
            let tap = taps[number / depth].expect("a step begins with a tap");
            let pixel = tap / width * self.pitch + tap % width;
            (pixel * depth + number % depth) * size_of::<bf16>()
        };
        (0..(taps.len() * depth).div_ceil(STEP)).map(offset).collect()
    }

    /// Writes the frame of `count` rows from row `first` on.
    fn fill(
        &self,
        sampling: &Sampling,
        (x, depth): (&[bf16], usize),
        (first, count): (usize, usize),
        frame: &mut [bf16],
    ) {
        let ([_, height, width], [read_height, read_width]) = (sampling.size, sampling.read);
        let (image, y) = (first / (height * width), first / width % height);
        let [top, left] = self.least;
        // The columns of the frame that are in the map.
        let begin = (-left).max(0) as usize;
        let end = (read_width as isize - left).clamp(begin as isize, self.pitch as isize) as usize;
        let rows = count / width + self.reach[0];
        let (inside, rest) = frame.split_at_mut(rows * self.pitch * depth);
        for (i, row) in inside.chunks_exact_mut(self.pitch * depth).enumerate() {
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
        rest.fill(bf16::ZERO);
    }
}

/// Computes for each row of `sampling` the sum over its taps of the input's channels times the weights.
pub(super) fn products(
    frame: &Frame,
    sampling: &Sampling,
    (x, depth): (&[bf16], usize),
    weights: &Weights,
    y: SharedMut<bf16>,
) {
    let ([images, height, width], outputs) = (sampling.size, weights.outputs);
    let offsets = frame.offsets(depth);
    let block_height = (BLOCK / width).clamp(1, height);
    let of_map = height.div_ceil(block_height);
    // The first row of a block, and its number of rows.
    let block = |number: usize| {
        let top = number % of_map * block_height;
        ((number / of_map * height + top) * width, block_height.min(height - top) * width)
    };
    let product = |(first, count): (usize, usize), next: Option<(usize, usize)>| {
        let row_tiles = count / ROWS;
        // The last step of 16 channels reads one pixel more.
        let pixels = (count / width + frame.reach[0]) * frame.pitch + 1;
        // Sums begin on a cache line.
        let frame_words = if frame.is_map(depth) {
            0
        } else {
            (pixels * depth / 2).next_multiple_of(LINE / size_of::<f32>())
        };
        with_scratch(frame_words + row_tiles * 2 * TILE, |scratch| {
            let (words, sums) = scratch.split_at_mut(frame_words);
            let start = if frame.is_map(depth) {
                x[first * depth..][..count * depth].as_ptr().cast::<u8>()
            } else {
                let len = 2 * words.len();
                // SAFETY: two numbers for each word, of the same memory, for as long.
                let numbers = unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), len) };
                frame.fill(sampling, (x, depth), (first, count), numbers);
                words.as_ptr().cast()
            };
            // The bytes from row to row of a tile, and from row to row of the frame.
            let (pixel, line) = (depth * size_of::<bf16>(), frame.pitch * depth * size_of::<bf16>());
            // A left operand is a row of the map, or, where a row is one tile or two, all rows.
            let (together, tile, pair) = match width / ROWS {
                1 => (row_tiles, line, 2 * line),
                2 => (row_tiles, ROWS * pixel, line),
                of_row => (of_row, ROWS * pixel, 2 * ROWS * pixel),
            };
            // SAFETY: `fits` has found AMX.
            let tiles = unsafe { Tiles::take() };
            let turns = outputs.div_ceil(2 * PANEL);
            for j in (0..outputs / PANEL).step_by(2) {
                if let Some((first, count)) = next {
                    // What the next block reads beyond this one, and what it writes.
                    let below = (first + frame.reach[0] * width) * depth;
                    fetch(x.as_ptr().wrapping_add(below), count * depth, (j / 2, turns));
                    fetch(y.pointer().wrapping_add(first * outputs), count * outputs, (j / 2, turns));
                }
                let (columns, packed, column) = weights.columns(j);
                for (part, offsets) in offsets.chunks(STEPS).enumerate() {
                    let right = Right { start: packed.wrapping_add(part * STEPS * TILE_BYTES), column };
                    for (i, sums) in sums
                        .chunks_exact_mut(together * columns * TILE)
                        .take(row_tiles / together)
                        .enumerate()
                    {
                        let start = start.wrapping_add(i * line);
                        let left = Left { start, tile, pair, row: pixel, offsets };
                        // SAFETY: the frame holds the pixels of all rows and taps, the weights those of all
                        // columns and steps, and there is room for the sums.
                        unsafe {
                            tiles.multiply(left, right, (together, columns), sums.as_mut_ptr(), part > 0);
                        }
                    }
                }
                // SAFETY: the panels from `j` on of each pixel.
                let y = SharedMut::from(unsafe { y.at(j * PANEL) });
                dispatch(Narrow { sums: &*sums, columns, sampling, first, count, y, outputs });
            }
        });
    };
    let blocks = images * of_map;
    team::for_each(blocks.div_ceil(BLOCKS), |task| {
        for number in task * BLOCKS..blocks.min((task + 1) * BLOCKS) {
            let next = (number + 1 < blocks.min((task + 1) * BLOCKS)).then(|| block(number + 1));
            product(block(number), next);
        }
    });
}

/// Fetches one of some equal parts of memory into the second-level cache. Nothing is read, so the memory may
/// end before.
fn fetch(start: *const bf16, len: usize, (part, parts): (usize, usize)) {
    let lines = len / STEP;
    for line in lines * part / parts..lines * (part + 1) / parts {
        // SAFETY: an address that cannot be read is ignored.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(start.wrapping_add(line * STEP).cast()) };
    }
}
