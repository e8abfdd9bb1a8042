//! The values of a tensor on the CPU as a slice.

use candle_core::{CpuStorage, Layout, Result, Storage, Tensor, bail};

fn range(layout: &Layout) -> Result<std::ops::Range<usize>> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(start..end),
        None => bail!(
            "expected a contiguous tensor, found strides {:?} for {:?}",
            layout.stride(),
            layout.shape()
        ),
    }
}

/// The f32 values of a contiguous CPU storage.
pub(crate) fn slice_f32<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match storage {
        CpuStorage::F32(values) => Ok(&values[range(layout)?]),
        other => bail!("expected f32 values, found {:?}", candle_core::backend::BackendStorage::dtype(other)),
    }
}

/// The f64 values of a contiguous CPU storage.
pub(crate) fn slice_f64<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f64]> {
    match storage {
        CpuStorage::F64(values) => Ok(&values[range(layout)?]),
        other => bail!(
            "expected f32 or f64 values, found {:?}",
            candle_core::backend::BackendStorage::dtype(other)
        ),
    }
}

/// Calls `f` with the f32 values of a contiguous tensor on the CPU.
///
/// # Errors
/// If the tensor is not contiguous, not f32, or not on the CPU.
pub fn with_f32<R>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => Ok(f(slice_f32(storage, layout)?)),
        _ => bail!("expected a tensor on the CPU"),
    }
}

/// Calls `f` with the f64 values of a contiguous tensor on the CPU.
///
/// # Errors
/// If the tensor is not contiguous, not f64, or not on the CPU.
pub fn with_f64<R>(tensor: &Tensor, f: impl FnOnce(&[f64]) -> R) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => Ok(f(slice_f64(storage, layout)?)),
        _ => bail!("expected a tensor on the CPU"),
    }
}
