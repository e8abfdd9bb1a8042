//! Batch norm on the device: two passes over the data in each direction, in one launch or in two (see
//! `kernels/batch_norm.cu`).

use super::by_channels::{Grid, grid, scratch, tickets};
use super::device_of;
use super::input::Input;
use super::kernel::{Argument, Start, launch_as};

use super::memory::uninitialized;
use super::switches::Switches;
use crate::batch_norm::Gradients;
use crate::{BatchNormConfig, Statistics};
use candle_core::cuda_backend::cudarc::driver::DeviceRepr;
use candle_core::{CudaDevice, DType, Result, Tensor};

/// What a batch norm keeps for its gradients: of each chunk the mean, 1 / sqrt(variance + eps), and what the
/// mean loses when it is rounded to f32, (chunks, 3, C).
#[derive(Debug, Clone)]
pub(crate) struct Saved {
    numbers: Tensor,
    chunks: usize,
    rows: usize,
    config: BatchNormConfig,
    with_residual: bool,
}

/// The struct `Forward` of the kernels.
#[derive(Clone, Copy)]
#[repr(C)]
struct Forward {
    rows: i32,
    channels: i32,
    relu: i32,
    eps: f32,
    share: f32,
}

// SAFETY: numbers in C's layout, as the kernels declare them.
unsafe impl DeviceRepr for Forward {}

/// The struct `Backward` of the kernels.
#[derive(Clone, Copy)]
#[repr(C)]
struct Backward {
    rows: i32,
    channels: i32,
    gate: i32,
}

// SAFETY: numbers in C's layout, as the kernels declare them.
unsafe impl DeviceRepr for Backward {}

fn optional(tensor: Option<&Tensor>) -> Result<Argument> {
    tensor.map_or(Ok(Argument::Address(0)), Argument::address)
}

/// Queues a kernel with the sizes of `grid`; `together` lets its blocks wait for one another.
fn run<S: DeviceRepr>(
    device: &CudaDevice,
    name: &str,
    grid: &Grid,
    together: bool,
    arguments: &[Argument],
    sizes: &S,
) -> Result<()> {
    let name = format!("batch_norm_{name}_{}", grid.suffix);
    let start = if together { Start::Together } else { Start::Apart };
    launch_as(
        start,
        device,
        "batch_norm",
        &name,
        grid.blocks,
        grid.block,
        grid.shared_bytes,
        arguments,
        Some(sizes),
    )
}

/// Runs training mode: returns the output and what its gradients need. If running mean and variance (C each)
/// are given, moves them by `share` towards those of the first chunk.
pub(crate) fn normalize(
    x: &Tensor,
    [gamma, beta]: [&Tensor; 2],
    residual: Option<&Tensor>,
    config: BatchNormConfig,
    chunk_len: usize,
    running: Option<([&Tensor; 2], f64)>,
) -> Result<(Saved, Tensor)> {
    let device = device_of(x)?;
    let channels = gamma.elem_count();
    let (chunks, rows) = (x.elem_count() / chunk_len, chunk_len / channels);
    let g = grid(device, "batch_norm", x.dtype(), [chunks, rows, channels])?;
    let partial = scratch(device, chunks * g.slices * 2 * channels)?;
    let numbers = uninitialized((chunks, 3, channels), DType::F32, device)?;
    let (mean, variance, share) = match running {
        Some(([mean, variance], share)) => (Some(mean), Some(variance), share),
        None => (None, None, 0.0),
    };
    let mut arguments = vec![
        Argument::address(x)?,
        Argument::Address(partial),
        Argument::address(&numbers)?,
        optional(mean)?,
        optional(variance)?,
        Argument::address(&tickets(device, g.tickets())?)?,
    ];
    let saved = Saved { numbers, chunks, rows, config, with_residual: residual.is_some() };
    let sizes = Forward { share: share as f32, ..saved.sizes(channels) };
    if !(g.at_once && Switches::taken()?.norm_together) {
        run(device, "statistics", &g, false, &arguments, &sizes)?;
        let y = saved.apply(x, [gamma, beta], residual)?;
        return Ok((saved, y));
    }
    let y = uninitialized(x.shape(), x.dtype(), device)?;
    arguments.extend([
        optional(residual)?,
        Argument::address(gamma)?,
        Argument::address(beta)?,
        Argument::address(&y)?,
    ]);
    run(device, "together", &g, true, &arguments, &sizes)?;
    Ok((saved, y))
}

/// Runs evaluation mode: normalizes by the running mean and variance.
pub(crate) fn normalize_by(
    x: &Tensor,
    [gamma, beta]: [&Tensor; 2],
    residual: Option<&Tensor>,
    [mean, variance]: [&Tensor; 2],
    config: BatchNormConfig,
) -> Result<Tensor> {
    let channels = gamma.elem_count();
    let rows = x.elem_count() / channels;
    let sizes = Forward {
        rows: rows as i32,
        channels: channels as i32,
        relu: i32::from(config.relu),
        eps: config.eps as f32,
        share: 0.0,
    };
    apply_with(
        x,
        [gamma, beta],
        residual,
        [Argument::address(mean)?, Argument::address(variance)?],
        true,
        1,
        sizes,
    )
}

