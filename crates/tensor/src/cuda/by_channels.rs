//! Launches of kernels whose threads keep to a few adjacent channels and walk down the rows
//! (`kernels/by_channels.cuh`).

use super::memory::{Input, check_type, uninitialised};
use super::{failed, graph};
use candle_core::cuda_backend::cudarc::driver::sys::CUdevice_attribute;
use candle_core::{CudaDevice, DType, Device, Result, Tensor};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Threads of a block.
const THREADS: usize = 256;
/// Blocks of a multiprocessor: as many as the kernels' launch bounds promise to fit onto one together.
const RESIDENT: usize = 2;
/// The fewest rows that a thread walks, so that loading its channel's numbers pays.
const ROWS: usize = 4;

/// The sizes of a launch over (chunks, rows, channels).
pub(super) struct Grid {
    /// The end of the kernels' names: the type, and whether sixteen bytes of channels are taken at a time.
    pub(super) suffix: String,
    pub(super) blocks: [u32; 3],
    pub(super) block: [u32; 3],
    /// Pieces of consecutive rows, each summed by itself. With the shape, their number decides the bits of the
    /// sums; it depends on the shape and the card's multiprocessors alone.
    pub(super) slices: usize,
    /// What the kernels need to add up their sums.
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
    /// u32 that are zero between launches.
    tickets: Option<Tensor>,
    /// f32 of any content.
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

/// Returns the address of scratch memory for at least `floats` f32, aligned for f64, whose content no other launch than the next relies on.
/// What is larger than all before takes the place of it; the old memory is freed in the order of the stream.
pub(super) fn scratch(device: &CudaDevice, floats: usize) -> Result<u64> {
    shared(device, |shared| {
        if shared.scratch.as_ref().is_none_or(|scratch| scratch.elem_count() < floats) {
            graph::forget_if(shared.scratch.is_some());
            shared.scratch = Some(uninitialised(floats.next_power_of_two(), DType::F32, device)?);
        }
        Ok(Input::of(shared.scratch.as_ref().expect("it was made right above"))?.address)
    })
}

impl Grid {
    /// Returns the number of counters that finding the last blocks takes.
    pub(super) fn tickets(&self) -> usize {
        let [across, _, chunks] = self.blocks.map(|blocks| blocks as usize);
        3 * across * chunks + across
    }
}
