//! Copies of tensors in page-locked memory of the host, made while the device and the host continue to work.

use super::input::Input;
use super::{device_of, failed};
use candle_core::cuda_backend::cudarc::driver::{CudaEvent, PinnedHostSlice, sys};
use candle_core::{Result, Tensor, bail};
use std::ops::Range;

/// Each tensor begins at a multiple of this many bytes.
const ALIGNMENT: usize = 16;

/// The bytes of tensors of one device, in the host's memory.
///
/// The copies are queued on the device's stream: they read what the tensors hold at that point of the stream,
/// and steps that are queued later cannot change them. Nothing waits for the copies until a thread calls
/// [`HostCopy::bytes`].
#[derive(Debug)]
pub struct HostCopy {
    /// The memory; `None` once it has been given to the next copy.
    memory: Option<PinnedHostSlice<u8>>,
    places: Vec<Range<usize>>,
    done: CudaEvent,
}

impl HostCopy {
    /// Queues copies of `tensors`, which are contiguous and lie on one device. If `room`, an earlier copy,
    /// has enough memory, it is used again, because page-locking new memory takes long.
    ///
    /// # Errors
    /// If there are no tensors, if one of them is not contiguous or is on the CPU, if page-locked memory
    /// cannot be allocated, or if the driver refuses a copy.
    pub fn begin(tensors: &[&Tensor], room: Option<Self>) -> Result<Self> {
        let Some(first) = tensors.first() else { bail!("cuda: expected tensors to copy, found none") };
        let device = device_of(first)?;
        let stream = device.cuda_stream();
        let mut places = Vec::with_capacity(tensors.len());
        let mut end = 0usize;
        for tensor in tensors {
            let bytes = tensor.elem_count() * tensor.dtype().size_in_bytes();
            let from = end.next_multiple_of(ALIGNMENT);
            end = from + bytes;
            places.push(from..end);
        }
        let mut memory = match room.map(Self::into_memory).transpose()?.flatten() {
            Some(memory) if memory.len() >= end => memory,
            // This memory is not write-combined, as that of `alloc_pinned` is, because the host reads it.
            // SAFETY: only bytes that a copy below writes are read, after it has ended.
            _ => unsafe { stream.context().alloc_pinned_with_flags::<u8>(end.max(1), 0) }
                .map_err(|e| failed("allocate page-locked memory", e))?,
        };
        stream.context().bind_to_thread().map_err(|e| failed("bind to the thread", e))?;
        let start = memory.as_mut_ptr().map_err(|e| failed("reach page-locked memory", e))?;
        let queue = || -> Result<()> {
            for (tensor, place) in tensors.iter().zip(&places).filter(|(_, place)| !place.is_empty()) {
                let from = Input::of(tensor)?.address;
                // SAFETY: the place is inside the memory, which outlives the copy (see `Drop`), and has the
                // tensor's length; memory of the tensor that is freed later is freed in the order of the
                // stream.
                unsafe {
                    let to = start.add(place.start).cast();
                    sys::cuMemcpyDtoHAsync_v2(to, from, place.len(), stream.cu_stream())
                }
                .result()
                .map_err(|e| failed("copy tensors to the host", e))?;
            }
            Ok(())
        };
        let queued = queue();
        let done = stream.record_event(None).map_err(|e| failed("mark the end of a copy", e));
        if queued.is_err() || done.is_err() {
            // The memory must not be freed while a queued copy may still write to it.
            let _ = stream.synchronize();
        }
        queued?;
        Ok(Self { memory: Some(memory), places, done: done? })
    }

    /// Waits until the copies have ended; returns the bytes of each tensor, in their order.
    ///
    /// # Errors
    /// If something that was queued before has failed.
    pub fn bytes(&self) -> Result<Vec<&[u8]>> {
        self.wait()?;
        let Some(memory) = &self.memory else { bail!("cuda: the memory of this copy was given away") };
        let all = memory.as_slice().map_err(|e| failed("reach page-locked memory", e))?;
        Ok(self.places.iter().map(|place| &all[place.clone()]).collect())
    }

    /// Waits until nothing is copied to the memory any more, and returns the memory.
    fn into_memory(mut self) -> Result<Option<PinnedHostSlice<u8>>> {
        self.wait()?;
        Ok(self.memory.take())
    }

    fn wait(&self) -> Result<()> {
        self.done.synchronize().map_err(|e| failed("wait for a copy to the host", e))
    }
}

impl Drop for HostCopy {
    fn drop(&mut self) {
        // The device may still be about to write to the memory. An error shows again at the next call of the
        // driver.
        let _ = self.wait();
    }
}
