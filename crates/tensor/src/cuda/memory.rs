//! Memory on the device for new values, and the copies between host and device.

use super::input::Input;
use super::kernel::{Argument, launch};
use super::{device_of, failed};
use candle_core::cuda_backend::cudarc::driver::{PinnedHostSlice, sys};
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, CudaStorage, DType, Device, Layout, Result, Shape, Storage, Tensor, bail};
use half::bf16;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, PoisonError};

/// Fresh memory that an op fills.
pub(crate) struct Output {
    storage: CudaStorage,
    pub(crate) address: u64,
}

impl Output {
    /// Allocates `len` values; their content is not defined.
    pub(crate) fn new(device: &CudaDevice, dtype: DType, len: usize) -> Result<Self> {
        // SAFETY: the caller writes every value before anything reads one; on the emulated device fresh
        // memory is NaN.
        let storage = unsafe {
            match dtype {
                DType::F32 => CudaStorage::wrap_cuda_slice(device.alloc::<f32>(len)?, device.clone()),
                DType::BF16 => CudaStorage::wrap_cuda_slice(device.alloc::<bf16>(len)?, device.clone()),
                DType::F64 => CudaStorage::wrap_cuda_slice(device.alloc::<f64>(len)?, device.clone()),
                DType::U32 => CudaStorage::wrap_cuda_slice(device.alloc::<u32>(len)?, device.clone()),
                other => bail!("cuda: no op here writes {other:?}"),
            }
        };
        let address = Input::stored(&storage, &Layout::contiguous(len))?.address;
        Ok(Self { storage, address })
    }

    pub(crate) fn into_tensor(self, shape: impl Into<Shape>) -> Tensor {
        Tensor::from_storage(Storage::Cuda(self.storage), shape, BackpropOp::none(), false)
    }
}

/// Makes a tensor whose values are not defined yet, for kernels that fill it.
pub(crate) fn uninitialized(shape: impl Into<Shape>, dtype: DType, device: &CudaDevice) -> Result<Tensor> {
    let shape = shape.into();
    Ok(Output::new(device, dtype, shape.elem_count())?.into_tensor(shape))
}

/// Copies values of the host to the device.
pub(crate) fn tensor<T: candle_core::WithDType>(
    values: &[T],
    shape: impl Into<Shape>,
    device: &CudaDevice,
) -> Result<Tensor> {
    Tensor::from_slice(values, shape.into(), &Device::Cuda(device.clone()))
}

/// Copies values of the host over the first values of a contiguous tensor on the device. Work that was
/// launched before reads the old values.
pub(crate) fn overwrite<T: candle_core::WithDType>(to: &Tensor, values: &[T]) -> Result<()> {
    if to.dtype() != T::DTYPE || to.elem_count() < values.len() {
        bail!("cuda: {} values of {:?} for {:?} of {:?}", values.len(), T::DTYPE, to.shape(), to.dtype())
    }
    let stream = device_of(to)?.cuda_stream();
    stream.context().bind_to_thread().map_err(|e| failed("bind to the thread", e))?;
    let address = Input::of(to)?.address;
    // SAFETY: the place has room for the values (see above), and memory that is not page-locked is read
    // before the call returns.
    unsafe {
        sys::cuMemcpyHtoDAsync_v2(address, values.as_ptr().cast(), size_of_val(values), stream.cu_stream())
    }
    .result()
    .map_err(|e| failed("copy numbers to the device", e))
}

/// Copies of at least this many bytes go through page-locked memory of this program. The driver takes over
/// smaller copies at once; for a larger copy from memory that can be swapped out, it would wait for the
/// device.
const STAGED: usize = 64 << 10;

/// Two page-locked arrays of one length: one is filled while the device may still read the other.
struct Staging {
    arrays: [PinnedHostSlice<u32>; 2],
    next: usize,
}

