//! The values of a tensor on the CPU as a slice, and the conversion between f32 and bf16.
//!
//! An op is written once over [`Scalar`]; [`for_scalar!`] is the one place where a tensor's data type picks
//! f32 or f64.

#![expect(unsafe_code, reason = "vector loads and stores of whole vectors inside of a slice")]

use crate::memory::uninitialized;
use crate::simd::{Kernel, Number, Vector, dispatch};
use crate::team;
use candle_core::{CpuStorage, DType, Layout, Result, Storage, Tensor, WithDType, bail};
use half::bf16;

/// A number type of tensors: f32 for training, f64 for checking gradients, bf16 for activations and their
/// gradients. Plain code, which is not a kernel, reads the numbers as f64.
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

impl Scalar for bf16 {
    fn read(self) -> f64 {
        self.to_f64()
    }
    fn write(x: f64) -> Self {
        Self::from_f64(x)
    }
}

/// Values that one task converts.
const BLOCK: usize = 1 << 14;

/// Writes the nearest numbers of another type; both slices have one length.
pub(crate) struct Convert<'a, A, B> {
    pub(crate) from: &'a [A],
    pub(crate) to: &'a mut [B],
}

impl<A: Number + Scalar, B: Number + Scalar> Kernel for Convert<'_, A, B> {
    const BF16: bool = B::HALF;

    #[inline(always)]
    fn run<V: Vector>(self) {
        let whole = self.from.len() / V::LANES * V::LANES;
        for at in (0..whole).step_by(V::LANES) {
            // SAFETY: a whole vector of both slices, which have equal lengths.
            unsafe { B::store(A::load::<V>(self.from.as_ptr().add(at)), self.to.as_mut_ptr().add(at)) };
        }
        for (from, to) in self.from[whole..].iter().zip(&mut self.to[whole..]) {
            *to = B::write(from.read());
        }
    }
}

/// Writes the nearest numbers of another type.
///
/// # Panics
/// If the lengths differ.
pub(crate) fn convert_into<A: Number + Scalar, B: Number + Scalar>(from: &[A], to: &mut [B]) {
    assert_eq!(from.len(), to.len());
    dispatch(Convert { from, to });
}

/// Returns the nearest numbers of another type.
pub(crate) fn converted<A: Number + Scalar, B: Number + Scalar>(from: &[A]) -> Vec<B> {
    let mut values = uninitialized(from.len());
    team::for_each_chunk(&mut values, BLOCK, |i, to| convert_into(&from[i * BLOCK..][..to.len()], to));
    values
}

/// Calls `f` with the values of a contiguous tensor of f32 or bf16 on the CPU, in f32.
pub(crate) fn with_widened<R>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> R) -> Result<R> {
    if tensor.dtype() == DType::BF16 {
        with::<bf16, _>(tensor, |values| f(&converted(values)))
    } else {
        with::<f32, _>(tensor, f)
    }
}

/// Returns a tensor of the data type of `like`, which is f32 or bf16, and of its shape.
pub(crate) fn narrowed_like(values: Vec<f32>, like: &Tensor) -> Result<Tensor> {
    if like.dtype() == DType::BF16 {
        return Tensor::from_vec(converted::<f32, bf16>(&values), like.shape(), like.device());
    }
    Tensor::from_vec(values, like.shape(), like.device())
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
