//! The values of a tensor on the CPU as a slice of f32 or f64.
//!
//! An op is written once over [`Scalar`]; [`for_scalar!`] is the one place where a tensor's data type picks
//! f32 or f64.

use candle_core::{CpuStorage, Layout, Result, Storage, Tensor, WithDType, bail};

/// A number type that ops compute in: f32 for training, f64 for checking gradients. Plain code, which is not
/// a kernel, reads the numbers as f64.
pub(crate) trait Scalar: WithDType {
    /// Returns the number in f64, exactly.
    fn read(self) -> f64;
    /// Returns the nearest number of this type.
    fn write(x: f64) -> Self;
}

impl Scalar for f32 {
    fn read(self) -> f64 {
        f64::from(self)
    }
    fn write(x: f64) -> Self {
        x as f32
    }
}

impl Scalar for f64 {
    fn read(self) -> f64 {
        self
    }
    fn write(x: f64) -> Self {
        x
    }
}

/// Evaluates an expression in which a type name stands for f32 or f64, according to a data type:
/// `for_scalar!(x.dtype(), "pool", T => f::<T>(x))`. Any other data type returns an error that begins with
/// the op's name.
macro_rules! for_scalar {
    ($dtype:expr, $op:expr, $scalar:ident => $body:expr) => {
        match $dtype {
            candle_core::DType::F32 => {
                type $scalar = f32;
                $body
            }
            candle_core::DType::F64 => {
                type $scalar = f64;
                $body
            }
            other => candle_core::bail!("{}: expected f32 or f64 values, found {other:?}", $op),
        }
    };
}
pub(crate) use for_scalar;

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

/// Returns the values of a contiguous CPU storage.
pub(crate) fn slice<'a, T: Scalar>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    let found = candle_core::backend::BackendStorage::dtype(storage);
    if found != T::DTYPE {
        bail!("expected {:?} values, found {found:?}", T::DTYPE)
    }
    Ok(&T::cpu_storage_as_slice(storage)?[range(layout)?])
}

/// Calls `f` with the values of a contiguous tensor on the CPU.
pub(crate) fn with<T: Scalar, R>(tensor: &Tensor, f: impl FnOnce(&[T]) -> R) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => Ok(f(slice(storage, layout)?)),
        _ => bail!("expected a tensor on the CPU"),
    }
}

/// Calls `f` with the f32 values of a contiguous tensor on the CPU.
///
/// # Errors
/// If the tensor is not contiguous, not f32, or not on the CPU.
pub fn with_f32<R>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> R) -> Result<R> {
    with(tensor, f)
}