/// Copies numbers of the host to the device, without waiting for what the device is doing.
pub(crate) fn staged(values: &[u32], shape: impl Into<Shape>, device: &CudaDevice) -> Result<Tensor> {
    static ALL: Mutex<Option<HashMap<(usize, usize), Staging>>> = Mutex::new(None);
    let shape = shape.into();
    if size_of_val(values) < STAGED || values.len() != shape.elem_count() {
        return tensor(values, shape, device);
    }
    let stream = device.cuda_stream();
    let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    let staging = match all.get_or_insert_default().entry((stream.context().ordinal(), values.len())) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(place) => {
            // SAFETY: an array is filled before each copy.
            let array = || unsafe { stream.context().alloc_pinned::<u32>(values.len()) };
            let locked = |e| failed("allocate page-locked memory", e);
            place.insert(Staging { arrays: [array().map_err(locked)?, array().map_err(locked)?], next: 0 })
        }
    };
    let array = &mut staging.arrays[staging.next];
    staging.next = 1 - staging.next;
    // Waits for the copy before the last.
    let to_fill = array.as_mut_slice().map_err(|e| failed("wait for an earlier copy", e))?;
    to_fill.copy_from_slice(values);
    // SAFETY: the copy below fills it.
    let mut there = unsafe { device.alloc::<u32>(values.len())? };
    stream.memcpy_htod(&*array, &mut there).map_err(|e| failed("copy numbers to the device", e))?;
    let storage = Storage::Cuda(CudaStorage::wrap_cuda_slice(there, device.clone()));
    Ok(Tensor::from_storage(storage, shape, BackpropOp::none(), false))
}

/// Checks the type of activations and returns its suffix in the names of kernels.
pub(crate) fn check_type(op: &str, dtype: DType) -> Result<&'static str> {
    match dtype {
        DType::F32 => Ok("f32"),
        DType::BF16 => Ok("bf16"),
        other => bail!("{op}: on CUDA expected f32 or bf16, found {other:?}"),
    }
}

/// Threads of a block of a kernel in which each thread takes one value at a time, and the largest number of
/// blocks, which is enough to fill the largest card twice.
const THREADS: u32 = 256;
const BLOCKS: u64 = 132 * 16;

/// Returns the blocks and threads for a kernel whose threads stride over `count` values.
pub(crate) fn spread(count: usize) -> ([u32; 3], [u32; 3]) {
    let blocks = (count as u64).div_ceil(u64::from(THREADS)).clamp(1, BLOCKS) as u32;
    ([blocks, 1, 1], [THREADS, 1, 1])
}

/// Converts `from` to `dtype`, with its last axis padded with zeros, or cut, to `padded` channels.
pub(crate) fn cast_channels(from: &Tensor, dtype: DType, padded: usize) -> Result<Tensor> {
    let device = device_of(from)?;
    let from = from.contiguous()?;
    let channels = from.dim(candle_core::D::Minus1)?;
    let pixels = from.elem_count() / channels;
    let mut dims = from.dims().to_vec();
    *dims.last_mut().expect("it has a last axis") = padded;
    let to = uninitialized(dims, dtype, device)?;
    let name = format!("cast_channels_{}_{}", check_type("cast", from.dtype())?, check_type("cast", dtype)?);
    let (grid, block) = spread(pixels * padded);
    let arguments = [
        Argument::address(&from)?,
        Argument::address(&to)?,
        Argument::Long(pixels as i64),
        Argument::Int(channels as i32),
        Argument::Int(padded as i32),
    ];
    launch(device, "layout", &name, grid, block, 0, &arguments)?;
    Ok(to)
}

/// Computes `to += from`, for tensors of one shape and type, both contiguous.
pub(crate) fn add_into(to: Input, from: Input, len: usize, device: &CudaDevice) -> Result<()> {
    if to.dtype != from.dtype {
        bail!("cuda: gradients of {:?} and {:?} meet in one place", to.dtype, from.dtype)
    }
    let name = format!("add_into_{}", check_type("add", to.dtype)?);
    let (grid, block) = spread(len.div_ceil(16 / to.dtype.size_in_bytes()));
    let arguments =
        [Argument::Address(to.address), Argument::Address(from.address), Argument::Long(len as i64)];
    launch(device, "layout", &name, grid, block, 0, &arguments)
}

