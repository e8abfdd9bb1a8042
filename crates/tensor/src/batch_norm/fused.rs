//! Batch norm (+ residual) (+ ReLU) in two passes over the data forward and two backward.
//!
//! Rows are cut into blocks of a size that depends on the channel count alone. Each block is summed in f32,
//! and the blocks' sums are added in f64 in their order, so the sums are the same on any number of threads.
//! The variance is computed from the values minus the first row, so that no digits are lost to a large mean.
//!
//! Maps are f32 or bf16; sums are taken of the numbers as they are stored, in f32.
//!
//! A NaN or an infinity in a channel makes the whole channel NaN, as in the equations; the ReLU and its
//! gradient keep NaN.

#![expect(unsafe_code, reason = "vector loads and stores, each at a checked row and channel")]

use super::{Affine, Ran, Statistics, plain};
use crate::simd::{Kernel, Number, SharedMut, Vector, dispatch};
use crate::storage::Scalar;
use crate::team;

/// Returns whether the kernels take this number of channels.
pub(crate) fn fits(channels: usize) -> bool {
    channels.is_multiple_of(16)
}

fn block_len(channels: usize) -> usize {
    (8192 / channels).max(16) * channels
}

/// Two sums for each channel, over one block.
type Sums = (Vec<f32>, Vec<f32>);

/// Adds the blocks' sums in their order.
fn add_up(blocks: Vec<Sums>, channels: usize) -> (Vec<f64>, Vec<f64>) {
    let mut total = (vec![0.0; channels], vec![0.0; channels]);
    for (first, second) in blocks {
        for c in 0..channels {
            total.0[c] += f64::from(first[c]);
            total.1[c] += f64::from(second[c]);
        }
    }
    total
}

struct Moments<'a, X> {
    x: &'a [X],
    origin: &'a [X],
    sums: &'a mut Sums,
}

impl<X: Number> Kernel for Moments<'_, X> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let channels = self.origin.len();
        let rows = self.x.len() / channels;
        for c in (0..channels).step_by(V::LANES) {
            // SAFETY: c + LANES <= channels, as channels is a multiple of 16, and every row is inside x.
            unsafe {
                let origin: V = X::load(self.origin.as_ptr().add(c));
                let (mut sum, mut square) = (V::zero(), V::zero());
                for r in 0..rows {
                    let x = X::load::<V>(self.x.as_ptr().add(r * channels + c)).sub(origin);
                    sum = sum.add(x);
                    square = x.mul_add(x, square);
                }
                sum.store(self.sums.0.as_mut_ptr().add(c));
                square.store(self.sums.1.as_mut_ptr().add(c));
            }
        }
    }
}

/// Returns the mean and the biased variance of each channel of `x` (rows, channels). Where squares overflow
/// f32, or a value is not finite, the plain equations compute the statistics: a variance of infinity would
/// make every output `beta`.
pub(crate) fn statistics<X: Number + Scalar>(x: &[X], channels: usize) -> Statistics {
    let origin = &x[..channels];
    let block = block_len(channels);
    let blocks = team::map(x.len().div_ceil(block), |i| {
        let mut sums = (vec![0.0; channels], vec![0.0; channels]);
        dispatch(Moments { x: &x[i * block..x.len().min((i + 1) * block)], origin, sums: &mut sums });
        sums
    });
    let rows = (x.len() / channels) as f64;
    let (sum, square) = add_up(blocks, channels);
    if sum.iter().chain(&square).any(|s| !s.is_finite()) {
        return plain::statistics(x, channels);
    }
    let mean = sum.iter().zip(origin).map(|(s, o)| s / rows + o.read()).collect();
    let variance = sum.iter().zip(&square).map(|(s, q)| (q / rows - (s / rows).powi(2)).max(0.0)).collect();
    Statistics { mean, variance }
}

struct Apply<'a, X> {
    x: &'a [X],
    residual: Option<&'a [X]>,
    mean: &'a [f32],
    scale: &'a [f32],
    shift: &'a [f32],
    relu: bool,
    y: &'a mut [X],
}

impl<X: Number> Kernel for Apply<'_, X> {
    const BF16: bool = X::HALF;

    #[inline(always)]
    fn run<V: Vector>(self) {
        let channels = self.scale.len();
        // Without a ReLU the floor is minus infinity, which keeps every value. The floor comes first, or
        // `max` would return it for a NaN.
        let floor = V::splat(if self.relu { 0.0 } else { f32::NEG_INFINITY });
        for c in (0..channels).step_by(V::LANES) {
            // SAFETY: as in `Moments`; x, residual and y have equal lengths.
            unsafe {
                let (mean, scale, shift) = (
                    V::load(self.mean.as_ptr().add(c)),
                    V::load(self.scale.as_ptr().add(c)),
                    V::load(self.shift.as_ptr().add(c)),
                );
                // The mean is subtracted first. If it were part of the shift, digits would be lost to a large
                // mean.
                for at in (c..self.x.len()).step_by(channels) {
                    let mut value = X::load::<V>(self.x.as_ptr().add(at)).sub(mean).mul_add(scale, shift);
                    if let Some(residual) = self.residual {
                        value = value.add(X::load(residual.as_ptr().add(at)));
                    }
                    X::store(floor.max(value), self.y.as_mut_ptr().add(at));
                }
            }
        }
    }
}

