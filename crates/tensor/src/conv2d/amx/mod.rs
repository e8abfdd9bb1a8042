//! Convolution of bf16 by the tile products of AMX: `y = x w` over unrolled patches, a block of them at a time.
//!
//! A block of output pixels is copied to left tiles, tap by tap, and multiplied with the weights, which are
//! rounded to bf16 once a pass; sums are f32 and are rounded once. The input gradient is the same product with
//! the taps turned and the channels swapped. For the weight gradient, `xᵀ gy`, pixels are what is summed: the
//! tiles of the output's gradient are made once for some thousand pixels, those of the input for each tap.
//!
//! There are no transforms: a tile product does the work of sixteen vector products, so the additions and the
//! memory of Winograd's algorithm would cost more than it saves, and every error is that of rounding to bf16
//! (2e-3 of the output and the input gradient, 1e-7 of the weight gradient).
//!
//! Source: Intel, "Intel 64 and IA-32 Architectures Software Developer's Manual", volume 1, chapter 18.

#![expect(unsafe_code, reason = "tiles are read and written by address; the buffers are sized beside them")]

mod pack;
mod tiles;

use super::geometry::Geometry;
use super::im2col;
use super::sampling::Sampling;
use super::tiles::PANEL;
use crate::memory::{Aligned, uninitialized, with_scratch};
use crate::simd::{InstructionSet, Kernel, SharedMut, Vector, dispatch, instruction_set};
use crate::team;
use half::bf16;
use pack::Weights;
use tiles::{Left, Right, Tiles};

/// Numbers along a sum that a tile product takes.
const STEP: usize = 32;
/// Words of a tile.
const TILE: usize = 256;
/// Rows of a tile.
const ROWS: usize = 16;

/// Output pixels of one task.
const BLOCK: usize = 128;
/// Steps that are taken at once: two tiles of rows and two of columns then stay in the first-level cache.
const STEPS: usize = 9;

/// Returns whether this path takes the shape: channels in sixteens on both sides, or fewer than 16 of input.
pub(super) fn fits(g: &Geometry) -> bool {
    instruction_set() == InstructionSet::Amx
        && g.co.is_multiple_of(PANEL)
        && (g.ci.is_multiple_of(PANEL) || g.ci < PANEL)
}

/// Returns whether the input gradient takes the shape: it writes the input's channels.
pub(super) fn input_gradient_fits(g: &Geometry) -> bool {
    fits(g) && g.ci.is_multiple_of(PANEL)
}

/// Copies the pixels of a block to left tiles, `[rows / 16][steps]`. Rows of the last tile that there are no
/// pixels for are left as they are: each sum depends on its own row alone.
struct Gather<'a> {
    sampling: &'a Sampling,
    x: &'a [bf16],
    depth: usize,
    first: usize,
    count: usize,
    steps: usize,
    tiles: &'a mut [f32],
}

impl Gather<'_> {
    /// Copies `BYTES` at a time, which must divide a pixel's channels.
    #[inline(always)]
    fn copy<const BYTES: usize>(self) {
        let Self { sampling, x, depth, first, count, steps, tiles } = self;
        let (taps, pixel_bytes) = (sampling.taps.len(), depth * size_of::<bf16>());
        const LINE: usize = STEP * size_of::<bf16>();
        const BYTES_OF_TILE: usize = TILE * size_of::<f32>();
        assert!(tiles.len() >= count.div_ceil(ROWS) * steps * TILE);
        assert!((taps * pixel_bytes).div_ceil(LINE) == steps && pixel_bytes.is_multiple_of(BYTES));
        let start = tiles.as_mut_ptr().cast::<u8>();
        for (i, row) in sampling.rows(first).take(count).enumerate() {
            // SAFETY: there are `steps` tiles for each 16 rows, and `depth` channels of each pixel.
            unsafe {
                let to = start.add(i / ROWS * steps * BYTES_OF_TILE + i % ROWS * LINE);
                let mut at = 0;
                for tap in 0..taps {
                    let pixel = sampling.source(row, tap);
                    let from = pixel.map(|pixel| x[pixel * depth..][..depth].as_ptr().cast::<u8>());
                    for byte in (0..pixel_bytes).step_by(BYTES) {
                        let to = to.add(at / LINE * BYTES_OF_TILE + at % LINE);
                        match from {
                            Some(from) => to.copy_from_nonoverlapping(from.add(byte), BYTES),
                            None => to.write_bytes(0, BYTES),
                        }
                        at += BYTES;
                    }
                }
                // The last step may be half full, since channels come in sixteens.
                if at % LINE != 0 {
                    to.add(at / LINE * BYTES_OF_TILE + at % LINE).write_bytes(0, LINE / 2);
                }
            }
        }
    }
}

impl Kernel for Gather<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        if self.depth.is_multiple_of(STEP) { self.copy::<64>() } else { self.copy::<32>() }
    }
}

/// Rounds the sums of a block, `[rows / 16][columns]` tiles, to the pixels that its rows write.
struct Narrow<'a> {
    sums: &'a [f32],
    columns: usize,
    targets: &'a [usize],
    y: SharedMut<bf16>,
}

