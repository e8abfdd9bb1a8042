//! Pooling and local response norm on the device.

use super::device_of;
use super::kernel::{Argument, launch_with};
use super::memory::{check_type, spread, uninitialized};
use crate::{LocalResponseNormConfig, LocalResponseWindow};
use candle_core::cuda_backend::cudarc::driver::DeviceRepr;
use candle_core::{DType, Result, Tensor};

/// The struct `Window` of `kernels/pool.cu`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Window {
    pub(crate) h: i32,
    pub(crate) w: i32,
    pub(crate) c: i32,
    pub(crate) out_h: i32,
    pub(crate) out_w: i32,
    pub(crate) kernel: i32,
    pub(crate) stride: i32,
    pub(crate) padding: i32,
}

// SAFETY: eight ints in C's layout, as the kernels declare them.
unsafe impl DeviceRepr for Window {}

/// The struct `Normalization` of `kernels/local_response_norm.cu`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Normalization {
    rows: i32,
    channels: i32,
    size: i32,
    cross_map: i32,
    alpha: f32,
    beta: f32,
    k: f32,
}

// SAFETY: four ints and three floats in C's layout, as the kernels declare them.
unsafe impl DeviceRepr for Normalization {}

/// Runs a kernel with one thread for each value of `to`; its arguments are the addresses of `from` and `to`,
/// the number of values, and the window.
fn pool(name: &str, from: &[&Tensor], to: Tensor, window: Window) -> Result<Tensor> {
    let count = to.elem_count();
    let mut arguments = from.iter().map(|tensor| Argument::address(tensor)).collect::<Result<Vec<_>>>()?;
    arguments.extend([Argument::address(&to)?, Argument::Long(count as i64)]);
    let (grid, block) = spread(count);
    launch_with(device_of(&to)?, "pool", name, grid, block, 0, &arguments, Some(&window))?;
    Ok(to)
}

impl Window {
    fn output(&self, x: &Tensor) -> Result<[usize; 4]> {
        Ok([x.dim(0)?, self.out_h as usize, self.out_w as usize, self.c as usize])
    }
}

/// Returns the maximum over each window.
pub(crate) fn maximum(x: &Tensor, window: Window) -> Result<Tensor> {
    let y = uninitialized(window.output(x)?.as_slice(), x.dtype(), device_of(x)?)?;
    pool(&format!("max_pool_{}", check_type("max_pool2d", x.dtype())?), &[x], y, window)
}

/// Returns the gradient of [`maximum`].
pub(crate) fn maximum_gradient(x: &Tensor, gy: &Tensor, window: Window) -> Result<Tensor> {
    let gx = uninitialized(x.shape(), x.dtype(), device_of(x)?)?;
    pool(&format!("max_pool_gradient_{}", check_type("max_pool2d", x.dtype())?), &[x, gy], gx, window)
}

/// Returns the mean over each window, in the type `to`.
pub(crate) fn average(x: &Tensor, window: Window, to: DType) -> Result<Tensor> {
    let y = uninitialized(window.output(x)?.as_slice(), to, device_of(x)?)?;
    let name =
        format!("average_pool_{}_{}", check_type("avg_pool2d", x.dtype())?, check_type("avg_pool2d", to)?);
    pool(&name, &[x], y, window)
}

/// Returns the gradient of [`average`] for an input like `x`.
pub(crate) fn average_gradient(x: &Tensor, gy: &Tensor, window: Window) -> Result<Tensor> {
    let gx = uninitialized(x.shape(), x.dtype(), device_of(x)?)?;
    let from = check_type("avg_pool2d", gy.dtype())?;
    pool(&format!("average_pool_gradient_{from}_{}", check_type("avg_pool2d", x.dtype())?), &[gy], gx, window)
}

fn normalization(x: &Tensor, config: LocalResponseNormConfig) -> Result<Normalization> {
    let channels = x.dim(candle_core::D::Minus1)?;
    let LocalResponseNormConfig { size, alpha, beta, k, window } = config;
    Ok(Normalization {
        rows: (x.elem_count() / channels) as i32,
        channels: channels as i32,
        size: size as i32,
        cross_map: i32::from(window == LocalResponseWindow::CrossMapLrn2d),
        alpha: alpha as f32,
        beta: beta as f32,
        k: k as f32,
    })
}

fn across_channels(
    name: &str,
    x: &Tensor,
    gy: Option<&Tensor>,
    config: LocalResponseNormConfig,
    row_floats: usize,
) -> Result<Tensor> {
    let numbers = normalization(x, config)?;
    let to = uninitialized(x.shape(), x.dtype(), device_of(x)?)?;
    let mut arguments = vec![Argument::address(x)?];
    arguments.extend(gy.map(Argument::address).transpose()?);
    arguments.push(Argument::address(&to)?);
    let threads = (numbers.channels as u32).next_multiple_of(32).min(256);
    let shared = row_floats * numbers.channels as usize * size_of::<f32>();
    let name = format!("{name}_{}", check_type("local_response_norm", x.dtype())?);
    let grid = [numbers.rows as u32, 1, 1];
    launch_with(
        device_of(x)?,
        "local_response_norm",
        &name,
        grid,
        [threads, 1, 1],
        shared,
        &arguments,
        Some(&numbers),
    )?;
    Ok(to)
}

/// Runs local response norm.
pub(crate) fn local_response(x: &Tensor, config: LocalResponseNormConfig) -> Result<Tensor> {
    across_channels("local_response_norm", x, None, config, 1)
}

/// Returns the gradient of [`local_response`].
pub(crate) fn local_response_gradient(
    x: &Tensor,
    gy: &Tensor,
    config: LocalResponseNormConfig,
) -> Result<Tensor> {
    across_channels("local_response_norm_gradient", x, Some(gy), config, 2)
}
