//! Bias and ReLU on the device.

use super::by_channels::grid;
use super::device_of;
use super::kernel::{Argument, launch};
use super::memory::{check_type, uninitialized};
use super::rows::sum_rows;
use candle_core::{D, DType, Result, Tensor};

/// Returns `max(x + bias, 0)` for `x` (..., C) and `bias` (C).
pub(crate) fn bias_relu(x: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let device = device_of(x)?;
    let channels = bias.elem_count();
    let rows = x.elem_count() / channels;
    let g = grid(device, "bias_relu", x.dtype(), [1, rows, channels])?;
    let y = uninitialized(x.shape(), x.dtype(), device)?;
    let arguments = [
        Argument::address(x)?,
        Argument::address(bias)?,
        Argument::address(&y)?,
        Argument::Int(rows as i32),
        Argument::Int(channels as i32),
    ];
    launch(device, "bias_relu", &format!("bias_relu_{}", g.suffix), g.blocks, g.block, 0, &arguments)?;
    Ok(y)
}

/// Channels and rows of a block's threads, as in the kernel, and the largest number of pieces in which rows
/// are summed.
const BLOCK: [u32; 2] = [32, 8];
const PIECES: usize = 256;

/// Returns the gradients of the input and the bias, given the output and its gradient.
pub(crate) fn bias_relu_gradients(y: &Tensor, gy: &Tensor) -> Result<(Tensor, Tensor)> {
    let device = device_of(y)?;
    let channels = y.dim(D::Minus1)?;
    let rows = y.elem_count() / channels;
    let pieces = rows.div_ceil(BLOCK[1] as usize * 8).clamp(1, PIECES);
    let gx = uninitialized(y.shape(), y.dtype(), device)?;
    let sums = uninitialized((pieces, channels), DType::F32, device)?;
    let arguments = [
        Argument::address(y)?,
        Argument::address(gy)?,
        Argument::address(&gx)?,
        Argument::address(&sums)?,
        Argument::Long(rows as i64),
        Argument::Int(channels as i32),
    ];
    let grid = [(channels as u32).div_ceil(BLOCK[0]), pieces as u32, 1];
    let name = format!("bias_relu_gradient_{}", check_type("bias_relu", y.dtype())?);
    launch(device, "bias_relu", &name, grid, [BLOCK[0], BLOCK[1], 1], 0, &arguments)?;
    Ok((gx, sum_rows(&sums)?))
}
