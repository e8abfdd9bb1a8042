//! PyTorch's layouts, in which weights are on disk, and the ones in memory. A convolution is (C_out, C_in, K, K) there and
//! (K, K, C_in, C_out) here.

use candle_core::{Result, Tensor, Var};
use std::collections::HashMap;

/// A parameter or gradient as PyTorch lays it out: a copy, on the device that it is on.
pub(crate) fn to_pytorch_layout(tensor: &Tensor) -> Result<Tensor> {
    let tensor = tensor.detach();
    if tensor.rank() == 4 { tensor.permute((3, 2, 0, 1))?.contiguous() } else { tensor.copy() }
}

/// A parameter of PyTorch's as it lies in memory here.
fn to_our_layout(tensor: &Tensor) -> Result<Tensor> {
    if tensor.rank() == 4 { tensor.permute((2, 3, 1, 0))?.contiguous() } else { Ok(tensor.clone()) }
}

/// Sets those of `parameters` that were found, in their type and on their device.
pub(crate) fn take_up(parameters: &[(String, Var)], found: &HashMap<String, Tensor>) -> Result<()> {
    for (name, parameter) in parameters {
        if let Some(tensor) = found.get(name) {
            let tensor = to_our_layout(tensor)?.to_dtype(parameter.dtype())?;
            parameter.set(&tensor.to_device(parameter.device())?)?;
        }
    }
    Ok(())
}
