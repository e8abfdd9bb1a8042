//! Measures the device's peak rate, by products of large matrices in cuBLAS, and its peak use of memory.

use super::blas::multiply;
use super::input::Input;

use super::memory::{cast_channels, uninitialized};
use super::{device_of, failed};
use crate::Precision;
use candle_core::cuda_backend::cudarc::driver::{result, sys};
use candle_core::{CudaDevice, DType, Device, Result, Tensor};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// Products in one timing, and number of timings.
const PRODUCTS: usize = 5;
const TIMINGS: usize = 5;

/// Measures billions of floating-point operations per second in `precision`: the best of five timings of the
/// product of matrices with `side` rows and columns. Small matrices do not keep a card busy, and the rate is
/// then too low.
///
/// # Errors
/// If the device is the CPU, or fails.
pub fn peak_gflops(device: &Device, precision: Precision, side: usize) -> Result<f64> {
    let dtype = if precision == Precision::Bf16 { DType::BF16 } else { DType::F32 };
    // The numbers differ, because products of zeros run faster than products of real data.
    let values: Vec<f32> =
        (0..side * side).map(|i| ((i as u32).wrapping_mul(2_654_435_761) >> 8) as f32 / 8e6 - 1.0).collect();
    let a = Tensor::from_vec(values, (side, side), device)?;
    let a = if dtype == DType::BF16 { cast_channels(&a, dtype, side)? } else { a };
    let c = uninitialized((side, side), dtype, device_of(&a)?)?;
    let (from, to) = (Input::of(&a)?, Input::of(&c)?);
    let stream = device_of(&a)?.cuda_stream();
    let wait = || stream.synchronize().map_err(|e| failed("wait for the device", e));
    let mut best = f64::INFINITY;
    for _ in 0..=TIMINGS {
        wait()?;
        let begun = Instant::now();
        for _ in 0..PRODUCTS {
            multiply(device_of(&a)?, [from, from, to], side, precision != Precision::F32)?;
        }
        wait()?;
        best = best.min(begun.elapsed().as_secs_f64() / PRODUCTS as f64);
    }
    Ok(2.0 * (side as f64).powi(3) / best / 1e9)
}

/// The most bytes that values on the device have used since the program began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeakMemory {
    /// The peak without cuDNN's searches for algorithms: the memory that training needs.
    pub outside_search: u64,
    /// The peak with the searches; a search uses a gigabyte of scratch memory, once for each shape.
    pub with_search: u64,
}

/// The peaks up to the last reset of the mark, in the order of [`PeakMemory`].
static PEAKS: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

/// Returns the default pool of a device.
pub(super) fn pool(device: &CudaDevice) -> Result<sys::CUmemoryPool> {
    // SAFETY: asks for a handle that the driver keeps.
    unsafe { result::device::get_default_mem_pool(device.cuda_stream().context().cu_device()) }
        .map_err(|e| failed("find the memory pool", e))
}

/// Returns the pool's high-water mark since its last reset.
fn high_water(device: &CudaDevice) -> Result<u64> {
    ask_pool(device, sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH)
}

/// Returns a number of bytes that the pool knows.
fn ask_pool(device: &CudaDevice, mark: sys::CUmemPool_attribute) -> Result<u64> {
    let mut bytes = 0u64;
    // SAFETY: the attribute is a u64, which lives through the call.
    unsafe { sys::cuMemPoolGetAttribute(pool(device)?, mark, (&raw mut bytes).cast()) }
        .result()
        .map_err(|e| failed("ask the memory pool", e))?;
    Ok(bytes)
}

/// A search for algorithms that is under way: its memory is counted apart.
pub(super) struct Searching(CudaDevice);

impl Searching {
    /// Notes the peak before the search.
    pub(super) fn begin(device: &CudaDevice) -> Result<Self> {
        let bytes = high_water(device)?;
        for peak in &PEAKS {
            peak.fetch_max(bytes, Relaxed);
        }
        Ok(Self(device.clone()))
    }

    /// Notes the peak of the search, whose memory was given back, and resets the pool's mark.
    pub(super) fn end(self) -> Result<()> {
        // Memory is given back in the order of the stream.
        self.0.cuda_stream().synchronize().map_err(|e| failed("wait for the device", e))?;
        PEAKS[1].fetch_max(high_water(&self.0)?, Relaxed);
        let mark = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH;
        let mut zero = 0u64;
        // SAFETY: the attribute is a u64, which lives through the call. Zero is the one value that it can be
        // set to; it makes the mark what is in use now.
        unsafe { result::mem_pool::set_attribute(pool(&self.0)?, mark, (&raw mut zero).cast()) }
            .map_err(|e| failed("reset the mark of the memory pool", e))
    }
}

/// Returns the most bytes that recorded steps have used.
fn of_graphs(device: &CudaDevice) -> Result<u64> {
    let mark = sys::CUgraphMem_attribute::CU_GRAPH_MEM_ATTR_USED_MEM_HIGH;
    let mut bytes = 0u64;
    // SAFETY: the attribute is a u64, which lives through the call.
    unsafe {
        sys::cuDeviceGetGraphMemAttribute(
            device.cuda_stream().context().cu_device(),
            mark,
            (&raw mut bytes).cast(),
        )
    }
    .result()
    .map_err(|e| failed("ask for the memory of graphs", e))?;
    Ok(bytes)
}

/// Returns the most bytes of the device's memory that values have used since the program began: of its pool,
/// or of recorded steps and what the pool has given out now, together.
///
/// # Errors
/// If the device is the CPU, or the driver does not answer.
pub fn peak_memory(device: &Device) -> Result<PeakMemory> {
    let device = device.as_cuda_device()?;
    let of_graphs = of_graphs(device)?;
    let in_use = ask_pool(device, sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)?;
    let with_graphs = if of_graphs == 0 { 0 } else { of_graphs + in_use };
    let bytes = high_water(device)?.max(with_graphs);
    let [outside_search, with_search] = [0, 1].map(|which: usize| PEAKS[which].load(Relaxed).max(bytes));
    Ok(PeakMemory { outside_search, with_search })
}