impl Kernel for Narrow<'_> {
    const BF16: bool = true;

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { sums, columns, targets, y } = self;
        assert!(sums.len() >= targets.len().div_ceil(ROWS) * columns * TILE);
        for (i, target) in targets.iter().enumerate() {
            for column in 0..columns {
                for lane in (0..PANEL).step_by(V::LANES) {
                    let from = (i / ROWS * columns + column) * TILE + i % ROWS * PANEL + lane;
                    // SAFETY: a row of a tile of sums; each row writes its own pixel.
                    unsafe {
                        V::load(sums.as_ptr().add(from)).store_bf16(y.at(target + column * PANEL + lane));
                    }
                }
            }
        }
    }
}

/// Computes for each row of `sampling` the sum over its taps of the input's channels times the weights.
fn products(sampling: &Sampling, (x, depth): (&[bf16], usize), weights: &Weights, y: SharedMut<bf16>) {
    let (rows, steps, outputs) = (sampling.len(), weights.steps, weights.outputs);
    // At least two tasks for each of a few threads, of whole pairs of tiles.
    let block = rows.div_ceil(8).next_multiple_of(2 * ROWS).min(BLOCK);
    let offsets: Vec<usize> = (0..STEPS).map(|step| step * TILE * size_of::<f32>()).collect();
    team::for_each(rows.div_ceil(block), |number| {
        let first = number * block;
        let count = block.min(rows - first);
        let row_tiles = count.div_ceil(ROWS);
        let targets: Vec<usize> =
            sampling.rows(first).take(count).map(|row| sampling.target(row) * outputs).collect();
        with_scratch((row_tiles * steps + row_tiles * 2) * TILE, |scratch| {
            let (left, sums) = scratch.split_at_mut(row_tiles * steps * TILE);
            dispatch(Gather { sampling, x, depth, first, count, steps, tiles: &mut *left });
            // SAFETY: `fits` has found AMX.
            let tiles = unsafe { Tiles::take() };
            for j in (0..outputs / PANEL).step_by(2) {
                let columns = (outputs / PANEL - j).min(2);
                let (start, column) = weights.columns(j);
                for step in (0..steps).step_by(STEPS) {
                    let offsets = &offsets[..STEPS.min(steps - step)];
                    let (tile, row) = (steps * TILE * size_of::<f32>(), STEP * size_of::<bf16>());
                    // SAFETY: tiles of all rows, columns and steps, and room for the sums.
                    unsafe {
                        let left = Left { start: left.as_ptr().add(step * TILE).cast(), tile, row, offsets };
                        let right = Right { start: start.add(step * TILE * size_of::<f32>()), column };
                        tiles.multiply(left, right, (row_tiles, columns), sums.as_mut_ptr(), step > 0);
                    }
                }
                if steps == 0 {
                    sums.fill(0.0);
                }
                // SAFETY: the panels from `j` on of each pixel.
                let y = SharedMut::from(unsafe { y.at(j * PANEL) });
                dispatch(Narrow { sums: &*sums, columns, targets: &targets, y });
            }
        });
    });
}

/// Returns the convolution of patches instead: a pixel holds a whole patch of few channels, and zeros up to
/// a multiple of 16.
fn unrolled(g: &Geometry, x: &[bf16]) -> (Geometry, Vec<bf16>) {
    let ci = (g.taps() * g.ci).next_multiple_of(PANEL);
    let patches = Geometry { h: g.out_h(), w: g.out_w(), ci, kh: 1, kw: 1, stride: 1, padding: 0, ..*g };
    let mut values = uninitialized(patches.input_len());
    im2col::unroll(g, (x, bf16::ZERO), 0, (&mut values, ci));
    (patches, values)
}

/// Computes `y = conv(x, w)`.
pub(super) fn forward(g: &Geometry, x: &[bf16], w: &[f32], y: &mut [bf16]) {
    if g.ci < PANEL {
        let (patches, x) = unrolled(g, x);
        let mut weights = vec![0.0; patches.weight_len()];
        weights[..w.len()].copy_from_slice(w);
        return forward(&patches, &x, &weights, y);
    }
    assert_eq!((x.len(), w.len(), y.len()), (g.input_len(), g.weight_len(), g.output_len()));
    products(&Sampling::forward(g), (x, g.ci), &pack::weights(w, g.co), SharedMut::new(y));
}

/// Computes `gx`, the gradient of the input.
pub(super) fn input_gradient(g: &Geometry, w: &[f32], gy: &[bf16], gx: &mut [bf16]) {
    assert_eq!((gy.len(), w.len(), gx.len()), (g.output_len(), g.weight_len(), g.input_len()));
    let out = SharedMut::new(gx);
    for sampling in Sampling::input_gradient(g) {
        let weights = pack::turned_weights(g, w, &sampling.taps);
        products(&sampling, (gy, g.co), &weights, out);
    }
}

