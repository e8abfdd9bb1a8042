//! Products whose left operand is copied: the pixels of each tap, of a block of rows.
//!
//! A block is as large as fits into the second-level cache with its sums, since all weights are read for each
//! block. The pixels are copied for some steps at a time, which are then used for all columns. Sums are exact
//! where they are kept in memory meanwhile, so neither the size of a block nor that of a part changes a bit;
//! both may depend on the number of threads.

use super::super::sampling::Sampling;
use super::super::tiles::PANEL;
use super::pack::Weights;
use super::{Narrow, STEPS};
use crate::memory::with_scratch;
use crate::simd::amx::{LINE, Left, ROWS, Right, STEP, TILE, TILE_BYTES, Tiles};
use crate::simd::{Kernel, SharedMut, Vector, dispatch};
use crate::team;
use half::bf16;
use std::ops::Range;

/// Rows of a block.
const BLOCK: usize = 512;
/// Bytes of a block's pixels and sums.
const BLOCK_BYTES: usize = 3 << 19;

/// Computes for each row of `sampling` the sum over its taps of the input's channels times the weights.
pub(super) fn products(
    sampling: &Sampling,
    (x, depth): (&[bf16], usize),
    weights: &Weights,
    y: SharedMut<bf16>,
) {
    let (rows, steps, outputs) = (sampling.len(), weights.steps, weights.outputs);
    let panels = outputs / PANEL;
    // Parts of nearly equal length.
    let part = steps.div_ceil(steps.div_ceil(STEPS).max(1)).max(1);
    let fitting = BLOCK_BYTES / (part * LINE + outputs * size_of::<f32>()) / (2 * ROWS) * 2 * ROWS;
    let of_thread = rows.div_ceil(rayon::current_num_threads()).next_multiple_of(2 * ROWS);
    let block = fitting.clamp(2 * ROWS, BLOCK).min(of_thread);
    let offsets: [usize; STEPS] = std::array::from_fn(|step| step * TILE_BYTES);
    team::for_each(rows.div_ceil(block), |number| {
        let first = number * block;
        let count = block.min(rows - first);
        let row_tiles = count.div_ceil(ROWS);
        with_scratch(row_tiles * (part + panels) * TILE, |scratch| {
            let (left, sums) = scratch.split_at_mut(row_tiles * part * TILE);
            if steps == 0 {
                sums.fill(0.0);
            }
            for start in (0..steps).step_by(part) {
                let steps = start..(start + part).min(steps);
                let offsets = &offsets[..steps.len()];
                dispatch(Copy { sampling, x, depth, first, count, steps, part, tiles: &mut *left });
                // SAFETY: `fits` has found AMX.
                let tiles = unsafe { Tiles::take() };
                for j in (0..panels).step_by(2) {
                    let (columns, right, column) = weights.columns(j);
                    let sums = &mut sums[j * row_tiles * TILE..];
                    // SAFETY: tiles of all rows, columns and steps, and room for the sums.
                    unsafe {
                        let left = Left {
                            start: left.as_ptr().cast(),
                            tile: part * TILE_BYTES,
                            pair: 2 * part * TILE_BYTES,
                            row: LINE,
                            offsets,
                        };
                        let right = Right { start: right.add(start * TILE_BYTES), column };
                        tiles.multiply(left, right, (row_tiles, columns), sums.as_mut_ptr(), start > 0);
                    }
                }
            }
            for j in (0..panels).step_by(2) {
                let columns = (panels - j).min(2);
                let sums = &sums[j * row_tiles * TILE..];
                // SAFETY: the panels from `j` on of each pixel.
                let y = SharedMut::from(unsafe { y.at(j * PANEL) });
                dispatch(Narrow { sums, columns, sampling, first, count, y, outputs });
            }
        });
    });
}

/// Copies some steps of the pixels of each tap to left tiles, `[rows / 16][part]`. Rows of the last tile that
/// there are no pixels for are left as they are: each sum depends on its own row alone.
struct Copy<'a> {
    sampling: &'a Sampling,
    x: &'a [bf16],
    depth: usize,
    first: usize,
    count: usize,
    steps: Range<usize>,
    part: usize,
    tiles: &'a mut [f32],
}

impl Copy<'_> {
    /// Copies `BYTES` at a time, which must divide a pixel's channels.
    #[inline(always)]
    fn copy<const BYTES: usize>(self) {
        let Self { sampling, x, depth, first, count, steps, part, tiles } = self;
        let pixel_bytes = depth * size_of::<bf16>();
        let (begin, end) = (steps.start * LINE, (steps.end * LINE).min(sampling.taps.len() * pixel_bytes));
        assert!(tiles.len() >= count.div_ceil(ROWS) * part * TILE && steps.len() <= part);
        assert!(pixel_bytes.is_multiple_of(BYTES));
        let start = tiles.as_mut_ptr().cast::<u8>();
        // Row `i`, byte `at` of the sum.
        let place = |i: usize, at: usize| {
            start.wrapping_add(
                (i / ROWS * part + (at - begin) / LINE) * TILE_BYTES + i % ROWS * LINE + at % LINE,
            )
        };
        for run in sampling.runs(first, count) {
            let (mut at, mut tap, mut byte) = (begin, begin / pixel_bytes, begin % pixel_bytes);
            while at < end {
                let length = (pixel_bytes - byte).min(end - at);
                let (inside, pixel, step) = sampling.sources(&run, tap);
                for moved in (0..length).step_by(BYTES) {
                    // SAFETY: there are `part` tiles for each 16 rows; pixels inside of the map have `depth`
                    // channels.
                    unsafe {
                        for i in (0..inside.start).chain(inside.end..run.len) {
                            place(run.first + i, at + moved).write_bytes(0, BYTES);
                        }
                        if !inside.is_empty() {
                            assert!((pixel + (inside.len() - 1) * step + 1) * depth <= x.len());
                            let from = x.as_ptr().add(pixel * depth).cast::<u8>().add(byte + moved);
                            for (count, i) in inside.clone().enumerate() {
                                let from = from.add(count * step * pixel_bytes);
                                place(run.first + i, at + moved).copy_from_nonoverlapping(from, BYTES);
                            }
                        }
                    }
                }
                (at, tap, byte) = (at + length, tap + 1, 0);
            }
            // The last step may be half full, since channels come in sixteens.
            if at % LINE != 0 {
                for i in 0..run.len {
                    // SAFETY: the second half of a row of a tile.
                    unsafe { place(run.first + i, at).write_bytes(0, LINE / 2) };
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
