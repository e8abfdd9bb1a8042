//! Puts a result that was computed beforehand into candle's graph, with a function that gives its gradients.
//!
//! candle's own custom ops work on storages, and run when they are applied. Results that are computed from
//! tensors, by kernels on the device or (as in losses) together with their gradients, enter the graph by this
//! function.

use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Storage, Tensor,
    backend::BackendStorage, bail,
};

/// Puts `y`, computed from one to three `inputs` on the same device, into candle's graph: `backward` is
/// called with the inputs, the result and its gradient, and gives each input's gradient. The result's values
/// are copied.
///
/// ```
/// use candle_core::{Device, Tensor, Var};
/// use invaspread_tensor::differentiable;
///
/// // x³ was computed elsewhere; its gradient is 3 x².
/// let x = Var::from_tensor(&Tensor::new(&[2f64], &Device::Cpu)?)?;
/// let y = Tensor::new(&[8f64], &Device::Cpu)?;
/// let cube = differentiable("cube", [x.as_tensor()], y, |[x], _y, gy| {
///     Ok([Some((x.sqr()? * 3.0)?.mul(gy)?)])
/// })?;
/// let gradients = cube.sum_all()?.backward()?;
/// assert_eq!(gradients.get(&x).unwrap().to_vec1::<f64>()?, [12.0]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// If there are no inputs or more than three, or the result is on another device than they are.
pub fn differentiable<const N: usize, F>(
    name: &'static str,
    inputs: [&Tensor; N],
    y: Tensor,
    backward: F,
) -> Result<Tensor>
where
    F: Fn([&Tensor; N], &Tensor, &Tensor) -> Result<[Option<Tensor>; N]> + Send + Sync + 'static,
{
    let first_to_last = y.is_contiguous() && y.layout().start_offset() == 0;
    let y = if first_to_last { y } else { y.force_contiguous()? };
    let backward = move |inputs: &[&Tensor], y: &Tensor, gy: &Tensor| match inputs.try_into() {
        Ok(inputs) => backward(inputs, y, gy).map(Vec::from),
        Err(_) => bail!("{name}: the backward pass got {} inputs, the forward pass {N}", inputs.len()),
    };
    let known = Known { name, y, backward };
    match &inputs[..] {
        [x] => x.apply_op1(known),
        [a, b] => a.apply_op2(b, known),
        [a, b, c] => a.apply_op3(b, c, known),
        other => bail!("{name}: {} inputs, expected one to three", other.len()),
    }
}

struct Known<F> {
    name: &'static str,
    y: Tensor,
    backward: F,
}

impl<F> Known<F>
where
    F: Fn(&[&Tensor], &Tensor, &Tensor) -> Result<Vec<Option<Tensor>>>,
{
    fn on_host(&self) -> Result<(CpuStorage, Shape)> {
        match &*self.y.storage_and_layout().0 {
            Storage::Cpu(storage) => Ok((storage.clone(), self.y.shape().clone())),
            _ => bail!("{}: the inputs are on the CPU, the result is not", self.name),
        }
    }

    fn on_device(&self) -> Result<(CudaStorage, Shape)> {
        let (storage, layout) = self.y.storage_and_layout();
        match &*storage {
            Storage::Cuda(storage) => Ok((storage.try_clone(layout)?, self.y.shape().clone())),
            _ => bail!("{}: the inputs are on CUDA, the result is not", self.name),
        }
    }

    fn gradients<const N: usize>(
        &self,
        inputs: [&Tensor; N],
        y: &Tensor,
        gy: &Tensor,
    ) -> Result<[Option<Tensor>; N]> {
        match (self.backward)(&inputs, y, gy)?.try_into() {
            Ok(gradients) => Ok(gradients),
            Err(other) => bail!("{}: {} gradients of {N} inputs", self.name, other.len()),
        }
    }
}

impl<F> CustomOp1 for Known<F>
where
    F: Fn(&[&Tensor], &Tensor, &Tensor) -> Result<Vec<Option<Tensor>>> + Send + Sync,
{
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.on_host()
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.on_device()
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, gy: &Tensor) -> Result<Option<Tensor>> {
        self.gradients([x], y, gy).map(|[gx]| gx)
    }
}

impl<F> CustomOp2 for Known<F>
where
    F: Fn(&[&Tensor], &Tensor, &Tensor) -> Result<Vec<Option<Tensor>>> + Send + Sync,
{
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.on_host()
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.on_device()
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        y: &Tensor,
        gy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        self.gradients([a, b], y, gy).map(Into::into)
    }
}

impl<F> CustomOp3 for Known<F>
where
    F: Fn(&[&Tensor], &Tensor, &Tensor) -> Result<Vec<Option<Tensor>>> + Send + Sync,
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
        self.on_host()
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
        self.on_device()
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        y: &Tensor,
        gy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        self.gradients([a, b, c], y, gy).map(Into::into)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::differentiable;
    use candle_core::{Device, Tensor, Var};

    /// Checks `x y + z` with known gradients against candle's own ops.
    #[test]
    fn a_known_result_differentiates_as_candles_own() {
        let variable =
            |values: [f64; 3]| Var::from_tensor(&Tensor::new(&values, &Device::Cpu).unwrap()).unwrap();
        let (x, y, z) = (variable([1.0, 2.0, 3.0]), variable([0.5, -1.0, 4.0]), variable([7.0, 8.0, 9.0]));
        let own = ((x.as_tensor() * y.as_tensor()).unwrap() + z.as_tensor()).unwrap();
        // This is a part of a larger tensor, so its values do not begin where its storage begins.
        let more = Tensor::cat(&[&own, &own], 0).unwrap().narrow(0, 3, 3).unwrap();
        let known = differentiable("known", [&x, &y, &z], more, |[x, y, _], _, gy| {
            Ok([Some((gy * y)?), Some((gy * x)?), Some(gy.clone())])
        })
        .unwrap();
        let [want, got] = [own, known].map(|result| {
            let gradients = (result.sqr().unwrap()).sum_all().unwrap().backward().unwrap();
            let of = |v: &Var| gradients.get(v).unwrap().to_vec1::<f64>().unwrap();
            [result.to_vec1().unwrap(), of(&x), of(&y), of(&z)]
        });
        assert_eq!(want, got);
    }

    #[test]
    fn too_many_inputs_are_refused() {
        let x = Tensor::new(1.0f32, &Device::Cpu).unwrap();
        let error =
            differentiable("four", [&x; 4], x.clone(), |_, _, gy| Ok([(); 4].map(|()| Some(gy.clone()))));
        assert!(error.unwrap_err().to_string().contains("four: 4 inputs"));
    }
}
