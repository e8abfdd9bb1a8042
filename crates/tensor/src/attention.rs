//! Self-attention of several heads (Vaswani et al., "Attention Is All You Need", 2017, section 3.2):
//!
//! ```text
//! S = q kᵀ / √d        P = softmax of each row of S        y = P v
//! ```
//!
//! Shapes: `x` (N·T, 3·H·d) has a row for each of the T tokens of N images. It holds q, k and v one after the
//! other, each with its H heads of d columns, as timm's `qkv` layer puts them out. `y` is (N·T, H·d). The
//! tokens of one image attend to each other, each head by itself.
//!
//! Gradients, with `gP = gy vᵀ` and `gS = P (gP − the row sum of P gP)`: `gv = Pᵀ gy`, `gq = gS k / √d`,
//! `gk = gSᵀ q / √d`. The softmax is computed again in the backward pass, so no (T, T) matrix is kept.

use crate::gemm::on_one_thread;
use crate::memory::uninitialized;
use crate::one::{One, apply_one};
use crate::simd::functions::{exp, sum_of};
use crate::simd::{Kernel, Vector, dispatch};
use crate::storage::Scalar;
use crate::team;
use candle_core::{Result, Shape, Tensor, bail};

/// Returns the attention of `heads` heads among the `tokens` rows of each image of `x` (N·`tokens`, 3·D): (N·
/// `tokens`, D). In f32 or f64, differentiable.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use invaspread_tensor::attention;
///
/// // Two tokens with equal keys: each gets the mean of the values.
/// let x = Tensor::new(&[[1f64, 0.0, 2.0], [5.0, 0.0, 4.0]], &Device::Cpu)?;
/// assert_eq!(attention(&x, 2, 1)?.to_vec2::<f64>()?, [[3.0], [3.0]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// If the shape does not fit, or the data type is neither f32 nor, on the CPU, f64.
pub fn attention(x: &Tensor, tokens: usize, heads: usize) -> Result<Tensor> {
    apply_one(&x.contiguous()?, Attention::new(x, tokens, heads)?)
}

#[derive(Debug, Clone)]
pub(crate) struct Attention {
    tokens: usize,
    heads: usize,
    /// Columns of a head.
    dim: usize,
}

impl Attention {
    pub(crate) fn new(x: &Tensor, tokens: usize, heads: usize) -> Result<Self> {
        let (rows, columns) = x.dims2()?;
        if tokens == 0
            || heads == 0
            || columns == 0
            || !rows.is_multiple_of(tokens)
            || !columns.is_multiple_of(3 * heads)
        {
            bail!(
                "attention: input {:?} for {tokens} tokens and {heads} heads: expected rows for whole images, and \
                queries, keys and values of each head side by side",
                x.shape()
            )
        }
        Ok(Self { tokens, heads, dim: columns / (3 * heads) })
    }

    /// Returns the columns of the output; q, k and v have as many each.
    fn width(&self) -> usize {
        self.heads * self.dim
    }

    #[cfg(feature = "cuda")]
    fn on_device_sizes(&self) -> crate::cuda::transformer::AttentionSizes {
        let Self { tokens, heads, dim } = *self;
        crate::cuda::transformer::AttentionSizes { tokens, heads, dim }
    }

    /// Returns the factor of the scores.
    fn scale(&self) -> f64 {
        1.0 / (self.dim as f64).sqrt()
    }

    /// Returns the softmax of the scores of one head of one image, whose rows `x` has; for the plain version.
    fn weights<T: Scalar>(&self, x: &[T], head: usize) -> Vec<f64> {
        let (tokens, width) = (self.tokens, self.width());
        let [q, k] = [0, 1].map(|part| {
            move |t: usize, c: usize| x[t * 3 * width + part * width + head * self.dim + c].read()
        });
        let mut weights = vec![0.0; tokens * tokens];
        for (i, row) in weights.chunks_exact_mut(tokens).enumerate() {
            for (j, score) in row.iter_mut().enumerate() {
                *score = (0..self.dim).map(|c| q(i, c) * k(j, c)).sum::<f64>() * self.scale();
            }
            let largest =
                row.iter().fold(f64::NEG_INFINITY, |most, &score| if score > most { score } else { most });
            for score in row.iter_mut() {
                *score = (*score - largest).exp();
            }
            let sum: f64 = row.iter().sum();
            for weight in row {
                *weight /= sum;
            }
        }
        weights
    }

