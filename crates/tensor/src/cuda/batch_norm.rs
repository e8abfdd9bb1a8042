//! Batch norm on the device: two passes over the data in each direction, with two small kernels between them
//! (see `kernels/batch_norm.cu`).

use super::device_of;
use super::kernel::{Argument, launch};
use super::memory::{check_type, uninitialised};
use crate::batch_norm::Gradients;
use crate::{BatchNormConfig, Statistics};
use candle_core::{DType, Result, Tensor};

/// What a batch norm keeps for its gradients: the mean and 1 / sqrt(variance + eps) of each chunk, (chunks,
/// 2, C).
#[derive(Debug, Clone)]
pub(crate) struct Saved {
    numbers: Tensor,
    chunks: usize,
    rows: usize,
    config: BatchNormConfig,
    with_residual: bool,
}

/// The sizes of a launch over (chunks, rows, channels).
struct Grid {
    suffix: String,
    blocks: [u32; 3],
    block: [u32; 3],
    slices: usize,
    shared_bytes: usize,
}

/// Threads of a block.
const THREADS: usize = 256;
/// Blocks of a launch: two for each multiprocessor of the largest card.
const BLOCKS: usize = 264;
/// The fewest rows that a thread walks, so that loading its channel's numbers pays.
const ROWS: usize = 4;

fn grid(dtype: DType, chunks: usize, rows: usize, channels: usize) -> Result<Grid> {
    let kind = check_type("batch_norm", dtype)?;
    let pack = 16 / dtype.size_in_bytes();
    let (width, packed) = if channels.is_multiple_of(pack) { (pack, "_packed") } else { (1, "") };
    let groups = channels / width;
    let lanes = groups.next_power_of_two().min(32);
    let down = THREADS / lanes;
    let across = groups.div_ceil(lanes);
    let slices = (BLOCKS / (across * chunks)).clamp(1, rows.div_ceil(down * ROWS).max(1));
    Ok(Grid {
        suffix: format!("{kind}{packed}"),
        blocks: [across as u32, slices as u32, chunks as u32],
        block: [lanes as u32, down as u32, 1],
        slices,
        shared_bytes: down * lanes * width * size_of::<f32>(),
    })
}

fn optional(tensor: Option<&Tensor>) -> Result<Argument> {
    tensor.map_or(Ok(Argument::Address(0)), Argument::address)
}

fn int(value: usize) -> Argument {
    Argument::Int(value as i32)
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
    let g = grid(x.dtype(), chunks, rows, channels)?;
    let partial = uninitialised((chunks, g.slices, 2, channels), DType::F32, device)?;
    let arguments = [Argument::address(x)?, Argument::address(&partial)?, int(rows), int(channels)];
    let name = format!("batch_norm_statistics_{}", g.suffix);
    launch(device, "batch_norm", &name, g.blocks, g.block, g.shared_bytes, &arguments)?;
    let numbers = uninitialised((chunks, 2, channels), DType::F32, device)?;
    let (mean, variance, share) = match running {
        Some(([mean, variance], share)) => (Some(mean), Some(variance), share),
        None => (None, None, 0.0),
    };
    let arguments = [
        Argument::address(x)?,
        Argument::address(&partial)?,
        Argument::address(&numbers)?,
        optional(mean)?,
        optional(variance)?,
        int(rows),
        int(channels),
        int(g.slices),
        Argument::Float(config.eps as f32),
        Argument::Float(share as f32),
    ];
    let name = format!("batch_norm_finish_statistics_{}", check_type("batch_norm", x.dtype())?);
    launch(device, "batch_norm", &name, [across(channels), 1, chunks as u32], [32, 32, 1], 0, &arguments)?;
    let saved = Saved { numbers, chunks, rows, config, with_residual: residual.is_some() };
    let y = saved.apply(x, [gamma, beta], residual)?;
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
    let device = device_of(x)?;
    let channels = gamma.elem_count();
    let numbers = uninitialised((1, 2, channels), DType::F32, device)?;
    let arguments = [
        Argument::address(mean)?,
        Argument::address(variance)?,
        Argument::address(&numbers)?,
        int(channels),
        Argument::Float(config.eps as f32),
    ];
    let blocks = (channels as u32).div_ceil(128);
    launch(device, "batch_norm", "batch_norm_from_running", [blocks, 1, 1], [128, 1, 1], 0, &arguments)?;
    let rows = x.elem_count() / channels;
    Saved { numbers, chunks: 1, rows, config, with_residual: residual.is_some() }.apply(
        x,
        [gamma, beta],
        residual,
    )
}

