//! One optimizer step over all parameters, seventy of them in each launch.

use super::device_of;
use super::input::Input;
use super::kept_weights::{Packed, to_write};
use super::kernel::launch_with;
use crate::sgd::Rate;
use candle_core::cuda_backend::cudarc::driver::DeviceRepr;
use candle_core::{DType, Result, Tensor, bail};

/// The same constants as in `kernels/sgd.cu`.
const SLOTS: usize = 70;
const BLOCK: u32 = 4096;
const TILE: u32 = 32;

/// The struct `Table` of `kernels/sgd.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Table {
    parameter: [u64; SLOTS],
    gradient: [u64; SLOTS],
    velocity: [u64; SLOTS],
    packed: [u64; SLOTS],
    rates: u64,
    step: u64,
    length: [u32; SLOTS],
    first: [u32; SLOTS],
    kernel: [u16; SLOTS],
    channels: [u16; SLOTS],
    padded: [u16; SLOTS],
    columns: [u16; SLOTS],
    all_columns: [u16; SLOTS],
    gradient_kind: [u8; SLOTS],
    packed_kind: [u8; SLOTS],
    slots: i32,
    momentum: f32,
    decay: f32,
    rate: f32,
}

// SAFETY: addresses and numbers in C's layout, as the kernel declares them.
unsafe impl DeviceRepr for Table {}

/// Returns the kernel's number of a type in cuDNN's layout.
fn kind(dtype: DType) -> u8 {
    if dtype == DType::BF16 { 2 } else { 1 }
}

/// Returns the number of padded channels of a gradient (K, K, C_in, C_out) that is a view of what cuDNN
/// wrote, (C_out, K, K, padded).
fn padded_channels(gradient: &Tensor) -> Option<usize> {
    let ([_, kw, channels, _], [across_rows, padded, 1, across_columns]) =
        (<[usize; 4]>::try_from(gradient.dims()).ok()?, <[usize; 4]>::try_from(gradient.stride()).ok()?)
    else {
        return None;
    };
    let packed = padded >= channels
        && across_rows == kw * padded
        && across_columns == gradient.dims()[0] * across_rows;
    (packed && gradient.layout().start_offset() == 0).then_some(padded)
}

/// A parameter's gradient: a tensor in the parameter's layout, or in the layout in which cuDNN wrote it, with
/// the given number of channels.
struct Gradient {
    values: Tensor,
    padded: Option<usize>,
}

impl Gradient {
    fn of(gradient: &Tensor) -> Result<Self> {
        // A contiguous view already has the parameter's layout.
        if gradient.is_contiguous() && gradient.dtype() == DType::F32 {
            return Ok(Self { values: gradient.clone(), padded: None });
        }
        if let Some(padded) = padded_channels(gradient)
            && matches!(gradient.dtype(), DType::F32 | DType::BF16)
        {
            return Ok(Self { values: gradient.clone(), padded: Some(padded) });
        }
        Ok(Self { values: gradient.to_dtype(DType::F32)?.contiguous()?, padded: None })
    }

    /// Returns the address of the first value.
    fn address(&self) -> Result<u64> {
        Input::first(&self.values)
    }
}

fn small(size: usize) -> Result<u16> {
    u16::try_from(size).map_err(candle_core::Error::wrap)
}

/// Computes `v = momentum v + (g + decay p)`, `p = p - rate v` for each (p, g, v). p and v are f32 and
/// contiguous; g is like them, or in the layout in which cuDNN wrote it. Also writes the new weights of
/// convolutions in cuDNN's layout, where these are kept.
pub(crate) fn step(parameters: &[[Tensor; 3]], [momentum, decay]: [f64; 2], rate: &Rate) -> Result<()> {
    let (rate, [rates, step]) = match rate {
        Rate::Number(rate) => (*rate, [0, 0]),
        Rate::Counted(counter) => (0.0, counter.addresses()?),
    };
    for parameters in parameters.chunks(SLOTS) {
        let mut table = Table {
            parameter: [0; SLOTS],
            gradient: [0; SLOTS],
            velocity: [0; SLOTS],
            packed: [0; SLOTS],
            rates,
            step,
            length: [0; SLOTS],
            first: [0; SLOTS],
            kernel: [0; SLOTS],
            channels: [0; SLOTS],
            padded: [0; SLOTS],
            columns: [0; SLOTS],
            all_columns: [0; SLOTS],
            gradient_kind: [0; SLOTS],
            packed_kind: [0; SLOTS],
            slots: parameters.len() as i32,
            momentum: momentum as f32,
            decay: decay as f32,
            rate: rate as f32,
        };
        let mut blocks = 0;
        // These tensors are freed when this function returns. Their memory is used again only after the
        // launch, because it is freed in the order of the stream.
        let mut held = Vec::new();
        for (slot, [p, g, v]) in parameters.iter().enumerate() {
            let gradient = Gradient::of(g)?;
            let [at, velocity] = [Input::of(p)?, Input::of(v)?];
            if [at.dtype, velocity.dtype] != [DType::F32; 2] {
                bail!("sgd: on CUDA parameters and steps are f32, found {:?}", [at.dtype, velocity.dtype])
            }
            table.parameter[slot] = at.address;
            table.gradient[slot] = gradient.address()?;
            table.velocity[slot] = velocity.address;
            table.length[slot] = u32::try_from(p.elem_count()).map_err(candle_core::Error::wrap)?;
            table.first[slot] = blocks;
            let kept = to_write(at.address);
            if kept.is_none() && gradient.padded.is_none() {
                blocks += table.length[slot].div_ceil(BLOCK);
                held.push(gradient);
                continue;
            }
            let (kh, kw, channels, columns) = p.dims4()?;
            let (padded, all_columns) = match &kept {
                Some(Packed { channels, out_channels, .. }) => (*channels, *out_channels),
                None => (gradient.padded.unwrap_or(channels), columns),
            };
            if gradient.padded.is_some_and(|of_gradient| of_gradient != padded) {
                bail!(
                    "sgd: a gradient of {:?} channels for a weight that is kept with {padded}",
                    gradient.padded
                )
            }
            table.gradient_kind[slot] = gradient.padded.map_or(0, |_| kind(gradient.values.dtype()));
            if let Some(Packed { values, .. }) = &kept {
                table.packed[slot] = Input::of(values)?.address;
                table.packed_kind[slot] = kind(values.dtype());
            }
            table.kernel[slot] = small(kh * kw)?;
            table.channels[slot] = small(channels)?;
            table.padded[slot] = small(padded)?;
            table.columns[slot] = small(columns)?;
            table.all_columns[slot] = small(all_columns)?;
            let tiles = ((kh * kw * padded) as u32).div_ceil(TILE) * (all_columns as u32).div_ceil(TILE);
            blocks += tiles.div_ceil(BLOCK / (TILE * TILE));
            held.push(gradient);
        }
        let device = device_of(&parameters[0][0])?;
        launch_with(device, "sgd", "sgd_step", [blocks, 1, 1], [256, 1, 1], 0, &[], Some(&table))?;
    }
    Ok(())
}