    /// Returns the softmax of the scores of one head of one image, whose rows `x` has, in f32.
    fn weights_f32(&self, x: &[f32], head: usize, weights: &mut [f32]) {
        let (tokens, width, dim) = (self.tokens, self.width(), self.dim);
        let (q, k) = (&x[head * dim..], &x[width + head * dim..]);
        let row = 3 * width;
        let sizes = [tokens, tokens, dim];
        on_one_thread(sizes, self.scale() as f32, (q, [row, 1]), (k, [1, row]), (weights, tokens));
        dispatch(Softmax { rows: weights, len: tokens });
    }
}

impl One for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn shape(&self, x: &Shape) -> Shape {
        (x.dims()[0], self.width()).into()
    }

    fn forward<T: Scalar>(&self, x: &[T]) -> Vec<T> {
        let (tokens, width, dim) = (self.tokens, self.width(), self.dim);
        let mut y = vec![T::write(0.0); x.len() / 3];
        for (x, y) in x.chunks_exact(tokens * 3 * width).zip(y.chunks_exact_mut(tokens * width)) {
            for head in 0..self.heads {
                let weights = self.weights(x, head);
                for (i, row) in weights.chunks_exact(tokens).enumerate() {
                    for c in head * dim..(head + 1) * dim {
                        let value =
                            |(j, weight): (usize, &f64)| weight * x[j * 3 * width + 2 * width + c].read();
                        y[i * width + c] = T::write(row.iter().enumerate().map(value).sum());
                    }
                }
            }
        }
        y
    }

    fn backward<T: Scalar>(&self, x: &[T], gy: &[T]) -> Vec<T> {
        let (tokens, width, dim) = (self.tokens, self.width(), self.dim);
        let mut gx = vec![0.0; x.len()];
        let images = x.chunks_exact(tokens * 3 * width).zip(gy.chunks_exact(tokens * width));
        for ((x, gy), gx) in images.zip(gx.chunks_exact_mut(tokens * 3 * width)) {
            for head in 0..self.heads {
                let weights = self.weights(x, head);
                let at = |part: usize, t: usize, c: usize| t * 3 * width + part * width + head * dim + c;
                let gy = |t: usize, c: usize| gy[t * width + head * dim + c].read();
                for (i, row) in weights.chunks_exact(tokens).enumerate() {
                    let of_weight: Vec<f64> = (0..tokens)
                        .map(|j| (0..dim).map(|c| gy(i, c) * x[at(2, j, c)].read()).sum())
                        .collect();
                    let along: f64 = row.iter().zip(&of_weight).map(|(weight, g)| weight * g).sum();
                    for j in 0..tokens {
                        let of_score = row[j] * (of_weight[j] - along) * self.scale();
                        for c in 0..dim {
                            gx[at(0, i, c)] += of_score * x[at(1, j, c)].read();
                            gx[at(1, j, c)] += of_score * x[at(0, i, c)].read();
                            gx[at(2, j, c)] += row[j] * gy(i, c);
                        }
                    }
                }
            }
        }
        gx.into_iter().map(T::write).collect()
    }

    fn forward_f32(&self, x: &[f32]) -> Vec<f32> {
        let (tokens, width, dim) = (self.tokens, self.width(), self.dim);
        let mut y = uninitialized(x.len() / 3);
        // A task has one image; its heads write columns that lie between each other.
        team::for_each_chunk(&mut y, tokens * width, |image, y| {
            let x = &x[image * tokens * 3 * width..][..tokens * 3 * width];
            let mut weights = uninitialized(tokens * tokens);
            for head in 0..self.heads {
                self.weights_f32(x, head, &mut weights);
                let v = (&x[2 * width + head * dim..], [3 * width, 1]);
                let y = (&mut y[head * dim..], width);
                on_one_thread([tokens, dim, tokens], 1.0, (&weights, [tokens, 1]), v, y);
            }
        });
        y
    }

    fn backward_f32(&self, x: &[f32], gy: &[f32]) -> Vec<f32> {
        let (tokens, width, dim) = (self.tokens, self.width(), self.dim);
        let scale = self.scale() as f32;
        let mut gx = uninitialized(x.len());
        team::for_each_chunk(&mut gx, tokens * 3 * width, |image, gx| {
            let x = &x[image * tokens * 3 * width..][..tokens * 3 * width];
            let gy = &gy[image * tokens * width..][..tokens * width];
            let mut weights = uninitialized(tokens * tokens);
            let mut of_scores = uninitialized(tokens * tokens);
            for head in 0..self.heads {
                self.weights_f32(x, head, &mut weights);
                let [q, k, v] = [0, 1, 2].map(|part| &x[part * width + head * dim..]);
                let gy = &gy[head * dim..];
                let (row, square) = (3 * width, [tokens, tokens, dim]);
                on_one_thread(square, 1.0, (gy, [width, 1]), (v, [1, row]), (&mut of_scores, tokens));
                dispatch(SoftmaxGradient { weights: &weights, gradients: &mut of_scores, len: tokens });
                let tall = [tokens, dim, tokens];
                let [plain, transposed] = [[tokens, 1], [1, tokens]];
                let mut part = |part: usize, factor, a: (&[f32], [usize; 2]), b: (&[f32], [usize; 2])| {
                    on_one_thread(tall, factor, a, b, (&mut gx[part * width + head * dim..], row));
                };
                part(0, scale, (&of_scores, plain), (k, [row, 1]));
                part(1, scale, (&of_scores, transposed), (q, [row, 1]));
                part(2, 1.0, (&weights, transposed), (gy, [width, 1]));
            }
        });
        gx
    }

    #[cfg(feature = "cuda")]
    fn on_device(&self, x: &Tensor) -> Result<Tensor> {
        crate::cuda::transformer::attention(x, self.on_device_sizes())
    }

    #[cfg(feature = "cuda")]
    fn gradient_on_device(&self, x: &Tensor, gy: &Tensor) -> Result<Tensor> {
        crate::cuda::transformer::attention_gradient(x, gy, self.on_device_sizes())
    }
}

