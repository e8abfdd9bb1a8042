//! A bias for every channel, then ReLU: `y = max(x + b, 0)`. It follows each convolution in networks without
//! batch norm.
//!
//! Shapes: `x`, `y` (..., C), `b` (C). Gradients: `gx = 0` where `y <= 0`, and `gx = gy` elsewhere; `gb` is
//! the sum of `gx` over all axes but the channels, taken in f64. Neither gradient needs `x`, so a tape keeps
//! `y` alone. A NaN passes through, and so does its gradient, as in PyTorch.

use crate::storage::{Scalar, converted, for_scalar, narrowed_like, slice, with, with_widened};
use crate::team;
use candle_core::{
    CpuStorage, CustomOp2, DType, Layout, Result, Shape, Tensor, WithDType, backend::BackendStorage, bail,
};
use half::bf16;

/// Returns `max(x + bias, 0)`. Both are f32, or both f64 (on the CPU), or `x` is bf16 and the bias f32.
/// Differentiable in both inputs.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use invaspread_tensor::bias_relu;
///
/// let x = Tensor::new(&[[1f32, -5.0], [-2.0, 4.0]], &Device::Cpu)?;
/// let bias = Tensor::new(&[1f32, 2.0], &Device::Cpu)?;
/// assert_eq!(bias_relu(&x, &bias)?.to_vec2::<f32>()?, [[2.0, 0.0], [0.0, 6.0]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// If the bias does not hold one value for each channel of `x`, or the data type is not one of these.
pub fn bias_relu(x: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let op = BiasRelu::new(x, bias)?;
    let (x, bias) = (x.contiguous()?, bias.contiguous()?);
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        let y = op.run(&x, &bias)?;
        let backward = move |_: [&Tensor; 2], y: &Tensor, gy: &Tensor| {
            op.gradients(y, gy).map(|(gx, gb)| [Some(gx), Some(gb)])
        };
        return crate::differentiable("bias_relu", [&x, &bias], y, backward);
    }
    x.apply_op2(&bias, op)
}

#[derive(Debug, Clone)]
pub(crate) struct BiasRelu {
    channels: usize,
}

/// Rows that one task takes.
const ROWS: usize = 256;

impl BiasRelu {
    pub(crate) fn new(x: &Tensor, bias: &Tensor) -> Result<Self> {
        let channels = x.dim(candle_core::D::Minus1)?;
        if bias.dims() != [channels] || channels == 0 {
            bail!(
                "bias_relu: input {:?}, bias {:?}: expected one value for each channel",
                x.shape(),
                bias.shape()
            )
        }
        Ok(Self { channels })
    }

    fn forward<T: Scalar>(&self, x: &[T], bias: &[T]) -> Vec<T> {
        let mut y = vec![T::write(0.0); x.len()];
        team::for_each_chunk(&mut y, ROWS * self.channels, |task, y| {
            let x = &x[task * ROWS * self.channels..][..y.len()];
            for (x, y) in x.chunks_exact(self.channels).zip(y.chunks_exact_mut(self.channels)) {
                for ((x, bias), y) in x.iter().zip(bias).zip(y) {
                    let sum = x.read() + bias.read();
                    *y = T::write(if sum < 0.0 { 0.0 } else { sum });
                }
            }
        });
        y
    }

    /// Returns the gradients of the input and the bias.
    fn backward<T: Scalar>(&self, y: &[T], gy: &[T]) -> [Vec<T>; 2] {
        let block = ROWS * self.channels;
        let mut gx = vec![T::write(0.0); gy.len()];
        team::for_each_chunk(&mut gx, block, |task, gx| {
            let (y, gy) = (&y[task * block..][..gx.len()], &gy[task * block..][..gx.len()]);
            for ((y, gy), gx) in y.iter().zip(gy).zip(gx) {
                *gx = if y.read() <= 0.0 { T::write(0.0) } else { *gy };
            }
        });
        let sums = team::map(gx.len().div_ceil(block), |task| {
            let gx = &gx[task * block..(task * block + block).min(gx.len())];
            let mut sums = vec![0.0; self.channels];
            for row in gx.chunks_exact(self.channels) {
                for (sum, g) in sums.iter_mut().zip(row) {
                    *sum += g.read();
                }
            }
            sums
        });
        let gb = (0..self.channels).map(|c| T::write(sums.iter().map(|sums| sums[c]).sum())).collect();
        [gx, gb]
    }

    /// Runs the op on contiguous tensors, outside of candle's graph.
    pub(crate) fn run(&self, x: &Tensor, bias: &Tensor) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            return crate::cuda::bias_relu(x, bias);
        }
        x.detach().apply_op2_no_bwd(bias, self)
    }

    /// Returns the gradients of the input and the bias, given the output and its gradient.
    pub(crate) fn gradients(&self, y: &Tensor, gy: &Tensor) -> Result<(Tensor, Tensor)> {
        let gy = gy.contiguous()?;
        #[cfg(feature = "cuda")]
        if y.device().is_cuda() {
            return crate::cuda::bias_relu_gradients(y, &gy);
        }
        if y.dtype() == DType::BF16 {
            let [gx, gb] = with_widened(y, |y| with_widened(&gy, |gy| self.backward(y, gy)))??;
            return Ok((narrowed_like(gx, y)?, Tensor::from_vec(gb, self.channels, y.device())?));
        }
        for_scalar!(y.dtype(), "bias_relu", T => {
            let [gx, gb] = with::<T, _>(y, |y| with::<T, _>(&gy, |gy| self.backward(y, gy)))??;
            let device = y.device();
            Ok((Tensor::from_vec(gx, y.shape(), device)?, Tensor::from_vec(gb, self.channels, device)?))
        })
    }
}

impl CustomOp2 for BiasRelu {
    fn name(&self) -> &'static str {
        "bias_relu"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        bias: &CpuStorage,
        lb: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        if let CpuStorage::BF16(_) = x {
            let y = self.forward(&converted::<bf16, f32>(slice(x, lx)?), slice(bias, lb)?);
            return Ok((CpuStorage::BF16(converted(&y)), lx.shape().clone()));
        }
        let y = for_scalar!(x.dtype(), "bias_relu", T => {
            WithDType::to_cpu_storage_owned(self.forward::<T>(slice(x, lx)?, slice(bias, lb)?))
        });
        Ok((y, lx.shape().clone()))
    }

    fn bwd(
        &self,
        _x: &Tensor,
        _bias: &Tensor,
        y: &Tensor,
        gy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (gx, gb) = self.gradients(y, gy)?;
        Ok((Some(gx), Some(gb)))
    }
}
