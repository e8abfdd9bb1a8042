//! Winograd's F(4x4, 3x3): a 3x3 convolution of stride 1 with 36 instead of 144 products per 4x4 output tile.
//!
//! Equation (Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016): with the input
//! tile d (6x6), the kernel g (3x3) and matrices B (6x6), G (6x3), A (6x4), one output tile is `Y = Aᵀ [ (G g
//! Gᵀ) * (Bᵀ d B) ] A`, where `*` is the product element by element, summed over input channels. That is 36
//! matrix products of tiles by channels. The input gradient is the same convolution with the kernel turned by
//! 180 degrees and its channels swapped; the weight gradient is `Gᵀ [ sum over tiles (Bᵀ d B) * (A dY Aᵀ) ]
//! G`. The matrices follow from six points; the paper's are 0, ±1, ±2 and infinity, ours (`points`) have half
//! of their rounding error.
//!
//! With activations in bf16 on a processor that multiplies pairs of bf16 (`tiles::Pairs`), transformed values
//! are rounded to bf16. Then forward passes are F(2x2, 3x3), which has 16 products for a 2x2 tile: an error
//! of the activations closes and opens ReLUs, so it weighs more than one of the gradients, whose tiles stay
//! 4x4. Elsewhere products are of f32, and only the activations in memory are bf16.
//!
//! Where the sides of a map are not multiples of 4, tiles extend beyond it: pixels outside read as zero and
//! are not written. The rounding error is still a few times that of a direct convolution, so Winograd can be
//! turned off.
//!
//! Where the equation gives NaN or an infinity, this algorithm gives NaN or an infinity too, never a finite
//! number. It may also make the other outputs of the same tile NaN (for the weight gradient: all nine weights
//! of the same two channels). NaN stays within its image and its channels, which the next batch norm or
//! average would make NaN in any case.

#![expect(
    unsafe_code,
    reason = "tiles are addressed by pointer; every load and store is checked against the map"
)]

mod convolve;
mod kernel;
mod map;
mod points;
mod transform;
mod weight_gradient;

use super::geometry::Geometry;
use super::tiles::{PANEL, Pairs, Single};
use crate::simd::{Number, instruction_set};
use points::{Four, Two};

/// The number of tiles that one task transforms if other tasks use the result.
const TASK: usize = 16;
/// Output channels whose products are taken together: two panels.
const SLAB: usize = 2 * PANEL;

/// Returns whether this path takes the shape: 3x3, stride 1, padding 1, channels in whole panels.
pub(crate) fn fits(g: &Geometry) -> bool {
    (g.kh, g.kw, g.stride, g.padding) == (3, 3, 1, 1)
        && g.ci.is_multiple_of(PANEL)
        && g.co.is_multiple_of(PANEL)
}

/// Returns whether products of these activations are taken in bf16: where the processor has an instruction
/// for them. Made of other instructions, they would be slower than products of f32.
fn in_pairs<X: Number>() -> bool {
    X::HALF && instruction_set().has_bf16()
}

/// Computes `y = conv(x, w)`.
pub(crate) fn forward<X: Number>(g: &Geometry, x: &[X], w: &[f32], y: &mut [X]) {
    if in_pairs::<X>() {
        return convolve::forward::<X, Pairs, Two>(g, x, w, y);
    }
    convolve::forward::<X, Single, Four>(g, x, w, y);
}

/// Computes `gx`, the gradient of the input.
pub(crate) fn input_gradient<X: Number>(g: &Geometry, w: &[f32], gy: &[X], gx: &mut [X]) {
    if in_pairs::<X>() {
        return convolve::input_gradient::<X, Pairs, Four>(g, w, gy, gx);
    }
    convolve::input_gradient::<X, Single, Four>(g, w, gy, gx);
}

/// Computes `gw`, the gradient of the weights.
pub(crate) fn weight_gradient<X: Number>(g: &Geometry, x: &[X], gy: &[X], gw: &mut [f32]) {
    if in_pairs::<X>() {
        return weight_gradient::weight_gradient::<X, Pairs, Four>(g, x, gy, gw);
    }
    weight_gradient::weight_gradient::<X, Single, Four>(g, x, gy, gw);
}

#[cfg(test)]
mod tests;
