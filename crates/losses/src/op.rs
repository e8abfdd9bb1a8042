//! The driver of every loss: it turns a value and gradients that are computed together into a scalar that
//! candle can differentiate through.
//!
//! A loss knows its gradient as soon as it knows its value (both come from the same probabilities), so it
//! computes the two in one pass over slices, and the backward pass is one scaling. If the same loss were
//! composed of candle's own ops, every intermediate result would stay in memory.
//!
//! An [`Objective`] is written once for f32 (training) and f64 (checks of gradients). Where it has kernels of
//! its own for CUDA ([`Objective::HAS_CUDA_KERNEL`]), inputs on a GPU go to them. Where it has none,
//! [`apply`] copies the inputs to the host, computes there in f32 as on any CPU, and copies the value and the
//! gradients back. This is slower, and the result is that of the CPU.
//!
//! ```
//! use candle_core::{Device, Result, Tensor, Var};
//! use invaspread_losses::op::{Float, Matrix, Objective, apply};
//!
//! /// Half the sum of squares of all features; its gradient is the features.
//! struct HalfSquares;
//!
//! impl Objective<1> for HalfSquares {
//!     const NAME: &'static str = "half squares";
//!
//!     fn evaluate<T: Float>(&self, [x]: [Matrix<'_, T>; 1]) -> Result<(f64, [Vec<T>; 1])> {
//!         let value = x.values.iter().map(|x| x.to_f64().powi(2)).sum::<f64>() / 2.0;
//!         Ok((value, [x.values.to_vec()]))
//!     }
//! }
//!
//! let features = Var::from_tensor(&Tensor::new(&[[1.0f32, 2.0], [3.0, 4.0]], &Device::Cpu)?)?;
//! let loss = apply(&HalfSquares, [&features])?;
//! assert_eq!(loss.to_scalar::<f32>()?, 15.0);
//! let gradients = loss.backward()?;
//! assert_eq!(gradients.get(&features).unwrap().to_vec2::<f32>()?, [[1.0, 2.0], [3.0, 4.0]]);
//! # Ok::<(), candle_core::Error>(())
//! ```

use candle_core::{DType, Device, Result, Storage, Tensor, bail};
use invaspread_tensor::differentiable;

pub use crate::float::Float;

/// A loss of `N` matrices whose value and gradients are computed together.
pub trait Objective<const N: usize> {
    /// The name with which the errors of this loss begin.
    const NAME: &'static str;

    /// Whether [`Objective::evaluate_on_device`] is implemented. If it is not, the loss of tensors on a GPU
    /// is computed on the host.
    const HAS_CUDA_KERNEL: bool = false;

    /// The inputs that are constants, such as the rows of a momentum encoder or of a queue: no gradient flows
    /// to them, which papers call a stop-gradient.
    const CONSTANT: [bool; N] = [false; N];

    /// Returns the loss and its gradient with respect to each input, in the shape of that input, row by
    /// row. The gradient of a constant input ([`Objective::CONSTANT`]) is an empty vector.
    ///
    /// # Errors
    /// If the loss is not defined for these inputs.
    fn evaluate<T: Float>(&self, inputs: [Matrix<'_, T>; N]) -> Result<(f64, [Vec<T>; N])>;

    /// Returns the loss and its gradients for inputs on CUDA, without waiting for the GPU: the loss as an
    /// f32 scalar on the GPU, the gradients as tensors. The gradient of a constant input is not used.
    ///
    /// # Errors
    /// If the loss is not defined for these inputs, or there is no kernel.
    fn evaluate_on_device(&self, inputs: [&Tensor; N]) -> Result<(Tensor, [Tensor; N])> {
        bail!("{}: no CUDA kernel for {N} inputs on {:?}", Self::NAME, inputs.map(Tensor::device))
    }
}

/// An input of a loss, row by row.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a, T> {
    /// `rows * columns` numbers.
    pub values: &'a [T],
    /// At least 1.
    pub rows: usize,
    /// At least 1.
    pub columns: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// Returns one row.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, row: usize) -> &'a [T] {
        &self.values[row * self.columns..(row + 1) * self.columns]
    }
}