/// Computes `y = relu?(scale (x - mean) + shift (+ residual))`.
pub(crate) fn apply<X: Number>(x: &[X], residual: Option<&[X]>, affine: &Affine, relu: bool, y: &mut [X]) {
    let channels = affine.scale.len();
    let block = block_len(channels);
    assert!(residual.is_none_or(|r| r.len() == x.len()) && y.len() == x.len());
    let [mean, scale, shift] = affine.narrow();
    team::for_each_chunk(y, block, |i, y| {
        let range = i * block..i * block + y.len();
        dispatch(Apply {
            x: &x[range.clone()],
            residual: residual.map(|r| &r[range]),
            mean: &mean,
            scale: &scale,
            shift: &shift,
            relu,
            y,
        });
    });
}

/// Says which gradients pass the ReLU.
#[derive(Clone, Copy)]
enum Gate<'a, X> {
    /// All gradients pass: there is no ReLU.
    Open,
    /// All pass but those of outputs that are at most zero.
    Output(&'a [X]),
    /// The same without a residual: the output is recomputed from the input, by the same instructions as in
    /// the forward pass. This reads less memory.
    Input { scale: &'a [f32], shift: &'a [f32] },
}

/// The values of a block in the backward pass: the input, the output's gradient, and what gates it.
#[derive(Clone, Copy)]
struct Flow<'a, X> {
    x: &'a [X],
    gy: &'a [X],
    gate: Gate<'a, X>,
    mean: &'a [f32],
}

/// The work on each vector of the backward pass. This is a trait, not a closure: it must be inlined to be
/// compiled with wide instructions.
trait Visit<V: Vector> {
    /// # Safety
    /// `at + LANES` must lie inside the block.
    unsafe fn visit(&mut self, at: usize, gradient: V, centered: V);
}

impl<X: Number> Flow<'_, X> {
    /// Visits the vector at channel `c` of each row, with its offset, the gated gradient, and the input minus
    /// its mean.
    ///
    /// # Safety
    /// `c + LANES` must not exceed the channels, and all slices must hold the same number of whole rows.
    #[inline(always)]
    unsafe fn for_each_row<V: Vector>(&self, c: usize, visitor: &mut impl Visit<V>) {
        let channels = self.mean.len();
        let offsets = (c..self.x.len()).step_by(channels);
        // SAFETY: the caller guarantees it.
        unsafe {
            let (x, gy) = (self.x.as_ptr(), self.gy.as_ptr());
            let mean = V::load(self.mean.as_ptr().add(c));
            match self.gate {
                Gate::Open => {
                    for at in offsets {
                        visitor.visit(at, X::load::<V>(gy.add(at)), X::load::<V>(x.add(at)).sub(mean));
                    }
                }
                Gate::Output(y) => {
                    for at in offsets {
                        let gradient = X::load::<V>(gy.add(at)).through_relu(X::load(y.as_ptr().add(at)));
                        visitor.visit(at, gradient, X::load::<V>(x.add(at)).sub(mean));
                    }
                }
                Gate::Input { scale, shift } => {
                    let (scale, shift) = (V::load(scale.as_ptr().add(c)), V::load(shift.as_ptr().add(c)));
                    for at in offsets {
                        let centered = X::load::<V>(x.add(at)).sub(mean);
                        let gradient = X::load::<V>(gy.add(at)).through_relu(centered.mul_add(scale, shift));
                        visitor.visit(at, gradient, centered);
                    }
                }
            }
        }
    }
}

/// Sums of the gradients, and of the gradients times the centered inputs.
struct TwoSums<V> {
    plain: V,
    weighted: V,
}

impl<V: Vector> Visit<V> for TwoSums<V> {
    #[inline(always)]
    unsafe fn visit(&mut self, _: usize, gradient: V, centered: V) {
        self.plain = self.plain.add(gradient);
        self.weighted = gradient.mul_add(centered, self.weighted);
    }
}

struct GradientSums<'a, X> {
    flow: Flow<'a, X>,
    sums: &'a mut Sums,
}

impl<X: Number> Kernel for GradientSums<'_, X> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        for c in (0..self.flow.mean.len()).step_by(V::LANES) {
            let mut sums = TwoSums { plain: V::zero(), weighted: V::zero() };
            // SAFETY: as in `Moments`.
            unsafe {
                self.flow.for_each_row(c, &mut sums);
                sums.plain.store(self.sums.0.as_mut_ptr().add(c));
                sums.weighted.store(self.sums.1.as_mut_ptr().add(c));
            }
        }
    }
}

