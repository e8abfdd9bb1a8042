//! Setting a parameter to other values.

use candle_core::{Result, Tensor, Var};

/// Sets a parameter to `value`, of its shape and type and on its device. On CUDA, candle's own [`Var::set`] would not
/// tell the convolutions that keep another form of the weight.
///
/// # Errors
/// If shape, type or device are not the parameter's.
#[expect(clippy::disallowed_methods, reason = "this is the place that the others are sent to")]
pub fn assign(parameter: &Var, value: &Tensor) -> Result<()> {
    #[cfg(feature = "cuda")]
    if parameter.device().is_cuda() {
        crate::cuda::forget_kept_weight(parameter)?;
    }
    parameter.set(value)
}