/// Returns the loss of `inputs`, matrices of f32 or f64 on the CPU (f32 on CUDA), as a scalar tensor that
/// `backward` goes through.
///
/// # Errors
/// If an input is not a matrix or is empty, if inputs differ in data type, if the data type is neither f32
/// nor f64, or if the objective returns an error.
pub fn apply<const N: usize, O: Objective<N>>(objective: &O, inputs: [&Tensor; N]) -> Result<Tensor> {
    let name = O::NAME;
    let on_device = N > 0 && inputs[0].device().is_cuda();
    let (value, gradients) = if on_device && O::HAS_CUDA_KERNEL {
        let (value, gradients) = objective.evaluate_on_device(inputs)?;
        let mut of_variables = gradients.map(Some);
        for (gradient, constant) in of_variables.iter_mut().zip(O::CONSTANT) {
            if constant {
                *gradient = None;
            }
        }
        (value, of_variables)
    } else {
        match data_type(name, &inputs)? {
            DType::F64 => evaluate_on_host::<f64, N, O>(objective, inputs)?,
            _ => evaluate_on_host::<f32, N, O>(objective, inputs)?,
        }
    };
    // A constant input must not wait for a gradient that this op does not give.
    let kept: [Tensor; N] =
        std::array::from_fn(|i| if O::CONSTANT[i] { inputs[i].detach() } else { inputs[i].clone() });
    differentiable(name, kept.each_ref(), value, move |_, _, upstream| {
        let mut scaled = [const { None }; N];
        for (scaled, gradient) in scaled.iter_mut().zip(&gradients) {
            *scaled = gradient.as_ref().map(|gradient| scale(gradient, upstream)).transpose()?;
        }
        Ok(scaled)
    })
}

/// Applies the chain rule: `gradient * upstream`. If `backward` is called on the loss itself, upstream is 1,
/// and the CPU does not go over the gradient again. On a GPU nothing waits for the value of upstream.
fn scale(gradient: &Tensor, upstream: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if upstream.device().is_cuda() {
        return invaspread_tensor::cuda::scale_by(gradient, upstream);
    }
    let factor = upstream.to_dtype(DType::F64)?.to_scalar::<f64>()?;
    if factor.to_bits() == 1.0_f64.to_bits() {
        return Ok(gradient.clone());
    }
    gradient.affine(factor, 0.0)
}

/// Returns the common data type of the inputs, f32 or f64.
fn data_type(loss: &str, inputs: &[&Tensor]) -> Result<DType> {
    let Some(first) = inputs.first() else { bail!("{loss}: there is no input; give at least one") };
    let dtype = first.dtype();
    if let Some(other) = inputs.iter().find(|x| x.dtype() != dtype) {
        bail!("{loss}: inputs are {dtype:?} and {:?}; give both the same type", other.dtype())
    }
    match dtype {
        DType::F32 | DType::F64 => Ok(dtype),
        other => bail!("{loss}: inputs must be F32 or F64, they are {other:?}"),
    }
}

