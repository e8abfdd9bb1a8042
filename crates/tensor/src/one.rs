//! Ops of one input and no parameters: how the same op runs on either device, inside candle's graph and on the tape.

use candle_core::{CustomOp1, Result, Tensor};

/// Such an op. On the CPU it is candle's custom op that runs; on CUDA the result is computed first and candle handed it, because its
/// custom ops see storages, where our kernels' callers see tensors.
pub(crate) trait One: CustomOp1 + Clone + Send + Sync + 'static {
    /// The op on a contiguous CUDA tensor.
    #[cfg(feature = "cuda")]
    fn on_device(&self, x: &Tensor) -> Result<Tensor>;

    /// The op on a contiguous tensor, outside of candle's graph.
    fn run(&self, x: &Tensor) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            return self.on_device(x);
        }
        x.detach().apply_op1_no_bwd(self)
    }
}

/// The op on a contiguous tensor, differentiable by candle.
pub(crate) fn apply_one(x: &Tensor, op: impl One) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        let y = op.on_device(x)?;
        let name = op.name();
        let backward = move |[x]: [&Tensor; 1], y: &Tensor, gy: &Tensor| op.bwd(x, y, gy).map(|gx| [gx]);
        return crate::cuda::differentiable(name, [x], y, backward);
    }
    x.apply_op1(op)
}