/// Writes the input's gradient, and the residual's if there is one.
struct WriteBack<V, X> {
    of_gradient: V,
    of_input: V,
    constant: V,
    gx: *mut X,
    residual_gradient: Option<*mut X>,
}

impl<V: Vector, X: Number> Visit<V> for WriteBack<V, X> {
    #[inline(always)]
    unsafe fn visit(&mut self, at: usize, gradient: V, centered: V) {
        // SAFETY: both pointers are to blocks as long as the visited one.
        unsafe {
            if let Some(to) = self.residual_gradient {
                X::store(gradient, to.add(at));
            }
            let rest = centered.mul_add(self.of_input, self.constant);
            X::store(gradient.mul_add(self.of_gradient, rest), self.gx.add(at));
        }
    }
}

struct ApplyGradient<'a, X> {
    flow: Flow<'a, X>,
    /// `gx = of_gradient g + of_input (x - mean) + constant`.
    of_gradient: &'a [f32],
    of_input: &'a [f32],
    constant: &'a [f32],
    gx: &'a mut [X],
    residual_gradient: Option<*mut X>,
}

impl<X: Number> Kernel for ApplyGradient<'_, X> {
    const BF16: bool = X::HALF;

    #[inline(always)]
    fn run<V: Vector>(self) {
        let gx = self.gx.as_mut_ptr();
        for c in (0..self.constant.len()).step_by(V::LANES) {
            // SAFETY: as in `Moments`; the residual's gradient is as long as gx.
            unsafe {
                let mut write = WriteBack {
                    of_gradient: V::load(self.of_gradient.as_ptr().add(c)),
                    of_input: V::load(self.of_input.as_ptr().add(c)),
                    constant: V::load(self.constant.as_ptr().add(c)),
                    gx,
                    residual_gradient: self.residual_gradient,
                };
                self.flow.for_each_row(c, &mut write);
            }
        }
    }
}

/// Returns the gradients of gamma and beta; fills `gx` and, if there is a residual, its gradient.
pub(crate) fn backward<X: Number>(
    (x, y, gy): (&[X], &[X], &[X]),
    ran: &Ran<'_>,
    gx: &mut [X],
    residual_gradient: Option<&mut [X]>,
) -> (Vec<f64>, Vec<f64>) {
    let Ran { gamma, beta, statistics, eps, relu, with_residual } = *ran;
    let channels = gamma.len();
    let rows = (x.len() / channels) as f64;
    let block = block_len(channels);
    assert!(y.len() == x.len() && gy.len() == x.len() && gx.len() == x.len());
    let affine = Affine::new(gamma, beta, statistics, eps);
    let [mean, scale, shift] = affine.narrow();
    let flow = |i: usize, len: usize| {
        let range = i * block..i * block + len;
        let gate = match (relu, with_residual) {
            (false, _) => Gate::Open,
            (true, true) => Gate::Output(&y[range.clone()]),
            (true, false) => Gate::Input { scale: &scale, shift: &shift },
        };
        Flow { x: &x[range.clone()], gy: &gy[range], gate, mean: &mean }
    };
    let blocks = team::map(x.len().div_ceil(block), |i| {
        let mut sums = (vec![0.0; channels], vec![0.0; channels]);
        dispatch(GradientSums { flow: flow(i, block.min(x.len() - i * block)), sums: &mut sums });
        sums
    });
    let (grad_beta, weighted) = add_up(blocks, channels);

    // gx = gamma rstd (g - mean(g) - (x - mean) rstd² mean(g (x - mean))), rearranged as a sum of three
    // products.
    let rstd: Vec<f64> = statistics.variance.iter().map(|v| 1.0 / (v + eps).sqrt()).collect();
    let grad_gamma = weighted.iter().zip(&rstd).map(|(w, r)| w * r).collect();
    let mut of_gradient = vec![0.0; channels];
    let mut of_input = vec![0.0; channels];
    let mut constant = vec![0.0; channels];
    for c in 0..channels {
        let scale = gamma[c] * rstd[c];
        let slope = -scale * rstd[c] * rstd[c] * weighted[c] / rows;
        of_gradient[c] = scale as f32;
        of_input[c] = slope as f32;
        constant[c] = (-scale * grad_beta[c] / rows) as f32;
    }
    let residual_gradient = residual_gradient.map(|g| {
        assert_eq!(g.len(), x.len());
        SharedMut::new(g)
    });
    team::for_each_chunk(gx, block, |i, gx| {
        dispatch(ApplyGradient {
            flow: flow(i, gx.len()),
            of_gradient: &of_gradient,
            of_input: &of_input,
            constant: &constant,
            // SAFETY: each task writes its own block.
            residual_gradient: residual_gradient.map(|g| unsafe { g.at(i * block) }),
            gx,
        });
    });
    (grad_gamma, grad_beta)
}
