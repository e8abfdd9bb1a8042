//! Conversion between PyTorch's layouts, which weight files have, and the layouts in memory. A convolution is
//! (C_out, C_in, K, K) in a file and (K, K, C_in, C_out) in memory.

use candle_core::{Result, Tensor, Var};
use std::collections::HashMap;

/// Returns a copy of a parameter or gradient in PyTorch's layout, on the same device.
pub(crate) fn to_pytorch_layout(tensor: &Tensor) -> Result<Tensor> {
    let tensor = tensor.detach();
    if tensor.rank() == 4 { tensor.permute((3, 2, 0, 1))?.contiguous() } else { tensor.copy() }
}

/// Converts a parameter from PyTorch's layout to the layout of this crate.
fn to_our_layout(tensor: &Tensor) -> Result<Tensor> {
    if tensor.rank() == 4 { tensor.permute((2, 3, 1, 0))?.contiguous() } else { Ok(tensor.clone()) }
}

/// Sets those of `parameters` that were found, converted to their type and device.
pub(crate) fn take_up(parameters: &[(String, Var)], found: &HashMap<String, Tensor>) -> Result<()> {
    for (name, parameter) in parameters {
        if let Some(tensor) = found.get(name) {
            let tensor = to_our_layout(tensor)?.to_dtype(parameter.dtype())?;
            invaspread_tensor::assign(parameter, &tensor.to_device(parameter.device())?)?;
        }
    }
    Ok(())
}
