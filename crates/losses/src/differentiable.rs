//! From a value and gradients computed on slices to a scalar that candle can differentiate through, and the checks before that.
//!
//! A loss knows its gradient as soon as it knows its value (both come from the same probabilities), so the custom op holds the
//! two and its backward pass is one scaling. Composing the same loss from candle's own ops would hold every intermediate.

use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, DType, Device, Layout, Result, Shape, Storage, Tensor, bail,
};

use crate::float::Float;

/// A loss of one tensor and its gradient there.
pub(crate) fn scalar_of_one(name: &'static str, x: &Tensor, value: f64, gradient: Tensor) -> Result<Tensor> {
    x.apply_op1(Known { name, value, gradients: [gradient] })
}

/// A loss of two tensors and its gradients there.
pub(crate) fn scalar_of_two(
    name: &'static str,
    [x, y]: [&Tensor; 2],
    value: f64,
    gradients: [Tensor; 2],
) -> Result<Tensor> {
    x.apply_op2(y, Known { name, value, gradients })
}

/// A loss on the device and its gradients, as candle can differentiate through them. Nothing waits for the device.
#[cfg(feature = "cuda")]
pub(crate) fn scalar_on_device<const N: usize>(
    name: &'static str,
    inputs: [&Tensor; N],
    value: Tensor,
    gradients: [Tensor; N],
) -> Result<Tensor>
where
    OnDevice<N>: Applied<N>,
{
    OnDevice { name, value, gradients }.applied(inputs)
}

/// Hands the tensor's elements, row by row, to `work`.
pub(crate) fn with_elements<T: Float, R>(x: &Tensor, work: impl FnOnce(&[T]) -> Result<R>) -> Result<R> {
    let x = x.contiguous()?;
    let (storage, layout) = x.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else {
        bail!("this loss is computed on the CPU, its input is on {:?}: move it with to_device", x.device())
    };
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("a contiguous copy of a {:?} tensor is not contiguous", x.shape())
    };
    work(&T::cpu_storage_as_slice(storage)?[start..end])
}

/// Rows on the CPU from what a kernel computed.
pub(crate) fn tensor<T: Float>(values: Vec<T>, rows: usize, columns: usize) -> Result<Tensor> {
    Tensor::from_vec(values, (rows, columns), &Device::Cpu)
}

/// The two sizes of a matrix with at least one row and one column, or an error that says which input of which loss it was.
pub(crate) fn matrix(loss: &str, what: &str, x: &Tensor) -> Result<(usize, usize)> {
    match x.dims() {
        &[rows, columns] if rows > 0 && columns > 0 => Ok((rows, columns)),
        other => bail!(
            "{loss}: {what} must be a matrix of at least one row and one column, its shape is {other:?}"
        ),
    }
}

/// Whether to compute in f64; f32 otherwise. Any other type, or two inputs that differ, is an error.
pub(crate) fn is_double(loss: &str, inputs: &[&Tensor]) -> Result<bool> {
    let dtype = inputs[0].dtype();
    if let Some(other) = inputs.iter().find(|x| x.dtype() != dtype) {
        bail!("{loss}: inputs are {dtype:?} and {:?}; give both the same type", other.dtype())
    }
    match dtype {
        DType::F32 => Ok(false),
        DType::F64 => Ok(true),
        other => bail!("{loss}: inputs must be F32 or F64, they are {other:?}"),
    }
}

/// An error unless there are `rows` indices, each below `below`.
pub(crate) fn check_index(loss: &str, what: &str, index: &[u32], rows: usize, below: usize) -> Result<()> {
    if index.len() != rows {
        bail!("{loss}: {} {what} for {rows} rows of features; give one for each row", index.len())
    }
    if let Some((row, &found)) = index.iter().enumerate().find(|&(_, &i)| i as usize >= below) {
        bail!("{loss}: {what} {found} (row {row}) is out of range, there are {below}")
    }
    Ok(())
}

/// An error unless a temperature is a positive number.
pub(crate) fn check_temperature(loss: &str, temperature: f64) -> Result<()> {
    if !(temperature > 0.0 && temperature.is_finite()) {
        bail!("{loss}: temperature must be a positive number, it is {temperature}")
    }
    Ok(())
}

