//! The one-dimensional transforms of Winograd's algorithm, `y = Aᵀ [(G g) * (Bᵀ d)]`; applied to the columns
//! and then to the rows of a tile, they are those of two dimensions.
//!
//! F(m, 3) multiplies polynomials by their values at m + 1 points and at infinity. With the points 0, ±p and
//! ±q:
//!
//! - `Bᵀ` holds the coefficients of `x (x² - p²) (x² - q²)` divided by one of its factors (for infinity, of
//!   the whole), `Aᵀ` the powers of the points, and `G` the same powers divided by the product of a point's
//!   distances to the others.
//! - The points choose the rounding error, not the result. [`Four`] has p = 2/3 and q = 3/2: p q = 1 keeps
//!   all entries within 1/8 and 7/2 (0, ±1 and ±2, the usual points, have 1/24 to 8), so the error is half as
//!   large; and as p² q² = 1, one multiplication less is needed.

use crate::simd::Vector;

/// The points of a transform. Arrays have the larger size; only the first [`Points::TILE`] or
/// [`Points::SIDE`] entries have a meaning.
pub(super) trait Points: Copy + Send + Sync + 'static {
    /// Input pixels on the side of a tile, which is the number of points.
    const TILE: usize;
    /// Output pixels on the side of a tile.
    const SIDE: usize;
    /// Products of a tile of one channel.
    const COUNT: usize = Self::TILE * Self::TILE;
    /// Returns `Bᵀ d`.
    fn input<V: Vector>(d: [V; 6]) -> [V; 6];
    /// Returns `Aᵀ m`.
    fn output<V: Vector>(m: [V; 6]) -> [V; 4];
    /// Returns `A y`.
    fn gradient<V: Vector>(y: [V; 4]) -> [V; 6];
    /// Returns `G g`.
    fn kernel<V: Vector>(g: [V; 3]) -> [V; 6];
    /// Returns `Gᵀ u`.
    fn kernel_gradient<V: Vector>(u: [V; 6]) -> [V; 3];
}

/// F(4, 3) at 0, ±2/3, ±3/2 and infinity: 36 products for the 144 of a 4x4 output tile.
#[derive(Clone, Copy)]
pub(super) struct Four;

/// The points, and their powers.
const P: f32 = 2.0 / 3.0;
const Q: f32 = 3.0 / 2.0;
const P2: f32 = 4.0 / 9.0;
const Q2: f32 = 9.0 / 4.0;
const P3: f32 = 8.0 / 27.0;
const Q3: f32 = 27.0 / 8.0;
/// `p² + q²`.
const SUM: f32 = 97.0 / 36.0;

impl Points for Four {
    const TILE: usize = 6;
    const SIDE: usize = 4;

    #[inline(always)]
    fn input<V: Vector>(d: [V; 6]) -> [V; 6] {
        let less = |from: V, square: f32, x: V| V::splat(-square).mul_add(x, from);
        let (even_p, odd_p) = (less(d[4], Q2, d[2]), less(d[3], Q2, d[1]));
        let (even_q, odd_q) = (less(d[4], P2, d[2]), less(d[3], P2, d[1]));
        [
            less(d[0].add(d[4]), SUM, d[2]),
            V::splat(P).mul_add(odd_p, even_p),
            V::splat(-P).mul_add(odd_p, even_p),
            V::splat(Q).mul_add(odd_q, even_q),
            V::splat(-Q).mul_add(odd_q, even_q),
            less(d[1].add(d[5]), SUM, d[3]),
        ]
    }

    #[inline(always)]
    fn output<V: Vector>(m: [V; 6]) -> [V; 4] {
        let (a, b, c, d) = (m[1].add(m[2]), m[1].sub(m[2]), m[3].add(m[4]), m[3].sub(m[4]));
        [
            m[0].add(a).add(c),
            V::splat(Q).mul_add(d, V::splat(P).mul(b)),
            V::splat(Q2).mul_add(c, V::splat(P2).mul(a)),
            V::splat(Q3).mul_add(d, V::splat(P3).mul_add(b, m[5])),
        ]
    }

    #[inline(always)]
    fn gradient<V: Vector>(y: [V; 4]) -> [V; 6] {
        let plus = |y: V, square: f32, x: V| V::splat(square).mul_add(x, y);
        let (even_p, odd_p) = (plus(y[0], P2, y[2]), plus(y[1], P2, y[3]));
        let (even_q, odd_q) = (plus(y[0], Q2, y[2]), plus(y[1], Q2, y[3]));
        [
            y[0],
            plus(even_p, P, odd_p),
            plus(even_p, -P, odd_p),
            plus(even_q, Q, odd_q),
            plus(even_q, -Q, odd_q),
            y[3],
        ]
    }

