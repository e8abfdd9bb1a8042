//! Ops of one input and no parameters. This file runs the same op in f32, in f64 and on bf16, on either
//! device, inside candle's graph and on the tape. On the CPU, values in bf16 are computed with in f32.

use crate::storage::{Scalar, converted, for_scalar, narrowed_like, slice, with, with_widened};
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor, backend::BackendStorage};
use half::bf16;

/// An op of one input, for inputs of one shape.
pub(crate) trait One: Clone + Send + Sync + 'static {
    /// Returns the op's name in errors and in candle.
    fn name(&self) -> &'static str;

    /// Returns whether the result for an input in bf16 is f32.
    fn widens(&self) -> bool {
        false
    }

    /// Returns the shape of the result for an input of shape `x`.
    fn shape(&self, x: &Shape) -> Shape;

    /// Returns the result for the values of an input.
    fn forward<T: Scalar>(&self, x: &[T]) -> Vec<T>;

    /// Returns the gradient of the input, given the input and the gradient of the result.
    fn backward<T: Scalar>(&self, x: &[T], gy: &[T]) -> Vec<T>;

    /// Returns the same as [`One::forward`] in f32, for ops that have a faster version.
    fn forward_f32(&self, x: &[f32]) -> Vec<f32> {
        self.forward(x)
    }

    /// Returns the same as [`One::backward`] in f32, for ops that have a faster version.
    fn backward_f32(&self, x: &[f32], gy: &[f32]) -> Vec<f32> {
        self.backward(x, gy)
    }

    /// Returns the result for a contiguous CUDA tensor.
    #[cfg(feature = "cuda")]
    fn on_device(&self, x: &Tensor) -> Result<Tensor>;

    /// Does the same as [`One::backward`] on CUDA.
    #[cfg(feature = "cuda")]
    fn gradient_on_device(&self, x: &Tensor, gy: &Tensor) -> Result<Tensor>;

    /// Runs the op on a contiguous tensor, outside of candle's graph.
    fn run(&self, x: &Tensor) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            return self.on_device(x);
        }
        x.detach().apply_op1_no_bwd(&OneOp(self.clone()))
    }

    /// Returns the gradient of the contiguous input `x`, on its device.
    fn gradient(&self, x: &Tensor, gy: &Tensor) -> Result<Tensor> {
        let gy = gy.contiguous()?;
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            return self.gradient_on_device(x, &gy);
        }
        if x.dtype() == DType::BF16 {
            let gx = with_widened(x, |x| with_widened(&gy, |gy| self.backward(x, gy)))??;
            return narrowed_like(gx, x);
        }
        if x.dtype() == DType::F32 {
            let gx = with(x, |x| with(&gy, |gy| self.backward_f32(x, gy)))??;
            return Tensor::from_vec(gx, x.shape(), x.device());
        }
        for_scalar!(x.dtype(), self.name(), T => {
            let gx = with::<T, _>(x, |x| with::<T, _>(&gy, |gy| self.backward(x, gy)))??;
            Tensor::from_vec(gx, x.shape(), x.device())
        })
    }
}

/// Runs the op on a contiguous tensor, so that candle can differentiate through it.
pub(crate) fn apply_one(x: &Tensor, op: impl One) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        let y = op.on_device(x)?;
        let name = op.name();
        let backward = move |[x]: [&Tensor; 1], _: &Tensor, gy: &Tensor| Ok([Some(op.gradient(x, gy)?)]);
        return crate::differentiable(name, [x], y, backward);
    }
    x.apply_op1(OneOp(op))
}

/// The op as a custom op of candle, on the CPU. On CUDA the result is computed first and then put into
/// candle's graph, because custom ops work on storages and the functions that launch our kernels work on
/// tensors.
pub(crate) struct OneOp<O>(pub(crate) O);

impl<O: One> CustomOp1 for OneOp<O> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        if let CpuStorage::BF16(_) = x {
            let y = self.0.forward(&converted::<bf16, f32>(slice(x, layout)?));
            let y = if self.0.widens() { CpuStorage::F32(y) } else { CpuStorage::BF16(converted(&y)) };
            return Ok((y, self.0.shape(layout.shape())));
        }
        if let CpuStorage::F32(_) = x {
            let y = self.0.forward_f32(slice(x, layout)?);
            return Ok((CpuStorage::F32(y), self.0.shape(layout.shape())));
        }
        let y = for_scalar!(x.dtype(), self.0.name(), T => {
            candle_core::WithDType::to_cpu_storage_owned(self.0.forward(slice::<T>(x, layout)?))
        });
        Ok((y, self.0.shape(layout.shape())))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, gy: &Tensor) -> Result<Option<Tensor>> {
        self.0.gradient(x, gy).map(Some)
    }
}
