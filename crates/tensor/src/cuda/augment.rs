//! Makes augmented views on the device, from images that are stored there as bytes (see
//! `kernels/augment.cu`).

use super::kernel::{Argument, launch_with};
use super::memory::{check_type, overwrite, tensor, uninitialized};
use super::step_counter::StepCounter;
use super::{device_of, graph};
use candle_core::cuda_backend::cudarc::driver::DeviceRepr;
use candle_core::{DType, Device, Result, Tensor, bail};

/// Words of a view's plan.
pub const PLAN_WORDS: usize = 16;
/// Threads of a block; a block makes one view.
const THREADS: u32 = 256;
/// Bytes of shared memory that every card gives a block without a special request.
const SHARED_BYTES: usize = 48 << 10;

/// Images of one size on the device, and what their views have in common.
#[derive(Debug, Clone)]
pub struct ImageStore {
    /// (n, H, W, 3) bytes.
    images: Tensor,
    /// (3, 256): the value that each byte becomes.
    normalized: Tensor,
    size: usize,
    bgr: bool,
    taps: usize,
}

/// The struct `ViewSettings` of the kernel.
#[derive(Clone, Copy)]
#[repr(C)]
struct Settings {
    width: i32,
    height: i32,
    size: i32,
    channels: i32,
    bgr: i32,
    taps: i32,
    intermediate: i32,
    step: u64,
}

// SAFETY: seven ints and an address in C's layout, as the kernel declares them.
unsafe impl DeviceRepr for Settings {}

impl ImageStore {
    /// Copies `bytes` (n, `height`, `width`, 3) to the device, for views of `size` x `size` pixels. Each byte
    /// of a view becomes its value in `normalized` (3, 256). The channels are blue first if `bgr`.
    ///
    /// # Errors
    /// If the lengths do not agree, or the device has too little memory.
    pub fn new(
        device: &Device,
        bytes: &[u8],
        [width, height]: [usize; 2],
        size: usize,
        normalized: &[f32],
        bgr: bool,
    ) -> Result<Self> {
        let image = width * height * 3;
        if image == 0 || bytes.is_empty() || !bytes.len().is_multiple_of(image) {
            bail!("cuda: {} bytes are no images of {width} x {height}", bytes.len())
        }
        let images = Tensor::from_slice(bytes, (bytes.len() / image, height, width, 3), device)?;
        Self::of_images(images, size, normalized, bgr)
    }

    /// Returns a store of the same images, which stay where they are, for views of another kind.
    ///
    /// # Errors
    /// If `normalized` does not have the shape (3, 256), or the device has too little memory.
    pub fn with_views(&self, size: usize, normalized: &[f32], bgr: bool) -> Result<Self> {
        Self::of_images(self.images.clone(), size, normalized, bgr)
    }

    fn of_images(images: Tensor, size: usize, normalized: &[f32], bgr: bool) -> Result<Self> {
        if size == 0 || normalized.len() != 768 {
            bail!("cuda: views of {size} x {size} pixels with a table of {} numbers", normalized.len())
        }
        let (_, height, width, _) = images.dims4()?;
        let normalized = Tensor::from_slice(normalized, (3, 256), images.device())?;
        let stretch = width.max(height).div_ceil(size).max(1);
        let store = Self { images, normalized, size, bgr, taps: 2 * stretch + 1 };
        if store.shared_bytes() > SHARED_BYTES {
            bail!("cuda: a view of {size} x {size} pixels is too large for a block; the CPU makes it")
        }
        Ok(store)
    }

    /// Returns the number of images.
    pub fn len(&self) -> usize {
        self.images.dims()[0]
    }

    /// Returns false: a store has at least one image.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the bytes of shared memory of a block, without the intermediate image.
    fn shared_bytes(&self) -> usize {
        (self.size * self.size * 3).next_multiple_of(16) + self.size * 8 + self.size * self.taps * 4
    }

    /// Makes views (v, S, S, C) of the images `index` (v, u32) by `plans` (v, 16, u32), both on the device:
    /// three channels in f32, eight in bf16, the last five of which are zeros.
    ///
    /// # Errors
    /// If the shapes do not agree, or the type is neither f32 nor bf16.
    pub fn views(&self, index: &Tensor, plans: &Tensor, dtype: DType) -> Result<Tensor> {
        self.make([index, plans], index.elem_count(), 0, dtype)
    }