/// Returns the number of pixels that are summed at once, a multiple of 32: the tiles of the output's gradient
/// stay in the second-level cache. It depends only on the shape, so the sums do not depend on the number of
/// threads.
fn pixels_at_once(g: &Geometry) -> usize {
    let fitting = (1 << 19) / (g.co * size_of::<bf16>());
    fitting.clamp(1024, 8192).min(g.out_rows()).next_multiple_of(STEP)
}

/// Computes `gw`, the gradient of the weights.
pub(super) fn weight_gradient(g: &Geometry, x: &[bf16], gy: &[bf16], gw: &mut [f32]) {
    if g.ci < PANEL {
        let (patches, x) = unrolled(g, x);
        let mut gradient = uninitialized(patches.weight_len());
        weight_gradient(&patches, &x, gy, &mut gradient);
        gw.copy_from_slice(&gradient[..gw.len()]);
        return;
    }
    assert_eq!((x.len(), gy.len(), gw.len()), (g.input_len(), g.output_len(), g.weight_len()));
    let (sampling, rows) = (Sampling::forward(g), g.out_rows());
    let (outputs, inputs, taps) = (g.co / PANEL, g.ci / PANEL, g.taps());
    // The columns of the product are the input's channels in sixteens, for each tap; a task takes some.
    let columns = taps * inputs;
    let together = if outputs == 1 { 4 } else { 2 };
    let chunk = pixels_at_once(g);
    let chunk_steps = chunk / STEP;
    let mut left = Aligned::uninitialized(outputs * chunk_steps * TILE);
    let mut sources = vec![0usize; taps * chunk];
    let mut sums = Aligned::uninitialized(columns * outputs * TILE);
    let zeros = vec![bf16::ZERO; g.ci.max(g.co)];
    let offsets: Vec<usize> = (0..STEPS).map(|step| step * TILE * size_of::<f32>()).collect();
    for first in (0..rows).step_by(chunk) {
        let count = chunk.min(rows - first);
        let steps = count.div_ceil(STEP);
        team::for_each_chunk(&mut left, chunk_steps * TILE, |output, tiles| {
            for (step, tile) in tiles.chunks_exact_mut(TILE).take(steps).enumerate() {
                let pixels = std::array::from_fn(|i| match step * STEP + i {
                    i if i < count => gy[(first + i) * g.co + output * PANEL..][..PANEL].as_ptr(),
                    _ => zeros.as_ptr(),
                });
                // SAFETY: AMX implies AVX-512; 16 channels of each pixel, and a tile.
                unsafe { pack::transpose_pixels(&pixels, tile.as_mut_ptr()) };
            }
        });
        team::for_each_chunk(&mut sources, chunk, |tap, sources| {
            let mut rows = sampling.rows(first).take(count);
            for source in &mut sources[..steps * STEP] {
                *source = match rows.next().and_then(|row| sampling.source(row, tap)) {
                    Some(pixel) => x[pixel * g.ci..][..g.ci].as_ptr() as usize,
                    None => zeros.as_ptr() as usize,
                };
            }
        });
        team::for_each_chunk(&mut sums, together * outputs * TILE, |task, sums| {
            let here = together.min(columns - task * together);
            with_scratch(here * steps * TILE, |right| {
                for (i, tiles) in right.chunks_exact_mut(steps * TILE).enumerate() {
                    let column = task * together + i;
                    let (tap, channel) = (column / inputs, column % inputs * PANEL);
                    let sources = sources[tap * chunk..].chunks_exact(STEP);
                    for (tile, sources) in tiles.chunks_exact_mut(TILE).zip(sources) {
                        let pixels = std::array::from_fn(|i| (sources[i] as *const bf16).wrapping_add(channel));
                        // SAFETY: as above.
                        unsafe { pack::pair_pixels(&pixels, tile.as_mut_ptr()) };
                    }
                }
                // SAFETY: `fits` has found AMX.
                let tiles = unsafe { Tiles::take() };
                for step in (0..steps).step_by(STEPS) {
                    let offsets = &offsets[..STEPS.min(steps - step)];
                    let bytes = |tiles: usize| tiles * TILE * size_of::<f32>();
                    let add = first > 0 || step > 0;
                    // SAFETY: tiles of all outputs, columns and steps, and room for the sums.
                    unsafe {
                        let start = left.as_ptr().add(step * TILE).cast();
                        let left = Left { start, tile: bytes(chunk_steps), row: 64, offsets };
                        let start = right.as_ptr().add(step * TILE).cast();
                        let right = Right { start, column: bytes(steps) };
                        tiles.multiply(left, right, (outputs, here), sums.as_mut_ptr(), add);
                    }
                }
            });
        });
    }
    let gw = SharedMut::new(gw);
    team::for_each(columns, |column| {
        let (task, i) = (column / together, column % together);
        let here = together.min(columns - task * together);
        for output in 0..outputs {
            let tile = task * together * outputs + output * here + i;
            let to = column / inputs * g.ci + column % inputs * PANEL;
            // SAFETY: AMX implies AVX-512; each column of sums has its own 16 rows of the gradient.
            unsafe {
                pack::transpose_sums(sums[tile * TILE..].as_ptr(), gw.at(to * g.co + output * PANEL), g.co);
            }
        }
    });
}

#[cfg(test)]
mod tests;
