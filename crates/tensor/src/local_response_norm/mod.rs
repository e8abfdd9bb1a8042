//! Local response normalization across channels, as Inception-v1 (GoogLeNet) has it: `y_c = x_c s_c^{-beta}`
//! with `s_c = k + (alpha / n) Σ x_j²` over the n channels around c.
//!
//! Shapes: `x`, `y` (N, H, W, C). The window is that of PyTorch's `LocalResponseNorm`: n/2 channels before c
//! and (n - 1)/2 after, cut at the ends, while the division by n stays. Gradient: `gx_j = gy_j s_j^{-beta} -
//! (2 alpha beta / n) x_j Σ gy_c x_c s_c^{-beta-1}` over the c whose windows hold j. The op computes in f64.
//!
//! PyTorch has a second class, `CrossMapLRN2d`, which networks that were converted from Torch use. Its window
//! is meant to be the same. But PyTorch has dropped the CUDA kernel of this class, and the remaining version
//! in Python is off by one in two places (as of 2.15): see [`LocalResponseWindow`].

mod config;

pub use config::{LocalResponseNormConfig, LocalResponseWindow};

use crate::one::{One, apply_one};
use crate::storage::Scalar;
use crate::team;
use candle_core::{Result, Shape, Tensor, bail};

/// Normalizes each value of `x` by the values of the channels around it; f32, f64 or bf16, differentiable.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use invaspread_tensor::{LocalResponseNormConfig, local_response_norm};
///
/// // With one channel in a window: x / (k + alpha x²)^beta.
/// let config = LocalResponseNormConfig { size: 1, alpha: 1.0, beta: 0.5, k: 0.0, ..Default::default() };
/// let x = Tensor::new(&[[[[2f64, -3.0]]]], &Device::Cpu)?;
/// let y = local_response_norm(&x, config)?.flatten_all()?.to_vec1::<f64>()?;
/// assert!((y[0] - 1.0).abs() < 1e-12 && (y[1] + 1.0).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// If `x` has no axis, is neither f32, f64 nor bf16 (on CUDA f32 or bf16), or the window is empty.
pub fn local_response_norm(x: &Tensor, config: LocalResponseNormConfig) -> Result<Tensor> {
    apply_one(&x.contiguous()?, LocalResponseNorm::new(x, config)?)
}

#[derive(Debug, Clone)]
pub(crate) struct LocalResponseNorm {
    config: LocalResponseNormConfig,
    channels: usize,
}

/// Rows that one task takes.
const ROWS: usize = 64;

impl LocalResponseNorm {
    /// Returns the op that normalizes a tensor with the channels of `x`.
    pub(crate) fn new(x: &Tensor, config: LocalResponseNormConfig) -> Result<Self> {
        if config.size == 0 {
            bail!("local_response_norm: a window of 0 channels, expected at least 1")
        }
        if config.window == LocalResponseWindow::CrossMapLrn2d && config.size.is_multiple_of(2) {
            bail!(
                "local_response_norm: a window of {} channels, expected an odd number for CrossMapLRN2d",
                config.size
            )
        }
        Ok(Self { config, channels: x.dim(candle_core::D::Minus1)? })
    }

    /// Returns the channels of the window of channel `c`.
    fn window(&self, c: usize) -> std::ops::Range<usize> {
        let n = self.config.size;
        c.saturating_sub(n / 2)..(c + (n - 1) / 2 + 1).min(self.channels)
    }

    /// Returns the channels to whose gradients the term of channel `c` is added.
    fn receivers(&self, c: usize) -> std::ops::Range<usize> {
        match self.config.window {
            LocalResponseWindow::Centered => self.window(c),
            LocalResponseWindow::CrossMapLrn2d => self.window(c + 1),
        }
    }

    /// Computes `s` for each channel of a row.
    fn scales<T: Scalar>(&self, x: &[T], scales: &mut [f64]) {
        let LocalResponseNormConfig { size, alpha, k, .. } = self.config;
        for (c, scale) in scales.iter_mut().enumerate() {
            let window = self.window(c);
            let stays = self.config.window == LocalResponseWindow::CrossMapLrn2d && window.start > 0;
            let first = if stays { x[0].read().powi(2) } else { 0.0 };
            let squares: f64 = x[window].iter().map(|x| x.read().powi(2)).sum::<f64>() + first;
            *scale = k + alpha / size as f64 * squares;
        }
    }

    /// Returns `s^{-beta}`. The usual exponent, 0.75, needs no logarithm.
    fn power(&self, scale: f64) -> f64 {
        if self.config.beta.to_bits() == 0.75f64.to_bits() {
            let root = scale.sqrt();
            return 1.0 / (root * root.sqrt());
        }
        scale.powf(-self.config.beta)
    }
}

impl One for LocalResponseNorm {
    fn name(&self) -> &'static str {
        "local_response_norm"
    }

    fn shape(&self, x: &Shape) -> Shape {
        x.clone()
    }

    fn forward<T: Scalar>(&self, x: &[T]) -> Vec<T> {
        let mut y = vec![T::write(0.0); x.len()];
        team::for_each_chunk(&mut y, ROWS * self.channels, |task, y| {
            let x = &x[task * ROWS * self.channels..][..y.len()];
            let mut scales = vec![0.0; self.channels];
            for (x, y) in x.chunks_exact(self.channels).zip(y.chunks_exact_mut(self.channels)) {
                self.scales(x, &mut scales);
                for ((x, y), scale) in x.iter().zip(y).zip(&scales) {
                    *y = T::write(x.read() * self.power(*scale));
                }
            }
        });
        y
    }

    fn backward<T: Scalar>(&self, x: &[T], gy: &[T]) -> Vec<T> {
        let LocalResponseNormConfig { size, alpha, beta, .. } = self.config;
        let factor = 2.0 * alpha * beta / size as f64;
        let mut gx = vec![T::write(0.0); x.len()];
        team::for_each_chunk(&mut gx, ROWS * self.channels, |task, gx| {
            let first = task * ROWS * self.channels;
            let (x, gy) = (&x[first..][..gx.len()], &gy[first..][..gx.len()]);
            let (mut scales, mut sums) = (vec![0.0; self.channels], vec![0.0; self.channels]);
            let rows = x.chunks_exact(self.channels).zip(gy.chunks_exact(self.channels));
            for ((x, gy), gx) in rows.zip(gx.chunks_exact_mut(self.channels)) {
                self.scales(x, &mut scales);
                sums.fill(0.0);
                for c in 0..self.channels {
                    let term = gy[c].read() * x[c].read() * self.power(scales[c]) / scales[c];
                    for sum in &mut sums[self.receivers(c)] {
                        *sum += term;
                    }
                }
                for (j, gx) in gx.iter_mut().enumerate() {
                    *gx = T::write(gy[j].read() * self.power(scales[j]) - factor * x[j].read() * sums[j]);
                }
            }
        });
        gx
    }

    #[cfg(feature = "cuda")]
    fn on_device(&self, x: &Tensor) -> Result<Tensor> {
        crate::cuda::local_response(x, self.config)
    }

    #[cfg(feature = "cuda")]
    fn gradient_on_device(&self, x: &Tensor, gy: &Tensor) -> Result<Tensor> {
        crate::cuda::local_response_gradient(x, gy, self.config)
    }
}
