//! Sets a parameter to other values.

use candle_core::{Result, Tensor, Var};

/// Sets a parameter to `value`, which has its shape and type and lies on its device. Use it instead of
/// candle's own [`Var::set`]: on CUDA, convolutions keep a second form of the weight, which this function
/// discards.
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
