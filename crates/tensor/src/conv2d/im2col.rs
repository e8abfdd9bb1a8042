//! Convolution as a matrix product over unrolled patches: any shape, f32 or f64.
//!
//! This is the slow and general path. It is the f64 reference for the checks of whole networks, and it takes
//! the shapes that the direct kernels do not (channel counts that are not multiples of 16). Images are
//! unrolled a few at a time, so memory stays small.

use super::geometry::Geometry;
use crate::gemm::{self, Element};
use crate::team;

/// The number of unrolled values that are held at once.
const PATCH_BUDGET: usize = 1 << 22;

fn images_at_once(g: &Geometry) -> usize {
    (PATCH_BUDGET / (g.out_h() * g.out_w() * g.taps() * g.ci).max(1)).clamp(1, g.n.max(1))
}

/// Patches of one task of [`unroll`].
const TASK: usize = 256;

/// Copies a row of a patch. That of three pixels of three colors is copied without a call.
#[inline]
fn copy_row<T: Copy>(from: &[T], to: &mut [T]) {
    match (<&[T; 9]>::try_from(from), <&mut [T; 9]>::try_from(&mut *to)) {
        (Ok(from), Ok(to)) => *to = *from,
        _ => to.copy_from_slice(from),
    }
}

/// Writes the patches of the output pixels from `first_row` on, one row of `width` values each: `taps * ci`
/// values, then `zero`s. Values in the padding are `zero`.
pub(crate) fn unroll<T: Copy + Send + Sync>(
    g: &Geometry,
    (x, zero): (&[T], T),
    first_row: usize,
    (columns, width): (&mut [T], usize),
) {
    let (taps, row, depth) = (g.tap_positions(), g.kw * g.ci, g.taps() * g.ci);
    team::for_each_chunk(columns, TASK * width, |task, columns| {
        for (patch, window) in columns.chunks_exact_mut(width).zip(g.windows(first_row + task * TASK)) {
            let (values, rest) = patch.split_at_mut(depth);
            if let Some(from) = g.whole(window) {
                // The rows of a patch lie in rows of the map.
                for (to, from) in values.chunks_exact_mut(row).zip(x[from..].chunks(g.w * g.ci)) {
                    copy_row(&from[..row], to);
                }
            } else {
                for (to, &(ky, kx)) in values.chunks_exact_mut(g.ci).zip(&taps) {
                    match g.source(window, ky, kx) {
                        Some(from) => to.copy_from_slice(&x[from..from + g.ci]),
                        None => to.fill(zero),
                    }
                }
            }
            rest.fill(zero);
        }
    });
}

/// Computes `y = conv(x, w)`.
pub(crate) fn forward<T: Element>(g: &Geometry, x: &[T], w: &[T], y: &mut [T]) {
    let (depth, map) = (g.taps() * g.ci, g.out_h() * g.out_w());
    let rows = images_at_once(g) * map;
    let mut columns = vec![T::ZERO; rows * depth];
    for (i, y) in y.chunks_mut(rows * g.co).enumerate() {
        let m = y.len() / g.co;
        unroll(g, (x, T::ZERO), i * rows, (&mut columns[..m * depth], depth));
        gemm::nn(m, g.co, depth, &columns[..m * depth], w, y);
    }
}

/// Computes `gx`, the gradient of the input.
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
        let images = m / map;
        team::for_each_chunk(&mut gx[first_image * image..][..images * image], image, |j, gx| {
            let columns = &columns[j * map * depth..][..map * depth];
            let windows = g.windows((first_image + j) * map);
            for (patch, window) in columns.chunks(depth).zip(windows) {
                for (tap, (ky, kx)) in g.tap_positions().into_iter().enumerate() {
                    if let Some(to) = g.source(window, ky, kx) {
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

/// Computes `gw`, the gradient of the weights.
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
        unroll(g, (x, T::ZERO), i * rows, (&mut columns[..m * depth], depth));
        gemm::tn(depth, g.co, m, &columns[..m * depth], gy, &mut part);
        for (a, b) in gw.iter_mut().zip(&part) {
            *a += *b;
        }
    }
}
