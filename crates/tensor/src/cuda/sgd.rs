//! One optimizer step over all parameters, a hundred of them in each launch.

use super::device_of;
use super::kernel::launch_with;
use super::memory::Input;
use candle_core::cuda_backend::cudarc::driver::DeviceRepr;
use candle_core::{DType, Result, Tensor, bail};

/// The same number as in `kernels/sgd.cu`.
const SLOTS: usize = 100;
const BLOCK: u32 = 4096;

/// `Table` of `kernels/sgd.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Table {
    parameter: [u64; SLOTS],
    gradient: [u64; SLOTS],
    velocity: [u64; SLOTS],
    length: [u32; SLOTS],
    first: [u32; SLOTS],
    slots: i32,
    momentum: f32,
    decay: f32,
    rate: f32,
}

// SAFETY: addresses and numbers in C's layout, as the kernel declares them.
unsafe impl DeviceRepr for Table {}

/// Computes `v = momentum v + (g + decay p)`, `p = p - rate v` for each (p, g, v), all f32 and contiguous.
pub(crate) fn step(parameters: &[[Tensor; 3]], [momentum, decay, rate]: [f64; 3]) -> Result<()> {
    for parameters in parameters.chunks(SLOTS) {
        let mut table = Table {
            parameter: [0; SLOTS],
            gradient: [0; SLOTS],
            velocity: [0; SLOTS],
            length: [0; SLOTS],
            first: [0; SLOTS],
            slots: parameters.len() as i32,
            momentum: momentum as f32,
            decay: decay as f32,
            rate: rate as f32,
        };
        let mut blocks = 0;
        for (slot, tensors) in parameters.iter().enumerate() {
            let [p, g, v] = [Input::of(&tensors[0])?, Input::of(&tensors[1])?, Input::of(&tensors[2])?];
            if [p.dtype, g.dtype, v.dtype] != [DType::F32; 3] {
                bail!(
                    "sgd: on CUDA parameters, gradients and steps are f32, found {:?}",
                    [p.dtype, g.dtype, v.dtype]
                )
            }
            table.parameter[slot] = p.address;
            table.gradient[slot] = g.address;
            table.velocity[slot] = v.address;
            table.length[slot] = u32::try_from(tensors[0].elem_count()).map_err(candle_core::Error::wrap)?;
            table.first[slot] = blocks;
            blocks += table.length[slot].div_ceil(BLOCK);
        }
        let device = device_of(&parameters[0][0])?;
        launch_with(device, "sgd", "sgd_step", [blocks, 1, 1], [256, 1, 1], 0, &[], Some(&table))?;
    }
    Ok(())
}
