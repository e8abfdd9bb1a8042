//! The addresses of values on the device.

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::CudaDType;
use candle_core::cuda_backend::cudarc::driver::{DevicePtr, DeviceRepr};
use candle_core::{CudaStorage, DType, Layout, Result, Storage, Tensor, bail};
use half::bf16;

/// Contiguous values on the device that an op reads. The tensor that owns them must live until the op is
/// launched. It need not live longer, since memory is freed in the order of the stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Input {
    pub(crate) address: u64,
    pub(crate) dtype: DType,
}

impl Input {
    pub(crate) fn of(tensor: &Tensor) -> Result<Self> {
        let (storage, layout) = tensor.storage_and_layout();
        match &*storage {
            Storage::Cuda(storage) => Self::stored(storage, layout),
            _ => bail!("cuda: expected a tensor on the device, found one on {:?}", tensor.device()),
        }
    }

    /// Returns the address of a tensor's first value, whatever its strides.
    pub(crate) fn first(tensor: &Tensor) -> Result<u64> {
        let (storage, layout) = tensor.storage_and_layout();
        match &*storage {
            Storage::Cuda(storage) => Self::at(storage, layout.start_offset()).map(|input| input.address),
            _ => bail!("cuda: expected a tensor on the device, found one on {:?}", tensor.device()),
        }
    }

    pub(crate) fn stored(storage: &CudaStorage, layout: &Layout) -> Result<Self> {
        let Some((start, _)) = layout.contiguous_offsets() else {
            bail!(
                "cuda: expected a contiguous tensor, found strides {:?} for {:?}",
                layout.stride(),
                layout.shape()
            )
        };
        Self::at(storage, start)
    }

    fn at(storage: &CudaStorage, start: usize) -> Result<Self> {
        let dtype = storage.dtype();
        let address = match dtype {
            DType::F32 => base::<f32>(storage)?,
            DType::F64 => base::<f64>(storage)?,
            DType::BF16 => base::<bf16>(storage)?,
            DType::U32 => base::<u32>(storage)?,
            DType::U8 => base::<u8>(storage)?,
            other => bail!("cuda: tensors of {other:?} are not used here"),
        };
        Ok(Self { address: address + (start * dtype.size_in_bytes()) as u64, dtype })
    }
}

fn base<T: CudaDType + DeviceRepr>(storage: &CudaStorage) -> Result<u64> {
    let slice = storage.as_cuda_slice::<T>()?;
    let stream = slice.stream();
    // No events are recorded on this device (see `libraries`), so the guard may be dropped at once.
    let (address, _guard) = slice.device_ptr(stream);
    Ok(address)
}