/// Normalizes by what was saved of each chunk, at the addresses of the first mean and of the number that
/// follows the means, or (`running`) by running means and variances.
fn apply_with(
    x: &Tensor,
    [gamma, beta]: [&Tensor; 2],
    residual: Option<&Tensor>,
    [mean, second]: [Argument; 2],
    running: bool,
    chunks: usize,
    sizes: Forward,
) -> Result<Tensor> {
    let device = device_of(x)?;
    let g = grid(device, "batch_norm", x.dtype(), [chunks, sizes.rows as usize, sizes.channels as usize])?;
    let y = uninitialized(x.shape(), x.dtype(), device)?;
    let arguments = [
        Argument::address(x)?,
        optional(residual)?,
        mean,
        second,
        Argument::address(gamma)?,
        Argument::address(beta)?,
        Argument::address(&y)?,
        Argument::Int(i32::from(running)),
    ];
    run(device, "apply", &g, false, &arguments, &sizes)?;
    Ok(y)
}

impl Saved {
    /// Returns the mean and the biased variance of the first chunk. Waits for the device.
    pub(crate) fn first_statistics(&self) -> Result<Statistics> {
        let numbers = self.numbers.get(0)?.to_vec2::<f32>()?;
        let mean = numbers[0].iter().map(|mean| f64::from(*mean)).collect();
        let variance =
            numbers[1].iter().map(|inverse| f64::from(*inverse).powi(-2) - self.config.eps).collect();
        Ok(Statistics { mean, variance })
    }

    fn sizes(&self, channels: usize) -> Forward {
        Forward {
            rows: self.rows as i32,
            channels: channels as i32,
            relu: i32::from(self.config.relu),
            eps: self.config.eps as f32,
            share: 0.0,
        }
    }

    fn apply(&self, x: &Tensor, parameters: [&Tensor; 2], residual: Option<&Tensor>) -> Result<Tensor> {
        let channels = parameters[0].elem_count();
        let numbers = Input::of(&self.numbers)?.address;
        let places = [numbers, numbers + (channels * size_of::<f32>()) as u64].map(Argument::Address);
        apply_with(x, parameters, residual, places, false, self.chunks, self.sizes(channels))
    }
}

/// Returns the gradients, given the input, the output and the output's gradient. The residual's gradient is
/// among them if `residual` is true.
pub(crate) fn normalize_gradients(
    saved: &Saved,
    [x, y, gy]: [&Tensor; 3],
    [gamma, beta]: [&Tensor; 2],
    residual: bool,
) -> Result<Gradients> {
    let device = device_of(x)?;
    let channels = gamma.elem_count();
    let Saved { numbers, chunks, rows, config, with_residual } = saved;
    let g = grid(device, "batch_norm", x.dtype(), [*chunks, *rows, channels])?;
    // The values of `Gate` in the kernels.
    let gate = if config.relu { 1 + i32::from(*with_residual) } else { 0 };
    let sizes = Backward { rows: *rows as i32, channels: channels as i32, gate };
    let [x_, y_, gy_] = [Argument::address(x)?, Argument::address(y)?, Argument::address(gy)?];
    let given =
        [x_, y_, gy_, Argument::address(numbers)?, Argument::address(gamma)?, Argument::address(beta)?];
    // Scratch memory for the totals in f64, the sums of the slices, and the means in f32. No other launch
    // uses it before the second launch, which follows at once, if there is one.
    let (of_slices, of_chunks) = (chunks * g.slices * 2 * channels, chunks * 2 * channels);
    let totals = scratch(device, 2 * of_chunks + of_slices + of_chunks)?;
    let partial = totals + (of_chunks * size_of::<f64>()) as u64;
    let means = partial + (of_slices * size_of::<f32>()) as u64;
    let of_parameters = uninitialized((2, channels), DType::F32, device)?;
    let [grad_gamma, grad_beta] = [of_parameters.get(0)?, of_parameters.get(1)?];
    let mut sums = given.to_vec();
    sums.extend([partial, means, totals].map(Argument::Address));
    for to in [&grad_gamma, &grad_beta, &tickets(device, g.tickets())?] {
        sums.push(Argument::address(to)?);
    }
    let gx = uninitialized(x.shape(), x.dtype(), device)?;
    let gr = if residual { Some(uninitialized(x.shape(), x.dtype(), device)?) } else { None };
    let results = [Argument::address(&gx)?, optional(gr.as_ref())?];
    if g.at_once && Switches::taken()?.norm_together {
        sums.extend(results);
        run(device, "gradients_together", &g, true, &sums, &sizes)?;
    } else {
        run(device, "gradient_sums", &g, false, &sums, &sizes)?;
        let mut arguments = given.to_vec();
        arguments.push(Argument::Address(means));
        arguments.extend(results);
        run(device, "gradients", &g, false, &arguments, &sizes)?;
    }
    Ok(Gradients { x: gx, gamma: grad_gamma, beta: grad_beta, residual: gr })
}
