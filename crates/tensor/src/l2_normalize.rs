//! Rows of length 1: `y = x / ||x||`, without an epsilon, as in the official code.
//!
//! Shapes: `x`, `y` (N, D). Gradient: `gx = (gy - y (y · gy)) / ||x||`. A row of zeros has no direction,
//! which points to an error in the caller's network. It stays zero here, with zero gradient, and does not
//! become NaN. If a row holds a NaN, all of its values become NaN.

use crate::one::{One, apply_one};
use crate::storage::Scalar;
use candle_core::{Result, Shape, Tensor};

/// Divides each row of `x` (N, D) by its Euclidean length; f32 or f64, differentiable.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use invaspread_tensor::l2_normalize;
///
/// let x = Tensor::new(&[[3f64, 4.0], [0.0, 0.0]], &Device::Cpu)?;
/// let y = l2_normalize(&x)?.to_vec2::<f64>()?;
/// assert!((y[0][0] - 0.6).abs() < 1e-12 && (y[0][1] - 0.8).abs() < 1e-12);
/// assert_eq!(y[1], [0.0, 0.0]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// If `x` is not of two dimensions, or neither f32 nor f64.
pub fn l2_normalize(x: &Tensor) -> Result<Tensor> {
    apply_one(&x.contiguous()?, L2Normalize::new(x)?)
}

#[derive(Debug, Clone)]
pub(crate) struct L2Normalize {
    dim: usize,
}

/// Returns one over a row's length, or zero for a row of zeros.
fn inverse_length<T: Scalar>(row: &[T]) -> f64 {
    let square: f64 = row.iter().map(|x| x.read().powi(2)).sum();
    // A NaN is not zero, so all values of its row become NaN.
    if square == 0.0 { 0.0 } else { 1.0 / square.sqrt() }
}

impl L2Normalize {
    /// Returns the op for a matrix of this shape.
    pub(crate) fn new(x: &Tensor) -> Result<Self> {
        Ok(Self { dim: x.dims2()?.1 })
    }
}

impl One for L2Normalize {
    fn name(&self) -> &'static str {
        "l2_normalize"
    }

    fn shape(&self, x: &Shape) -> Shape {
        x.clone()
    }

    fn forward<T: Scalar>(&self, x: &[T]) -> Vec<T> {
        x.chunks_exact(self.dim)
            .flat_map(|row| {
                let scale = inverse_length(row);
                row.iter().map(move |x| T::write(x.read() * scale))
            })
            .collect()
    }

    fn backward<T: Scalar>(&self, x: &[T], gy: &[T]) -> Vec<T> {
        x.chunks_exact(self.dim)
            .zip(gy.chunks_exact(self.dim))
            .flat_map(|(x, gy)| {
                let scale = inverse_length(x);
                let along: f64 =
                    x.iter().zip(gy).map(|(x, g)| x.read() * g.read()).sum::<f64>() * scale * scale;
                x.iter().zip(gy).map(move |(x, g)| T::write((g.read() - x.read() * along) * scale))
            })
            .collect()
    }

    #[cfg(feature = "cuda")]
    fn on_device(&self, x: &Tensor) -> Result<Tensor> {
        crate::cuda::l2_normalize(x)
    }

    #[cfg(feature = "cuda")]
    fn gradient_on_device(&self, x: &Tensor, gy: &Tensor) -> Result<Tensor> {
        crate::cuda::l2_normalize_gradient(x, gy)
    }
}
