//! Batch norm written as its equations, computed in f64: the reference for the fused kernels, and the path
//! for f64 and for channel counts that are not multiples of 16.

use super::{Affine, Ran, Statistics};
use crate::storage::Scalar;

/// Returns the mean and the biased variance of each channel of `x` (rows, channels).
pub(crate) fn statistics<T: Scalar>(x: &[T], channels: usize) -> Statistics {
    let rows = (x.len() / channels) as f64;
    let mut mean = vec![0.0; channels];
    let mut variance = vec![0.0; channels];
    for row in x.chunks_exact(channels) {
        for (m, x) in mean.iter_mut().zip(row) {
            *m += x.read() / rows;
        }
    }
    for row in x.chunks_exact(channels) {
        for ((v, m), x) in variance.iter_mut().zip(&mean).zip(row) {
            *v += (x.read() - m).powi(2) / rows;
        }
    }
    Statistics { mean, variance }
}

/// Computes `y = relu?(scale (x - mean) + shift (+ residual))`.
pub(crate) fn apply<T: Scalar>(x: &[T], residual: Option<&[T]>, affine: &Affine, relu: bool, y: &mut [T]) {
    let channels = affine.scale.len();
    for (i, y) in y.iter_mut().enumerate() {
        let c = i % channels;
        let normalized = (x[i].read() - affine.mean[c]) * affine.scale[c] + affine.shift[c];
        let value = normalized + residual.map_or(0.0, |r| r[i].read());
        // This is not `f64::max`, which would turn a NaN into zero.
        *y = T::write(if relu && value < 0.0 { 0.0 } else { value });
    }
}

/// Returns the gradients of gamma and beta; fills `gx` and, if there is a residual, its gradient.
pub(crate) fn backward<T: Scalar>(
    (x, y, gy): (&[T], &[T], &[T]),
    ran: &Ran<'_>,
    gx: &mut [T],
    mut residual_gradient: Option<&mut [T]>,
) -> (Vec<f64>, Vec<f64>) {
    let Ran { gamma, statistics, eps, relu, .. } = *ran;
    let channels = gamma.len();
    let rows = (x.len() / channels) as f64;
    let gated = |i: usize| if relu && y[i].read() <= 0.0 { 0.0 } else { gy[i].read() };
    let rstd: Vec<f64> = statistics.variance.iter().map(|v| 1.0 / (v + eps).sqrt()).collect();
    let normalized = |i: usize| (x[i].read() - statistics.mean[i % channels]) * rstd[i % channels];
    let (mut grad_gamma, mut grad_beta) = (vec![0.0; channels], vec![0.0; channels]);
    for i in 0..x.len() {
        grad_gamma[i % channels] += gated(i) * normalized(i);
        grad_beta[i % channels] += gated(i);
    }
    for i in 0..x.len() {
        let c = i % channels;
        let centered = gated(i) - grad_beta[c] / rows - normalized(i) * grad_gamma[c] / rows;
        gx[i] = T::write(gamma[c] * rstd[c] * centered);
        if let Some(gradient) = residual_gradient.as_deref_mut() {
            gradient[i] = T::write(gated(i));
        }
    }
    (grad_gamma, grad_beta)
}