    /// Does the same for the `views` views of the step whose number the device counts: `index` and `plans`
    /// are those of all steps of an epoch, one after the other.
    ///
    /// # Errors
    /// If there are fewer, or the type is neither f32 nor bf16.
    pub fn views_counted(
        &self,
        draws: [&Tensor; 2],
        views: usize,
        counter: &StepCounter,
        dtype: DType,
    ) -> Result<Tensor> {
        let [_, step] = counter.addresses()?;
        self.make(draws, views, step, dtype)
    }

    fn make(&self, [index, plans]: [&Tensor; 2], views: usize, step: u64, dtype: DType) -> Result<Tensor> {
        let given = index.elem_count();
        let types = [index.dtype(), plans.dtype()];
        if plans.dims() != [given, PLAN_WORDS] || types != [DType::U32; 2] || given < views {
            bail!("cuda: {views} views of {given} images and plans {:?}", plans.shape())
        }
        let device = device_of(&self.images)?;
        let (_, height, width, _) = self.images.dims4()?;
        let channels: usize = if dtype == DType::BF16 { 8 } else { 3 };
        let out = uninitialized((views, self.size, self.size, channels), dtype, device)?;
        // Between the two passes, one side of an image already has its final length.
        let intermediate = (width.max(height) * self.size * 3).next_multiple_of(16);
        let shared = self.shared_bytes();
        let (scratch, shared) = if shared + intermediate <= SHARED_BYTES {
            (None, shared + intermediate)
        } else {
            (Some(uninitialized((views * intermediate).div_ceil(4), DType::U32, device)?), shared)
        };
        let settings = Settings {
            width: width as i32,
            height: height as i32,
            size: self.size as i32,
            channels: channels as i32,
            bgr: i32::from(self.bgr),
            taps: self.taps as i32,
            intermediate: intermediate as i32,
            step,
        };
        let arguments = [
            Argument::address(&self.images)?,
            Argument::address(index)?,
            Argument::address(plans)?,
            Argument::address(&self.normalized)?,
            scratch.as_ref().map_or(Ok(Argument::Address(0)), Argument::address)?,
            Argument::address(&out)?,
        ];
        let name = format!("augment_views_{}", check_type("augment", dtype)?);
        let grid = [views as u32, 1, 1];
        launch_with(device, "augment", &name, grid, [THREADS, 1, 1], shared, &arguments, Some(&settings))?;
        Ok(out)
    }

    /// Makes room on the device for the image numbers and the plans of up to `views` views, for
    /// [`ImageStore::upload_into`].
    ///
    /// # Errors
    /// If the device has too little memory.
    pub fn room(&self, views: usize) -> Result<[Tensor; 2]> {
        // A step that was recorded reads from an earlier room.
        graph::forget_if(true);
        let device = device_of(&self.images)?;
        Ok([
            uninitialized(views, DType::U32, device)?,
            uninitialized((views, PLAN_WORDS), DType::U32, device)?,
        ])
    }

    /// Does the same as [`ImageStore::upload`], into the beginning of a room that is large enough. Whatever
    /// read what lay there was launched before.
    ///
    /// # Errors
    /// Returns those of [`ImageStore::upload`], or one if the room is too small.
    pub fn upload_into(&self, [numbers, room]: &[Tensor; 2], index: &[u32], plans: &[u32]) -> Result<()> {
        self.check(index)?;
        if plans.len() != index.len() * PLAN_WORDS {
            bail!("cuda: {} words for {} views, expected {PLAN_WORDS} for each", plans.len(), index.len())
        }
        overwrite(numbers, index)?;
        overwrite(room, plans)
    }

    /// Copies the image numbers and the plans of views to the device: (v) and (v, 16).
    ///
    /// # Errors
    /// If a number is not below the number of images, or a view does not have 16 words.
    pub fn upload(&self, index: &[u32], plans: &[u32]) -> Result<[Tensor; 2]> {
        self.check(index)?;
        let device = device_of(&self.images)?;
        Ok([tensor(index, index.len(), device)?, tensor(plans, (index.len(), PLAN_WORDS), device)?])
    }

    fn check(&self, index: &[u32]) -> Result<()> {
        if let Some(found) = index.iter().find(|&&image| image as usize >= self.len()) {
            bail!("cuda: there is no image {found}, there are {}", self.len())
        }
        Ok(())
    }
}