/// Numbers that the device writes into the host's memory as it computes them, one for each step. The host
/// does not wait for them.
///
/// A place reads as `None` until its number is written.
#[derive(Debug)]
pub struct HostLog {
    values: PinnedHostSlice<u32>,
    /// Their address, which can be asked for only by waiting for an event.
    first: u64,
    device: CudaDevice,
}

/// The content of a place before its number arrives: a NaN that no kernel produces.
const UNWRITTEN: u32 = 0x7fff_dead;

impl HostLog {
    /// Allocates room for `capacity` numbers on the host of `device`.
    ///
    /// # Errors
    /// If the device is the CPU, or page-locked memory cannot be allocated.
    pub fn new(device: &Device, capacity: usize) -> Result<Self> {
        let device = device.as_cuda_device()?.clone();
        let stream = device.cuda_stream();
        // Not write-combined: the host reads it, and kernels write to it by the host's own address.
        let flags = sys::CU_MEMHOSTALLOC_DEVICEMAP;
        // SAFETY: every place is written right below.
        let mut values = unsafe { stream.context().alloc_pinned_with_flags::<u32>(capacity.max(1), flags) }
            .map_err(|e| failed("allocate page-locked memory", e))?;
        values.as_mut_slice().map_err(|e| failed("reach page-locked memory", e))?.fill(UNWRITTEN);
        let first = values.as_ptr().map_err(|e| failed("reach page-locked memory", e))? as u64;
        Ok(Self { values, first, device })
    }

    /// Makes the device write `value`, a scalar of f32 on it, to place `at`, once it has computed it.
    ///
    /// # Errors
    /// If there is no such place, the tensor is not such a scalar, or the driver refuses the copy.
    pub fn write(&mut self, at: usize, value: &Tensor) -> Result<()> {
        let input = Input::of(value)?;
        if at >= self.values.len() || value.elem_count() != 1 || input.dtype != DType::F32 {
            bail!(
                "cuda: place {at} of {} cannot take a {:?} of {:?}",
                self.values.len(),
                value.shape(),
                input.dtype
            )
        }
        let stream = self.device.cuda_stream();
        stream.context().bind_to_thread().map_err(|e| failed("bind to the thread", e))?;
        let to = self.values.as_mut_ptr().map_err(|e| failed("reach page-locked memory", e))?;
        // SAFETY: the place is inside the page-locked memory, which outlives the copy (see `Drop`), and four
        // bytes long as the value is.
        unsafe { sys::cuMemcpyDtoHAsync_v2(to.add(at).cast(), input.address, 4, stream.cu_stream()) }
            .result()
            .map_err(|e| failed("copy a number to the host", e))
    }

    /// Returns the address of the first place, by which kernels of the device write, and the number of
    /// places.
    pub(super) fn places(&self) -> (u64, usize) {
        (self.first, self.values.len())
    }

    /// Returns the number at place `at`, if the device has written it.
    ///
    /// # Panics
    /// If there is no such place.
    pub fn read(&self, at: usize) -> Option<f32> {
        let pointer = self.values.as_ptr().ok()?;
        assert!(at < self.values.len(), "place {at} of {}", self.values.len());
        // SAFETY: inside the memory; volatile, because the device writes it behind the compiler's back.
        let bits = unsafe { pointer.add(at).read_volatile() };
        (bits != UNWRITTEN).then(|| f32::from_bits(bits))
    }

    /// Waits until the device has written all requested numbers.
    ///
    /// # Errors
    /// If something that was launched has failed.
    pub fn wait(&self) -> Result<()> {
        self.device.cuda_stream().synchronize().map_err(|e| failed("wait for the device", e))
    }

    /// Waits for the requested copies, and removes all numbers.
    ///
    /// # Errors
    /// If waiting for the device fails.
    pub fn clear(&mut self) -> Result<()> {
        self.wait()?;
        self.values.as_mut_slice().map_err(|e| failed("reach page-locked memory", e))?.fill(UNWRITTEN);
        Ok(())
    }
}

impl Drop for HostLog {
    fn drop(&mut self) {
        // The device may still be about to write here. An error shows again at the next call of the driver.
        let _ = self.wait();
    }
}