/// Replaces each row of scores by its softmax. A NaN makes its whole row NaN.
struct Softmax<'a> {
    rows: &'a mut [f32],
    len: usize,
}

impl Kernel for Softmax<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        for row in self.rows.chunks_exact_mut(self.len) {
            let largest = largest(row);
            for score in row.iter_mut() {
                *score = exp(*score - largest);
            }
            let scale = 1.0 / sum_of(row.len(), |i| row[i]);
            for weight in row.iter_mut() {
                *weight *= scale;
            }
        }
    }
}

/// Returns the largest number of a row, without the NaNs.
#[inline(always)]
fn largest(row: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut most = [f32::NEG_INFINITY; LANES];
    let mut rows = row.chunks_exact(LANES);
    for values in &mut rows {
        for (most, &value) in most.iter_mut().zip(values) {
            *most = if value > *most { value } else { *most };
        }
    }
    let all = most.iter().chain(rows.remainder());
    all.fold(f32::NEG_INFINITY, |most, &value| if value > most { value } else { most })
}

/// Replaces the gradients of each row of a softmax by those of its scores.
struct SoftmaxGradient<'a> {
    weights: &'a [f32],
    gradients: &'a mut [f32],
    len: usize,
}

impl Kernel for SoftmaxGradient<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        for (weights, gradients) in
            self.weights.chunks_exact(self.len).zip(self.gradients.chunks_exact_mut(self.len))
        {
            let along = sum_of(weights.len(), |i| weights[i] * gradients[i]);
            for (weight, gradient) in weights.iter().zip(gradients) {
                *gradient = weight * (*gradient - along);
            }
        }
    }
}
