//! Launches of kernels in which each thread takes a few adjacent channels and goes through the rows
//! (`kernels/by_channels.cuh`).

use super::input::Input;

use super::memory::{check_type, uninitialized};
use super::{failed, graph};
use candle_core::cuda_backend::cudarc::driver::sys::CUdevice_attribute;
use candle_core::{CudaDevice, DType, Device, Result, Tensor};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Threads of a block.
const THREADS: usize = 256;
/// Blocks of a multiprocessor: as many as fit onto it together, by the launch bounds of the kernels.
const RESIDENT: usize = 2;
/// The smallest number of rows that a thread takes; with fewer, loading its channels' numbers would take too
/// large a part of the time.
const ROWS: usize = 4;

/// The sizes of a launch over (chunks, rows, channels).
pub(super) struct Grid {
    /// The end of the kernels' names: the type, and whether sixteen bytes of channels are taken at a time.
    pub(super) suffix: String,
    pub(super) blocks: [u32; 3],
    pub(super) block: [u32; 3],
    /// The number of slices: pieces of consecutive rows, each summed by itself. The bits of the sums depend
    /// on the shape and on this number, which depends only on the shape and the number of the card's
    /// multiprocessors.
    pub(super) slices: usize,
    /// Bytes of shared memory in which the kernels add up their sums.
    pub(super) shared_bytes: usize,
    /// Whether all blocks run at once on this card, so that they can wait for one another.
    pub(super) at_once: bool,
}

/// Returns the number of multiprocessors of a device.
pub(super) fn multiprocessors(device: &CudaDevice) -> Result<usize> {
    let attribute = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
    let count = device.cuda_stream().context().attribute(attribute);
    Ok(count.map_err(|e| failed("ask for the number of multiprocessors", e))?.max(1) as usize)
}

/// Returns the launch over (chunks, rows, channels) of this type.
pub(super) fn grid(
    device: &CudaDevice,
    op: &str,
    dtype: DType,
    [chunks, rows, channels]: [usize; 3],
) -> Result<Grid> {
    let kind = check_type(op, dtype)?;
    let pack = 16 / dtype.size_in_bytes();
    let (width, packed) = if channels.is_multiple_of(pack) { (pack, "_packed") } else { (1, "") };
    let groups = channels / width;
    let lanes = groups.next_power_of_two().min(32);
    let down = THREADS / lanes;
    let across = groups.div_ceil(lanes);
    let most = RESIDENT * multiprocessors(device)?;
    let slices = (most / (across * chunks)).clamp(1, rows.div_ceil(down * ROWS).max(1));
    Ok(Grid {
        suffix: format!("{kind}{packed}"),
        blocks: [across as u32, slices as u32, chunks as u32],
        block: [lanes as u32, down as u32, 1],
        slices,
        // One float for each channel of each thread, or two doubles for each thread.
        shared_bytes: THREADS * (width * size_of::<f32>()).max(2 * size_of::<f64>()),
        at_once: across * slices * chunks <= most,
    })
}

/// Memory that launches share, since they run one after the other.
#[derive(Default)]
struct Shared {
    /// Counters (u32) that are zero between launches.
    tickets: Option<Tensor>,
    /// Scratch memory (f32) of any content.
    scratch: Option<Tensor>,
}

fn shared<R>(device: &CudaDevice, take: impl FnOnce(&mut Shared) -> Result<R>) -> Result<R> {
    static ALL: Mutex<Option<HashMap<usize, Shared>>> = Mutex::new(None);
    let ordinal = device.cuda_stream().context().ordinal();
    let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    take(all.get_or_insert_default().entry(ordinal).or_default())
}

/// Returns at least `count` counters of a device that are zero, for a launch that leaves them zero.
pub(super) fn tickets(device: &CudaDevice, count: usize) -> Result<Tensor> {
    shared(device, |shared| {
        if shared.tickets.as_ref().is_none_or(|tickets| tickets.elem_count() < count) {
            graph::forget_if(shared.tickets.is_some());
            let zeros = Tensor::zeros(count.max(4096), DType::U32, &Device::Cuda(device.clone()))?;
            shared.tickets = Some(zeros);
        }
        Ok(shared.tickets.clone().expect("it was made right above"))
    })
}

/// Returns the address of scratch memory for at least `floats` f32, aligned for f64. Only the next launch may
/// rely on its content. If the memory is too small, larger memory replaces it; the old memory is freed in the
/// order of the stream.
pub(super) fn scratch(device: &CudaDevice, floats: usize) -> Result<u64> {
    shared(device, |shared| {
        if shared.scratch.as_ref().is_none_or(|scratch| scratch.elem_count() < floats) {
            graph::forget_if(shared.scratch.is_some());
            shared.scratch = Some(uninitialized(floats.next_power_of_two(), DType::F32, device)?);
        }
        Ok(Input::of(shared.scratch.as_ref().expect("it was made right above"))?.address)
    })
}

impl Grid {
    /// Returns the number of counters that are needed to find the last blocks.
    pub(super) fn tickets(&self) -> usize {
        let [across, _, chunks] = self.blocks.map(|blocks| blocks as usize);
        3 * across * chunks + across
    }
}
