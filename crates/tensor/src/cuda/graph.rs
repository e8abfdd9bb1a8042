//! Makes the results of our kernels part of candle's graph.

use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Storage, Tensor,
    backend::BackendStorage,
};

/// Makes a result that is already computed part of candle's graph. `backward` is called with the inputs, the
/// result and its gradient, and returns the gradient of each input. (candle's custom ops take storages; the
/// callers of our kernels have tensors. Networks run on the tape and avoid the copy that this makes.)
pub(crate) fn differentiable<const N: usize, F>(
    name: &'static str,
    inputs: [&Tensor; N],
    y: Tensor,
    backward: F,
) -> Result<Tensor>
where
    F: Fn([&Tensor; N], &Tensor, &Tensor) -> Result<[Option<Tensor>; N]> + Send + Sync + 'static,
    Computed<N, F>: Apply<N>,
{
    Computed { name, y, backward }.apply(inputs)
}

pub(crate) struct Computed<const N: usize, F> {
    name: &'static str,
    y: Tensor,
    backward: F,
}

/// Gives the result to candle, by the number of inputs.
pub(crate) trait Apply<const N: usize> {
    fn apply(self, inputs: [&Tensor; N]) -> Result<Tensor>;
}

impl<const N: usize, F> Computed<N, F> {
    fn result(&self) -> Result<(CudaStorage, Shape)> {
        let (storage, layout) = self.y.storage_and_layout();
        match &*storage {
            Storage::Cuda(storage) => Ok((storage.try_clone(layout)?, self.y.shape().clone())),
            _ => candle_core::bail!("{}: the result is not on the device", self.name),
        }
    }

    fn not_here(&self) -> Result<(CpuStorage, Shape)> {
        candle_core::bail!("{}: computed on CUDA, asked for on the CPU", self.name)
    }
}

impl<F> CustomOp1 for Computed<1, F>
where
    F: Fn([&Tensor; 1], &Tensor, &Tensor) -> Result<[Option<Tensor>; 1]>,
{
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.not_here()
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.result()
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, gy: &Tensor) -> Result<Option<Tensor>> {
        (self.backward)([x], y, gy).map(|[gx]| gx)
    }
}

impl<F> CustomOp2 for Computed<2, F>
where
    F: Fn([&Tensor; 2], &Tensor, &Tensor) -> Result<[Option<Tensor>; 2]>,
{
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.not_here()
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.result()
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        y: &Tensor,
        gy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        (self.backward)([a, b], y, gy).map(Into::into)
    }
}

impl<F> CustomOp3 for Computed<3, F>
where
    F: Fn([&Tensor; 3], &Tensor, &Tensor) -> Result<[Option<Tensor>; 3]>,
{
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.not_here()
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.result()
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        y: &Tensor,
        gy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        (self.backward)([a, b, c], y, gy).map(Into::into)
    }
}

impl<F> Apply<1> for Computed<1, F>
where
    F: Fn([&Tensor; 1], &Tensor, &Tensor) -> Result<[Option<Tensor>; 1]> + Send + Sync + 'static,
{
    fn apply(self, [x]: [&Tensor; 1]) -> Result<Tensor> {
        x.apply_op1(self)
    }
}

impl<F> Apply<2> for Computed<2, F>
where
    F: Fn([&Tensor; 2], &Tensor, &Tensor) -> Result<[Option<Tensor>; 2]> + Send + Sync + 'static,
{
    fn apply(self, [a, b]: [&Tensor; 2]) -> Result<Tensor> {
        a.apply_op2(b, self)
    }
}

impl<F> Apply<3> for Computed<3, F>
where
    F: Fn([&Tensor; 3], &Tensor, &Tensor) -> Result<[Option<Tensor>; 3]> + Send + Sync + 'static,
{
    fn apply(self, [a, b, c]: [&Tensor; 3]) -> Result<Tensor> {
        a.apply_op3(b, c, self)
    }
}
