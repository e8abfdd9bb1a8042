//! Layer norm: each row is shifted and scaled to mean 0 and variance 1, then by a gain and a shift for each
//! channel (Ba, Kiros, Hinton, "Layer Normalization", 2016).
//!
//! ```text
//! x̂ = (x − mean) / √(variance + ε)        y = γ x̂ + β
//! ```
//!
//! Shapes: `x`, `y` (R, C), `γ`, `β` (C). The variance is that of the row, divided by C. With `g = γ gy`, the
//! gradients are `gx = (g − mean(g) − x̂ mean(g x̂)) / √(variance + ε)`, `gγ = Σ gy x̂` and `gβ = Σ gy` over
//! the rows.

use crate::memory::uninitialized;
use crate::simd::functions::sum_of;
use crate::simd::{Kernel, Vector, dispatch};
use crate::storage::{Scalar, with};
use crate::{differentiable, team};
use candle_core::{DType, Result, Tensor, bail};

/// Normalizes each row of `x` (R, C), with gain `gamma` and shift `beta` (C); f32 or f64, differentiable in
/// all three.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use invaspread_tensor::layer_norm;
///
/// let x = Tensor::new(&[[1f64, 3.0], [-4.0, 4.0]], &Device::Cpu)?;
/// let (gamma, beta) = (Tensor::new(&[1f64, 2.0], &Device::Cpu)?, Tensor::new(&[0f64, 5.0], &Device::Cpu)?);
/// assert_eq!(layer_norm(&x, &gamma, &beta, 0.0)?.to_vec2::<f64>()?, [[-1.0, 7.0], [-1.0, 7.0]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// If the shapes do not fit one another, the data type is neither f32 nor, on the CPU, f64.
pub fn layer_norm(x: &Tensor, gamma: &Tensor, beta: &Tensor, epsilon: f64) -> Result<Tensor> {
    let op = LayerNorm::new(x, gamma, beta, epsilon)?;
    let (x, gamma, beta) = (x.contiguous()?, gamma.contiguous()?, beta.contiguous()?);
    let y = op.run(&x, &gamma, &beta)?;
    let backward = move |[x, gamma, _]: [&Tensor; 3], _: &Tensor, gy: &Tensor| {
        op.gradients(x, gamma, gy).map(|gradients| gradients.map(Some))
    };
    differentiable("layer_norm", [&x, &gamma, &beta], y, backward)
}

#[derive(Debug, Clone)]
pub(crate) struct LayerNorm {
    channels: usize,
    epsilon: f64,
}

/// Rows that one task takes. The sums over rows are taken in these blocks, so they fix the order of the sums.
const ROWS: usize = 64;

impl LayerNorm {
    pub(crate) fn new(x: &Tensor, gamma: &Tensor, beta: &Tensor, epsilon: f64) -> Result<Self> {
        let (_, channels) = x.dims2()?;
        if gamma.dims() != [channels] || beta.dims() != [channels] || channels == 0 {
            bail!(
                "layer_norm: input {:?}, gain {:?}, shift {:?}: expected one gain and one shift for each channel",
                x.shape(),
                gamma.shape(),
                beta.shape()
            )
        }
        Ok(Self { channels, epsilon })
    }