/// [`Known`] for the device, where the value is a tensor.
#[cfg(feature = "cuda")]
pub(crate) struct OnDevice<const N: usize> {
    name: &'static str,
    value: Tensor,
    gradients: [Tensor; N],
}

#[cfg(feature = "cuda")]
mod on_device {
    use super::OnDevice;
    use candle_core::backend::BackendStorage;
    use candle_core::{
        CpuStorage, CudaStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Storage, Tensor, bail,
    };

    /// The op applied, by the number of inputs.
    pub(crate) trait Applied<const N: usize> {
        fn applied(self, inputs: [&Tensor; N]) -> Result<Tensor>;
    }

    impl Applied<1> for OnDevice<1> {
        fn applied(self, [x]: [&Tensor; 1]) -> Result<Tensor> {
            x.apply_op1(self)
        }
    }

    impl Applied<2> for OnDevice<2> {
        fn applied(self, [x, y]: [&Tensor; 2]) -> Result<Tensor> {
            x.apply_op2(y, self)
        }
    }

    impl<const N: usize> OnDevice<N> {
        fn output(&self) -> Result<(CudaStorage, Shape)> {
            let (storage, layout) = self.value.storage_and_layout();
            match &*storage {
                Storage::Cuda(storage) => Ok((storage.try_clone(layout)?, Shape::from(()))),
                _ => bail!("{}: the value is not on the device", self.name),
            }
        }

        fn scaled(&self, which: usize, upstream: &Tensor) -> Result<Tensor> {
            self.gradients[which].broadcast_mul(upstream)
        }
    }

    impl CustomOp1 for OnDevice<1> {
        fn name(&self) -> &'static str {
            self.name
        }

        fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
            bail!("{}: computed on CUDA, asked for on the CPU", self.name)
        }

        fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
            self.output()
        }

        fn bwd(&self, _: &Tensor, _: &Tensor, upstream: &Tensor) -> Result<Option<Tensor>> {
            self.scaled(0, upstream).map(Some)
        }
    }

    impl CustomOp2 for OnDevice<2> {
        fn name(&self) -> &'static str {
            self.name
        }

        fn cpu_fwd(
            &self,
            _: &CpuStorage,
            _: &Layout,
            _: &CpuStorage,
            _: &Layout,
        ) -> Result<(CpuStorage, Shape)> {
            bail!("{}: computed on CUDA, asked for on the CPU", self.name)
        }

        fn cuda_fwd(
            &self,
            _: &CudaStorage,
            _: &Layout,
            _: &CudaStorage,
            _: &Layout,
        ) -> Result<(CudaStorage, Shape)> {
            self.output()
        }

        fn bwd(
            &self,
            _: &Tensor,
            _: &Tensor,
            _: &Tensor,
            upstream: &Tensor,
        ) -> Result<(Option<Tensor>, Option<Tensor>)> {
            Ok((Some(self.scaled(0, upstream)?), Some(self.scaled(1, upstream)?)))
        }
    }
}

#[cfg(feature = "cuda")]
pub(crate) use on_device::Applied;

/// The op: a value that was computed already, with its gradients.
struct Known<const N: usize> {
    name: &'static str,
    value: f64,
    gradients: [Tensor; N],
}

impl<const N: usize> Known<N> {
    fn output(&self) -> (CpuStorage, Shape) {
        let storage = match self.gradients[0].dtype() {
            DType::F64 => CpuStorage::F64(vec![self.value]),
            _ => CpuStorage::F32(vec![self.value as f32]),
        };
        (storage, Shape::from(()))
    }

    /// Chain rule: `gradient * upstream`; a loss that is backpropagated from directly has upstream 1 and costs no pass.
    fn scaled(&self, which: usize, upstream: &Tensor) -> Result<Tensor> {
        let factor = upstream.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        if factor.to_bits() == 1.0_f64.to_bits() {
            return Ok(self.gradients[which].clone());
        }
        self.gradients[which].affine(factor, 0.0)
    }
}

impl CustomOp1 for Known<1> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok(self.output())
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, upstream: &Tensor) -> Result<Option<Tensor>> {
        self.scaled(0, upstream).map(Some)
    }
}

impl CustomOp2 for Known<2> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok(self.output())
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        upstream: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((Some(self.scaled(0, upstream)?), Some(self.scaled(1, upstream)?)))
    }
}