/// Returns the number of blocks of 32 channels.
fn across(channels: usize) -> u32 {
    (channels as u32).div_ceil(32)
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

    fn apply(&self, x: &Tensor, [gamma, beta]: [&Tensor; 2], residual: Option<&Tensor>) -> Result<Tensor> {
        let device = device_of(x)?;
        let channels = gamma.elem_count();
        let g = grid(x.dtype(), self.chunks, self.rows, channels)?;
        let y = uninitialised(x.shape(), x.dtype(), device)?;
        let arguments = [
            Argument::address(x)?,
            optional(residual)?,
            Argument::address(&self.numbers)?,
            Argument::address(gamma)?,
            Argument::address(beta)?,
            Argument::address(&y)?,
            int(self.rows),
            int(channels),
            Argument::Int(i32::from(self.config.relu)),
        ];
        launch(
            device,
            "batch_norm",
            &format!("batch_norm_apply_{}", g.suffix),
            g.blocks,
            g.block,
            0,
            &arguments,
        )?;
        Ok(y)
    }
}

/// Returns the gradients, given the input, the output and the output's gradient; that of the residual too, if
/// it is wanted.
pub(crate) fn normalize_gradients(
    saved: &Saved,
    [x, y, gy]: [&Tensor; 3],
    [gamma, beta]: [&Tensor; 2],
    residual: bool,
) -> Result<Gradients> {
    let device = device_of(x)?;
    let channels = gamma.elem_count();
    let Saved { numbers, chunks, rows, config, with_residual } = saved;
    let g = grid(x.dtype(), *chunks, *rows, channels)?;
    // The values of `Gate` in the kernels.
    let gate = Argument::Int(if config.relu { 1 + i32::from(*with_residual) } else { 0 });
    let flow =
        [Argument::address(x)?, Argument::address(y)?, Argument::address(gy)?, Argument::address(numbers)?];
    let parameters = [Argument::address(gamma)?, Argument::address(beta)?];
    let partial = uninitialised((*chunks, g.slices, 2, channels), DType::F32, device)?;
    let mut arguments = flow.to_vec();
    arguments.extend(parameters);
    arguments.extend([Argument::address(&partial)?, int(*rows), int(channels), gate]);
    let name = format!("batch_norm_gradient_sums_{}", g.suffix);
    launch(device, "batch_norm", &name, g.blocks, g.block, g.shared_bytes, &arguments)?;
    let means = uninitialised((*chunks, 2, channels), DType::F32, device)?;
    let grad_gamma = uninitialised(channels, DType::F32, device)?;
    let grad_beta = uninitialised(channels, DType::F32, device)?;
    let arguments = [
        Argument::address(&partial)?,
        Argument::address(&means)?,
        Argument::address(&grad_gamma)?,
        Argument::address(&grad_beta)?,
        int(*chunks),
        int(*rows),
        int(channels),
        int(g.slices),
    ];
    let name = "batch_norm_finish_gradients";
    launch(device, "batch_norm", name, [across(channels), 1, 1], [32, 32, 1], 0, &arguments)?;
    let gx = uninitialised(x.shape(), x.dtype(), device)?;
    let gr = if residual { Some(uninitialised(x.shape(), x.dtype(), device)?) } else { None };
    let mut arguments = flow.to_vec();
    arguments.push(Argument::address(&means)?);
    arguments.extend(parameters);
    arguments.extend([Argument::address(&gx)?, optional(gr.as_ref())?, int(*rows), int(channels), gate]);
    launch(
        device,
        "batch_norm",
        &format!("batch_norm_gradients_{}", g.suffix),
        g.blocks,
        g.block,
        0,
        &arguments,
    )?;
    Ok(Gradients { x: gx, gamma: grad_gamma, beta: grad_beta, residual: gr })
}