    /// Runs the op on contiguous tensors, outside of candle's graph.
    pub(crate) fn run(&self, x: &Tensor, gamma: &Tensor, beta: &Tensor) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            return crate::cuda::transformer::layer_norm(x, gamma, beta, self.epsilon);
        }
        if x.dtype() == DType::F32 {
            let y = with(x, |x| with(gamma, |gamma| with(beta, |beta| self.forward_f32(x, gamma, beta))))???;
            return Tensor::from_vec(y, x.shape(), x.device());
        }
        let y = with(x, |x| with(gamma, |gamma| with(beta, |beta| self.forward::<f64>(x, gamma, beta))))???;
        Tensor::from_vec(y, x.shape(), x.device())
    }

    /// Returns the gradients of the input, the gain and the shift.
    pub(crate) fn gradients(&self, x: &Tensor, gamma: &Tensor, gy: &Tensor) -> Result<[Tensor; 3]> {
        let gy = gy.contiguous()?;
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            return crate::cuda::transformer::layer_norm_gradients(x, gamma, &gy, self.epsilon);
        }
        let device = x.device();
        if x.dtype() == DType::F32 {
            let [gx, gg, gb] =
                with(x, |x| with(gamma, |gamma| with(&gy, |gy| self.backward_f32(x, gamma, gy))))???;
            let parameter = |values| Tensor::from_vec(values, self.channels, device);
            return Ok([Tensor::from_vec(gx, x.shape(), device)?, parameter(gg)?, parameter(gb)?]);
        }
        let [gx, gg, gb] =
            with(x, |x| with(gamma, |gamma| with(&gy, |gy| self.backward::<f64>(x, gamma, gy))))???;
        let parameter = |values| Tensor::from_vec(values, self.channels, device);
        Ok([Tensor::from_vec(gx, x.shape(), device)?, parameter(gg)?, parameter(gb)?])
    }

    /// Returns a row's mean and one over its standard deviation.
    fn statistics<T: Scalar>(&self, row: &[T]) -> [f64; 2] {
        let count = self.channels as f64;
        let mean = row.iter().map(|x| x.read()).sum::<f64>() / count;
        let variance = row.iter().map(|x| (x.read() - mean).powi(2)).sum::<f64>() / count;
        [mean, 1.0 / (variance + self.epsilon).sqrt()]
    }

    fn forward<T: Scalar>(&self, x: &[T], gamma: &[T], beta: &[T]) -> Vec<T> {
        let mut y = Vec::with_capacity(x.len());
        for row in x.chunks_exact(self.channels) {
            let [mean, scale] = self.statistics(row);
            for ((x, gamma), beta) in row.iter().zip(gamma).zip(beta) {
                y.push(T::write((x.read() - mean) * scale * gamma.read() + beta.read()));
            }
        }
        y
    }

    fn backward<T: Scalar>(&self, x: &[T], gamma: &[T], gy: &[T]) -> [Vec<T>; 3] {
        let channels = self.channels;
        let mut gx = Vec::with_capacity(x.len());
        let (mut of_gamma, mut of_beta) = (vec![0.0; channels], vec![0.0; channels]);
        for (row, gy) in x.chunks_exact(channels).zip(gy.chunks_exact(channels)) {
            let [mean, scale] = self.statistics(row);
            let unit: Vec<f64> = row.iter().map(|x| (x.read() - mean) * scale).collect();
            let g: Vec<f64> = gy.iter().zip(gamma).map(|(gy, gamma)| gy.read() * gamma.read()).collect();
            let level = g.iter().sum::<f64>() / channels as f64;
            let along = g.iter().zip(&unit).map(|(g, x)| g * x).sum::<f64>() / channels as f64;
            gx.extend(g.iter().zip(&unit).map(|(g, x)| T::write((g - level - x * along) * scale)));
            for (c, gy) in gy.iter().enumerate() {
                of_gamma[c] += gy.read() * unit[c];
                of_beta[c] += gy.read();
            }
        }
        [gx, of_gamma.into_iter().map(T::write).collect(), of_beta.into_iter().map(T::write).collect()]
    }

    fn forward_f32(&self, x: &[f32], gamma: &[f32], beta: &[f32]) -> Vec<f32> {
        let mut y = uninitialized(x.len());
        let block = ROWS * self.channels;
        team::for_each_chunk(&mut y, block, |task, y| {
            dispatch(Forward { op: self, x: &x[task * block..][..y.len()], gamma, beta, y });
        });
        y
    }

    fn backward_f32(&self, x: &[f32], gamma: &[f32], gy: &[f32]) -> [Vec<f32>; 3] {
        let (channels, block) = (self.channels, ROWS * self.channels);
        let mut gx = uninitialized(x.len());
        let of_block = |task: usize, all: &[f32]| task * block..(task * block + block).min(all.len());
        team::for_each_chunk(&mut gx, block, |task, gx| {
            dispatch(Backward { op: self, x: &x[of_block(task, x)], gamma, gy: &gy[of_block(task, gy)], gx });
        });
        let sums = team::map(x.len().div_ceil(block), |task| {
            let mut sums = vec![0.0; 2 * channels];
            let (x, gy) = (&x[of_block(task, x)], &gy[of_block(task, gy)]);
            dispatch(OfParameters { op: self, x, gy, sums: &mut sums });
            sums
        });
        // Few sums are left, which are added in f64.
        let total = |c: usize| sums.iter().map(|sums| f64::from(sums[c])).sum::<f64>() as f32;
        [gx, (0..channels).map(total).collect(), (channels..2 * channels).map(total).collect()]
    }

    /// Does the same as [`LayerNorm::statistics`], in f32.
    #[inline(always)]
    fn statistics_f32(&self, row: &[f32]) -> [f32; 2] {
        let count = row.len() as f32;
        let mean = sum_of(row.len(), |c| row[c]) / count;
        let variance = sum_of(row.len(), |c| (row[c] - mean) * (row[c] - mean)) / count;
        [mean, 1.0 / (variance + self.epsilon as f32).sqrt()]
    }
}

