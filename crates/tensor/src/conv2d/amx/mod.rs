//! Convolution of bf16 by the products of tiles that processors with AMX have.
//!
//! Equations: the forward pass is the matrix product of patches (rows: output pixels; columns: input channels of
//! each tap) and weights; the input gradient is the same product with the taps turned and the channels swapped;
//! the weight gradient is `xᵀ gy`, summed over pixels. Weights are rounded to bf16 once a pass, sums are f32,
//! and maps are rounded once. A product of tiles does the work of 512 vector instructions in the time of 16 (16
//! x 16 sums of 32 products each), so the additions and the memory of Winograd's algorithm would cost more than
//! they save; and every error is that of rounding to bf16: 2e-3 of the output and the input gradient, 1e-7 of
//! the weight gradient.
//!
//! What costs time is to bring pixels into tiles. `framed` loads tiles from where the pixels lie, `copied`
//! copies them, and `weight_gradient` has both ways again.
//!
//! Every sum is taken in one order that depends on the shape alone, so the bits do not depend on the number of
//! threads. Factors and sums below f32's smallest normal number (1.2e-38) count as zero.
//!
//! Source: Intel, "Intel 64 and IA-32 Architectures Software Developer's Manual", volume 1, chapter 18.

#![expect(unsafe_code, reason = "tiles are read and written by address; the buffers are sized beside them")]

mod copied;
mod framed;
mod pack;
#[cfg(test)]
mod tests;
mod weight_gradient;

use super::geometry::Geometry;
use super::im2col;
use super::sampling::Sampling;
use super::tiles::PANEL;
use crate::memory::uninitialized;
use crate::simd::amx::{ROWS, STEP, TILE};
use crate::simd::{InstructionSet, Kernel, SharedMut, Vector, instruction_set};
use framed::Frame;
use half::bf16;
pub(super) use weight_gradient::weight_gradient;

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

/// Rounds the sums of a block, `[rows / 16][columns]` tiles, to the pixels that its rows write.
struct Narrow<'a> {
    sums: &'a [f32],
    columns: usize,
    /// The rows: those of a sampling from `first` on.
    sampling: &'a Sampling,
    first: usize,
    count: usize,
    y: SharedMut<bf16>,
    outputs: usize,
}

impl Kernel for Narrow<'_> {
    const BF16: bool = true;

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { sums, columns, sampling, first, count, y, outputs } = self;
        assert!(sums.len() >= count.div_ceil(ROWS) * columns * TILE);
        for run in sampling.runs(first, count) {
            let (target, step) = sampling.targets(&run);
            for i in 0..run.len {
                let (row, target) = (run.first + i, target + i * step);
                for column in 0..columns {
                    for lane in (0..PANEL).step_by(V::LANES) {
                        let from = (row / ROWS * columns + column) * TILE + row % ROWS * PANEL + lane;
                        // SAFETY: a row of a tile of sums; each row writes its own pixel.
                        unsafe {
                            let to = y.at(target * outputs + column * PANEL + lane);
                            V::load(sums.as_ptr().add(from)).store_bf16(to);
                        }
                    }
                }
            }
        }
    }
}

/// Returns the convolution of patches instead: a pixel holds a whole patch of few channels, and zeros up to
/// a multiple of 32.
fn unrolled(g: &Geometry, x: &[bf16]) -> (Geometry, Vec<bf16>) {
    let ci = (g.taps() * g.ci).next_multiple_of(STEP);
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
    let (sampling, y) = (Sampling::forward(g), SharedMut::new(y));
    match Frame::of(&sampling, g.ci) {
        Some(frame) => {
            let weights = pack::weights(g, w, &frame.taps(g.ci));
            framed::products(&frame, &sampling, (x, g.ci), &weights, y);
        }
        None => {
            let taps: Vec<_> = (0..g.taps()).map(Some).collect();
            copied::products(&sampling, (x, g.ci), &pack::weights(g, w, &taps), y);
        }
    }
}

/// Computes `gx`, the gradient of the input.
pub(super) fn input_gradient(g: &Geometry, w: &[f32], gy: &[bf16], gx: &mut [bf16]) {
    assert_eq!((gy.len(), w.len(), gx.len()), (g.output_len(), g.weight_len(), g.input_len()));
    let gx = SharedMut::new(gx);
    for mut sampling in Sampling::input_gradient(g) {
        // The shifts rise in the order of the turned taps.
        sampling.reverse_taps();
        let weights = |order: &[Option<usize>]| {
            let taps: Vec<_> = order.iter().map(|tap| tap.map(|tap| sampling.taps[tap])).collect();
            pack::turned_weights(g, w, &taps)
        };
        match Frame::of(&sampling, g.co) {
            Some(frame) => {
                let weights = weights(&frame.taps(g.co));
                framed::products(&frame, &sampling, (gy, g.co), &weights, gx);
            }
            None => {
                let order: Vec<_> = (0..sampling.taps.len()).map(Some).collect();
                copied::products(&sampling, (gy, g.co), &weights(&order), gx);
            }
        }
    }
}
