//! Ops of one input and no parameters. This file runs the same op in f32 and in f64, on either device, inside
//! candle's graph and on the tape.

use crate::storage::{Scalar, for_scalar, slice, with};
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, backend::BackendStorage};

/// An op of one input, for inputs of one shape.
pub(crate) trait One: Clone + Send + Sync + 'static {
    /// Returns the op's name in errors and in candle.
    fn name(&self) -> &'static str;

    /// Returns the shape of the result for an input of shape `x`.
    fn shape(&self, x: &Shape) -> Shape;

    /// Returns the result for the values of an input.
    fn forward<T: Scalar>(&self, x: &[T]) -> Vec<T>;

    /// Returns the gradient of the input, given the input and the gradient of the result.
    fn backward<T: Scalar>(&self, x: &[T], gy: &[T]) -> Vec<T>;

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
        let y = for_scalar!(x.dtype(), self.0.name(), T => {
            candle_core::WithDType::to_cpu_storage_owned(self.0.forward(slice::<T>(x, layout)?))
        });
        Ok((y, self.0.shape(layout.shape())))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, gy: &Tensor) -> Result<Option<Tensor>> {
        self.0.gradient(x, gy).map(Some)
    }
}