/// Returns value and gradients by [`Objective::evaluate`], on the device of the inputs. Constant inputs have
/// no gradient.
fn evaluate_on_host<T: Float, const N: usize, O: Objective<N>>(
    objective: &O,
    inputs: [&Tensor; N],
) -> Result<(Tensor, [Option<Tensor>; N])> {
    let name = O::NAME;
    let here: Vec<Tensor> =
        inputs.iter().map(|x| x.detach().to_device(&Device::Cpu)?.contiguous()).collect::<Result<_>>()?;
    let storages: Vec<_> = here.iter().map(Tensor::storage_and_layout).collect();
    let matrices: Vec<Matrix<'_, T>> = storages
        .iter()
        .map(|(storage, layout)| {
            let Storage::Cpu(storage) = &**storage else {
                bail!("{name}: the copy on the host does not exist")
            };
            let Some((start, end)) = layout.contiguous_offsets() else {
                bail!("{name}: a contiguous copy of a {:?} tensor is not contiguous", layout.shape())
            };
            let (rows, columns) = layout.shape().dims2()?;
            if rows == 0 || columns == 0 {
                bail!(
                    "{name}: an input has {rows} rows and {columns} columns; at least one of each is needed"
                )
            }
            Ok(Matrix { values: &T::cpu_storage_as_slice(storage)?[start..end], rows, columns })
        })
        .collect::<Result<_>>()?;
    let Ok(matrices) = matrices.try_into() else { unreachable!("there is a matrix for each of {N} inputs") };
    let (value, gradients) = objective.evaluate::<T>(matrices)?;
    let device = inputs[0].device();
    let gradients: Vec<Option<Tensor>> = gradients
        .into_iter()
        .zip(inputs)
        .zip(O::CONSTANT)
        .map(|((gradient, x), constant)| {
            if constant {
                return Ok(None);
            }
            Tensor::from_vec(gradient, x.shape(), &Device::Cpu)?.to_device(device).map(Some)
        })
        .collect::<Result<_>>()?;
    let Ok(gradients) = gradients.try_into() else {
        unreachable!("there is a gradient for each of {N} inputs")
    };
    Ok((Tensor::new(T::from_f64(value), &Device::Cpu)?.to_device(device)?, gradients))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{Float, Matrix, Objective, apply};
    use crate::testing::{gradient_of, matrix_f32, matrix_f64, values};
    use candle_core::{DType, Device, Result, Tensor, Var};

    /// The loss `Σ x y` over all elements.
    struct Together;

    impl Objective<2> for Together {
        const NAME: &'static str = "together";

        fn evaluate<T: Float>(&self, [x, y]: [Matrix<'_, T>; 2]) -> Result<(f64, [Vec<T>; 2])> {
            let value = x.values.iter().zip(y.values).map(|(&x, &y)| (x * y).to_f64()).sum();
            Ok((value, [y.values.to_vec(), x.values.to_vec()]))
        }
    }

    #[test]
    fn gradients_reach_both_inputs_and_take_the_factor_before_them() {
        for dtype in [DType::F32, DType::F64] {
            let variable = |x: &[f64]| Var::from_tensor(&matrix_f64(x, 2).to_dtype(dtype).unwrap()).unwrap();
            let (x, y) = (variable(&[1.0, 2.0, 3.0, 4.0]), variable(&[5.0, 6.0, 7.0, 8.0]));
            let loss = apply(&Together, [&x, &y]).unwrap();
            assert_eq!(values(&loss), [70.0]);
            let gradients = (loss * 3.0).unwrap().backward().unwrap();
            assert_eq!(values(gradients.get(&x).unwrap()), [15.0, 18.0, 21.0, 24.0]);
            assert_eq!(values(gradients.get(&y).unwrap()), [3.0, 6.0, 9.0, 12.0]);
        }
    }

    /// Checks a part of a larger tensor, and a transposed tensor.
    #[test]
    fn inputs_need_not_be_contiguous() {
        let x = matrix_f32(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3);
        let (narrow, turned) = (x.narrow(1, 1, 2).unwrap(), x.t().unwrap().narrow(0, 0, 2).unwrap());
        let (value, gradient) = gradient_of(&narrow, |x| apply(&Together, [x, &turned])).unwrap();
        assert_eq!(value.to_bits(), (2.0f64 + 3.0 * 4.0 + 5.0 * 2.0 + 6.0 * 5.0).to_bits());
        assert_eq!(gradient, [1.0, 4.0, 2.0, 5.0]);
    }

    #[test]
    fn what_is_no_matrix_of_one_type_is_refused() {
        let zeros = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, &Device::Cpu).unwrap();
        let says = |x: &Tensor, y: &Tensor, what: &str| {
            let error = apply(&Together, [x, y]).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        };
        let x = zeros(&[2, 2], DType::F32);
        says(&x, &zeros(&[2, 2], DType::F64), "F32 and F64");
        says(&zeros(&[2, 2], DType::U8), &zeros(&[2, 2], DType::U8), "must be F32 or F64");
        says(&zeros(&[0, 2], DType::F32), &x, "0 rows");
        says(&zeros(&[2], DType::F32), &x, "[2]");
    }
}
