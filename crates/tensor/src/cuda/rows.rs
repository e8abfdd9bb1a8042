//! Row-wise kernels on small f32 matrices on the device.

use super::device_of;
use super::kernel::{Argument, launch};
use super::memory::{spread, uninitialized};
use candle_core::{DType, Result, Tensor, bail};

/// Threads of a block of warps; each warp takes one row.
const THREADS: u32 = 256;

/// Runs a kernel with one warp for each row; its arguments are the tensors and the two sizes.
fn by_rows(name: &str, tensors: &[&Tensor], rows: usize, dim: usize) -> Result<()> {
    let mut arguments = tensors.iter().map(|tensor| Argument::address(tensor)).collect::<Result<Vec<_>>>()?;
    arguments.extend([Argument::Int(rows as i32), Argument::Int(dim as i32)]);
    let grid = [(rows as u32).div_ceil(THREADS / 32), 1, 1];
    launch(device_of(tensors[0])?, "rows", name, grid, [THREADS, 1, 1], 0, &arguments)
}

fn like(x: &Tensor) -> Result<Tensor> {
    if x.dtype() != DType::F32 {
        bail!("cuda: expected rows of f32, found {:?}", x.dtype())
    }
    uninitialized(x.shape(), DType::F32, device_of(x)?)
}

/// Divides each row of `x` (N, D) by its length.
pub(crate) fn l2_normalize(x: &Tensor) -> Result<Tensor> {
    let (rows, dim) = x.dims2()?;
    let y = like(x)?;
    by_rows("l2_normalize", &[x, &y], rows, dim)?;
    Ok(y)
}

/// Returns the gradient of [`l2_normalize`].
pub(crate) fn l2_normalize_gradient(x: &Tensor, gy: &Tensor) -> Result<Tensor> {
    let (rows, dim) = x.dims2()?;
    let gx = like(x)?;
    by_rows("l2_normalize_gradient", &[x, gy, &gx], rows, dim)?;
    Ok(gx)
}

/// Returns the reciprocal of the length of each row of `x` (N, D): (N).
pub(crate) fn inverse_lengths(x: &Tensor) -> Result<Tensor> {
    let (rows, dim) = x.dims2()?;
    let lengths = uninitialized(rows, DType::F32, device_of(x)?)?;
    by_rows("inverse_lengths", &[x, &lengths], rows, dim)?;
    Ok(lengths)
}

/// Adds `bias` (E) to every row of `y` (N, E), in place.
pub(crate) fn add_bias(y: &Tensor, bias: &Tensor) -> Result<()> {
    let (rows, columns) = y.dims2()?;
    let (grid, block) = spread(rows * columns);
    let arguments = [
        Argument::address(y)?,
        Argument::address(bias)?,
        Argument::Int(rows as i32),
        Argument::Int(columns as i32),
    ];
    launch(device_of(y)?, "rows", "add_bias", grid, block, 0, &arguments)
}

/// Multiplies a tensor of f32 by a scalar on its device, without waiting for the scalar's value. (candle's
/// own product would copy the sizes to the device in each call.)
///
/// # Errors
/// If the two are not f32 on one device, or `factor` is not one number.
pub fn scale_by(x: &Tensor, factor: &Tensor) -> Result<Tensor> {
    let x = x.contiguous()?;
    if factor.dtype() != DType::F32 || factor.elem_count() != 1 {
        bail!("cuda: a factor of {:?} numbers of {:?}, expected one of f32", factor.shape(), factor.dtype())
    }
    let y = like(&x)?;
    let (grid, block) = spread(x.elem_count());
    let count = i32::try_from(x.elem_count()).map_err(candle_core::Error::wrap)?;
    let arguments =
        [Argument::address(&x)?, Argument::address(factor)?, Argument::address(&y)?, Argument::Int(count)];
    launch(device_of(&x)?, "rows", "scale_by", grid, block, 0, &arguments)?;
    Ok(y)
}

/// Returns the sum of the rows of `x` (N, E): (E).
pub(crate) fn sum_rows(x: &Tensor) -> Result<Tensor> {
    let (rows, columns) = x.dims2()?;
    let sums = uninitialized(columns, DType::F32, device_of(x)?)?;
    let arguments = [
        Argument::address(x)?,
        Argument::address(&sums)?,
        Argument::Int(rows as i32),
        Argument::Int(columns as i32),
    ];
    let grid = [(columns as u32).div_ceil(32), 1, 1];
    launch(device_of(x)?, "rows", "sum_rows", grid, [32, 8, 1], 0, &arguments)?;
    Ok(sums)
}
