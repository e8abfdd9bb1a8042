//! GELU, the activation of transformers: `y = x Φ(x)`, where Φ is the distribution function of the normal
//! distribution, `(1 + erf(x / √2)) / 2` (Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016). This is
//! the exact form, PyTorch's default, and not the one with tanh.
//!
//! Gradient: `gx = gy (Φ(x) + x φ(x))` with the density `φ(x) = exp(-x²/2) / √(2π)`.

use crate::one::{One, apply_one};
use crate::simd::functions::{erf, exp};
use crate::simd::{Kernel, Vector, dispatch};
use crate::storage::Scalar;
use crate::{memory::uninitialized, team};
use candle_core::cpu::erf::erf_f64;
use candle_core::{Result, Shape, Tensor};
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

/// Returns `x Φ(x)` for each number of `x`, in f32 or f64; differentiable.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use invaspread_tensor::gelu;
///
/// let y = gelu(&Tensor::new(&[-1f64, 0.0, 1.0], &Device::Cpu)?)?.to_vec1::<f64>()?;
/// assert!((y[0] + 0.158655).abs() < 1e-6 && y[1] == 0.0 && (y[2] - 0.841345).abs() < 1e-6);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// If the data type is neither f32 nor, on the CPU, f64.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    apply_one(&x.contiguous()?, Gelu)
}

#[derive(Debug, Clone)]
pub(crate) struct Gelu;

/// Numbers that one task takes.
const BLOCK: usize = 1 << 12;

/// Returns Φ(x).
fn distribution(x: f64) -> f64 {
    0.5 * (1.0 + erf_f64(x * FRAC_1_SQRT_2))
}

/// Returns φ(x).
fn density(x: f64) -> f64 {
    0.5 * FRAC_1_SQRT_2 * FRAC_2_SQRT_PI * (-0.5 * x * x).exp()
}

impl One for Gelu {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn shape(&self, x: &Shape) -> Shape {
        x.clone()
    }

    fn forward<T: Scalar>(&self, x: &[T]) -> Vec<T> {
        x.iter().map(|x| T::write(x.read() * distribution(x.read()))).collect()
    }

    fn backward<T: Scalar>(&self, x: &[T], gy: &[T]) -> Vec<T> {
        let slope = |x: f64| distribution(x) + x * density(x);
        x.iter().zip(gy).map(|(x, gy)| T::write(gy.read() * slope(x.read()))).collect()
    }

    fn forward_f32(&self, x: &[f32]) -> Vec<f32> {
        let mut y = uninitialized(x.len());
        team::for_each_chunk(&mut y, BLOCK, |task, y| {
            dispatch(Forward { x: &x[task * BLOCK..][..y.len()], y });
        });
        y
    }

    fn backward_f32(&self, x: &[f32], gy: &[f32]) -> Vec<f32> {
        let mut gx = uninitialized(x.len());
        team::for_each_chunk(&mut gx, BLOCK, |task, gx| {
            let [x, gy] = [x, gy].map(|all| &all[task * BLOCK..][..gx.len()]);
            dispatch(Backward { x, gy, gx });
        });
        gx
    }

    #[cfg(feature = "cuda")]
    fn on_device(&self, x: &Tensor) -> Result<Tensor> {
        crate::cuda::transformer::gelu(x)
    }

    #[cfg(feature = "cuda")]
    fn gradient_on_device(&self, x: &Tensor, gy: &Tensor) -> Result<Tensor> {
        crate::cuda::transformer::gelu_gradient(x, gy)
    }
}

#[inline(always)]
fn distribution_f32(x: f32) -> f32 {
    0.5 * (1.0 + erf(x * FRAC_1_SQRT_2 as f32))
}

struct Forward<'a> {
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        for (x, y) in self.x.iter().zip(self.y) {
            *y = x * distribution_f32(*x);
        }
    }
}

struct Backward<'a> {
    x: &'a [f32],
    gy: &'a [f32],
    gx: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        const FACTOR: f32 = (0.5 * FRAC_1_SQRT_2 * FRAC_2_SQRT_PI) as f32;
        for ((x, gy), gx) in self.x.iter().zip(self.gy).zip(self.gx) {
            *gx = gy * (distribution_f32(*x) + x * (FACTOR * exp(-0.5 * x * x)));
        }
    }
}
