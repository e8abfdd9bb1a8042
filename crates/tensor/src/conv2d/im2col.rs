//! Convolution as a matrix product over unrolled patches: any shape, f32 or f64.
//!
//! The slow and general path. It is the f64 reference of the whole-network checks and takes the shapes that the direct kernels
//! leave out (channel counts that are no multiple of 16). Images are unrolled a few at a time, so memory stays small.

use super::geometry::Geometry;
use crate::gemm::{self, Element};
use rayon::prelude::*;

/// Unrolled values held at once.
const PATCH_BUDGET: usize = 1 << 22;

fn images_at_once(g: &Geometry) -> usize {
    (PATCH_BUDGET / (g.out_h() * g.out_w() * g.taps() * g.ci).max(1)).clamp(1, g.n.max(1))
}

/// The patches of the output pixels `rows`, one row of `taps * ci` values each, zero in the padding.
pub(crate) fn unroll<T: Element>(g: &Geometry, x: &[T], first_row: usize, columns: &mut [T], width: usize) {
    let depth = g.taps() * g.ci;
    columns.par_chunks_mut(width).enumerate().for_each(|(i, patch)| {
        for tap in 0..g.taps() {
            let to = &mut patch[tap * g.ci..(tap + 1) * g.ci];
            match g.source(first_row + i, tap) {
                Some(from) => to.copy_from_slice(&x[from..from + g.ci]),
                None => to.fill(T::ZERO),
            }
        }
        patch[depth..].fill(T::ZERO);
    });
}

/// `y = conv(x, w)`.
pub(crate) fn forward<T: Element>(g: &Geometry, x: &[T], w: &[T], y: &mut [T]) {
    let (depth, map) = (g.taps() * g.ci, g.out_h() * g.out_w());
    let rows = images_at_once(g) * map;
    let mut columns = vec![T::ZERO; rows * depth];
    for (i, y) in y.chunks_mut(rows * g.co).enumerate() {
        let m = y.len() / g.co;
        unroll(g, x, i * rows, &mut columns[..m * depth], depth);
        gemm::nn(m, g.co, depth, &columns[..m * depth], w, y);
    }
}

/// `gx`, the gradient of the input.
pub(crate) fn input_gradient<T: Element + std::ops::AddAssign>(
    g: &Geometry,
    w: &[T],
    gy: &[T],
    gx: &mut [T],
) {
    let (depth, map) = (g.taps() * g.ci, g.out_h() * g.out_w());
    gx.fill(T::ZERO);
    let rows = images_at_once(g) * map;
    let mut columns = vec![T::ZERO; rows * depth];
    for (i, gy) in gy.chunks(rows * g.co).enumerate() {
        let m = gy.len() / g.co;
        let columns = &mut columns[..m * depth];
        gemm::nt(m, depth, g.co, gy, w, columns);
        let image = g.h * g.w * g.ci;
        let first_image = i * rows / map;
        gx[first_image * image..]
            .par_chunks_mut(image)
            .zip(columns.par_chunks(map * depth))
            .enumerate()
            .for_each(|(j, (gx, columns))| {
                for (p, patch) in columns.chunks(depth).enumerate() {
                    for tap in 0..g.taps() {
                        if let Some(to) = g.source((first_image + j) * map + p, tap) {
                            let to = to - (first_image + j) * image;
                            for (a, b) in gx[to..to + g.ci].iter_mut().zip(&patch[tap * g.ci..]) {
                                *a += *b;
                            }
                        }
                    }
                }
            });
    }
}

/// `gw`, the gradient of the weights.
pub(crate) fn weight_gradient<T: Element + std::ops::AddAssign>(
    g: &Geometry,
    x: &[T],
    gy: &[T],
    gw: &mut [T],
) {
    let (depth, map) = (g.taps() * g.ci, g.out_h() * g.out_w());
    gw.fill(T::ZERO);
    let rows = images_at_once(g) * map;
    let mut columns = vec![T::ZERO; rows * depth];
    let mut part = vec![T::ZERO; gw.len()];
    for (i, gy) in gy.chunks(rows * g.co).enumerate() {
        let m = gy.len() / g.co;
        unroll(g, x, i * rows, &mut columns[..m * depth], depth);
        gemm::tn(depth, g.co, m, &columns[..m * depth], gy, &mut part);
        for (a, b) in gw.iter_mut().zip(&part) {
            *a += *b;
        }
    }
}