struct Forward<'a> {
    op: &'a LayerNorm,
    x: &'a [f32],
    gamma: &'a [f32],
    beta: &'a [f32],
    y: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let channels = self.op.channels;
        for (x, y) in self.x.chunks_exact(channels).zip(self.y.chunks_exact_mut(channels)) {
            let [mean, scale] = self.op.statistics_f32(x);
            for (((x, y), gamma), beta) in x.iter().zip(y).zip(self.gamma).zip(self.beta) {
                *y = (x - mean) * scale * gamma + beta;
            }
        }
    }
}

/// The gradient of the input.
struct Backward<'a> {
    op: &'a LayerNorm,
    x: &'a [f32],
    gamma: &'a [f32],
    gy: &'a [f32],
    gx: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let (channels, gamma) = (self.op.channels, self.gamma);
        let rows = self.x.chunks_exact(channels).zip(self.gy.chunks_exact(channels));
        for ((x, gy), gx) in rows.zip(self.gx.chunks_exact_mut(channels)) {
            let [mean, scale] = self.op.statistics_f32(x);
            let gamma = &gamma[..x.len()];
            let gy = &gy[..x.len()];
            let level = sum_of(x.len(), |c| gy[c] * gamma[c]) / channels as f32;
            let along = sum_of(x.len(), |c| gy[c] * gamma[c] * ((x[c] - mean) * scale)) / channels as f32;
            for (((x, gx), gamma), gy) in x.iter().zip(gx).zip(gamma).zip(gy) {
                *gx = (gy * gamma - level - (x - mean) * scale * along) * scale;
            }
        }
    }
}

/// The sums over rows that are the gradients of the gain and, behind them, of the shift.
struct OfParameters<'a> {
    op: &'a LayerNorm,
    x: &'a [f32],
    gy: &'a [f32],
    sums: &'a mut [f32],
}

impl Kernel for OfParameters<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let channels = self.op.channels;
        let (of_gamma, of_beta) = self.sums.split_at_mut(channels);
        for (x, gy) in self.x.chunks_exact(channels).zip(self.gy.chunks_exact(channels)) {
            let [mean, scale] = self.op.statistics_f32(x);
            for (((x, gy), gamma), beta) in x.iter().zip(gy).zip(&mut *of_gamma).zip(&mut *of_beta) {
                *gamma += gy * ((x - mean) * scale);
                *beta += gy;
            }
        }
    }
}