    #[inline(always)]
    fn kernel<V: Vector>(g: [V; 3]) -> [V; 6] {
        let high = V::splat(18.0 / 65.0).mul(g[2]);
        let (even_p, odd_p) =
            (V::splat(-81.0 / 130.0).mul_add(g[0], V::zero().sub(high)), V::splat(-27.0 / 65.0).mul(g[1]));
        let (even_q, odd_q) = (V::splat(8.0 / 65.0).mul_add(g[0], high), V::splat(12.0 / 65.0).mul(g[1]));
        [g[0], even_p.add(odd_p), even_p.sub(odd_p), even_q.add(odd_q), even_q.sub(odd_q), g[2]]
    }

    #[inline(always)]
    fn kernel_gradient<V: Vector>(u: [V; 6]) -> [V; 3] {
        let (a, b, c, d) = (u[1].add(u[2]), u[1].sub(u[2]), u[3].add(u[4]), u[3].sub(u[4]));
        [
            V::splat(8.0 / 65.0).mul_add(c, V::splat(-81.0 / 130.0).mul_add(a, u[0])),
            V::splat(12.0 / 65.0).mul_add(d, V::splat(-27.0 / 65.0).mul(b)),
            V::splat(18.0 / 65.0).mul_add(c.sub(a), u[5]),
        ]
    }
}

/// F(2, 3) at 0, ±1 and infinity: 16 products for the 36 of a 2x2 output tile, and a small rounding error,
/// which products of bf16 need.
#[derive(Clone, Copy)]
pub(super) struct Two;

impl Points for Two {
    const TILE: usize = 4;
    const SIDE: usize = 2;

    #[inline(always)]
    fn input<V: Vector>(d: [V; 6]) -> [V; 6] {
        let none = V::zero();
        [d[0].sub(d[2]), d[1].add(d[2]), d[2].sub(d[1]), d[3].sub(d[1]), none, none]
    }

    #[inline(always)]
    fn output<V: Vector>(m: [V; 6]) -> [V; 4] {
        [m[0].add(m[1].add(m[2])), m[1].sub(m[2]).add(m[3]), V::zero(), V::zero()]
    }

    #[inline(always)]
    fn gradient<V: Vector>(y: [V; 4]) -> [V; 6] {
        [y[0], y[0].add(y[1]), y[0].sub(y[1]), y[1], V::zero(), V::zero()]
    }

    #[inline(always)]
    fn kernel<V: Vector>(g: [V; 3]) -> [V; 6] {
        let half = V::splat(0.5);
        let (even, odd) = (half.mul(g[0].add(g[2])), half.mul(g[1]));
        [g[0], even.add(odd), even.sub(odd), g[2], V::zero(), V::zero()]
    }

    #[inline(always)]
    fn kernel_gradient<V: Vector>(u: [V; 6]) -> [V; 3] {
        let half = V::splat(0.5);
        let (even, odd) = (half.mul(u[1].add(u[2])), half.mul(u[1].sub(u[2])));
        [u[0].add(even), odd, u[3].add(even)]
    }
}

#[cfg(test)]
mod tests {
    use super::{Four, Points, Two};
    use crate::simd::{Lanes8, Vector};

    /// The value at the first lane.
    fn first(v: Lanes8) -> f32 {
        let mut lanes = [0.0; 8];
        // SAFETY: eight values.
        unsafe { v.store(lanes.as_mut_ptr()) };
        lanes[0]
    }

    /// One tile in one dimension: the output, the input of its gradient and the gradient of the weights.
    fn check<F: Points>() {
        let d: [f32; 6] = [0.3, -1.1, 0.7, 2.3, -0.4, 0.9];
        let g: [f32; 3] = [0.8, -0.5, 1.7];
        let gy: [f32; 4] = [1.3, -0.2, 0.6, -2.1];
        let transformed = F::input(d.map(Lanes8::splat));
        let kernel = F::kernel(g.map(Lanes8::splat));
        let y = F::output(std::array::from_fn(|i| transformed[i].mul(kernel[i])));
        let gradient = F::gradient(gy.map(Lanes8::splat));
        let gw = F::kernel_gradient(std::array::from_fn(|i| transformed[i].mul(gradient[i])));
        for (i, y) in y.into_iter().enumerate().take(F::SIDE) {
            let want: f32 = (0..3).map(|k| d[i + k] * g[k]).sum();
            assert!((first(y) - want).abs() < 2e-6, "output {i}: {} {want}", first(y));
        }
        for (k, gw) in gw.into_iter().enumerate() {
            let want: f32 = (0..F::SIDE).map(|i| d[i + k] * gy[i]).sum();
            assert!((first(gw) - want).abs() < 2e-6, "weight {k}: {} {want}", first(gw));
        }
    }

    #[test]
    fn a_tile_is_a_convolution() {
        check::<Four>();
        check::<Two>();
    }
}
