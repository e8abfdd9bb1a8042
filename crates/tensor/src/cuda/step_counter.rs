//! The number of a training step, counted by the device, and what a step looks up by it.
//!
//! A recorded step ([`StepGraph`](super::StepGraph)) is launched many times with the same arguments. So the
//! kernels look up what changes from step to step by a number at a fixed address, which the step itself
//! raises: the learning rate, the images and plans of its views
//! ([`ImageStore`](super::augment::ImageStore)), and the place of its loss.

use super::device_of;
use super::input::Input;
use super::kernel::{Argument, launch};

use super::memory::{HostLog, overwrite, uninitialized};
use candle_core::{DType, Device, Result, Tensor, bail};

/// The number of the current step within an epoch, and the learning rate of each step.
#[derive(Debug, Clone)]
pub struct StepCounter {
    /// One u32.
    step: Tensor,
    /// f32.
    rates: Tensor,
}

impl StepCounter {
    /// Makes a counter for epochs of at most `steps` steps.
    ///
    /// # Errors
    /// If the device is the CPU, or has too little memory.
    pub fn new(device: &Device, steps: usize) -> Result<Self> {
        let device = device.as_cuda_device()?;
        Ok(Self {
            step: uninitialized(1, DType::U32, device)?,
            rates: uninitialized(steps.max(1), DType::F32, device)?,
        })
    }

    /// Begins an epoch, or what is left of one: the next step is number 0, and `rates` are the learning rates
    /// of the steps.
    ///
    /// # Errors
    /// If there are more than this counter was made for, or a copy to the device fails.
    pub fn begin(&self, rates: &[f64]) -> Result<()> {
        // As the optimizer rounds a rate that it is given.
        let rates: Vec<f32> = rates.iter().map(|rate| *rate as f32).collect();
        overwrite(&self.rates, &rates)?;
        overwrite(&self.step, &[0u32])
    }

    /// Ends a step: `loss`, a scalar of f32 on the device, goes to the place of the step in `log`, and the
    /// next step begins.
    ///
    /// # Errors
    /// If the loss is no such scalar, or the launch fails.
    pub fn end_step(&self, loss: &Tensor, log: &HostLog) -> Result<()> {
        let value = Input::of(loss)?;
        if loss.elem_count() != 1 || value.dtype != DType::F32 {
            bail!("cuda: a loss {:?} of {:?}, expected a scalar of f32", loss.shape(), value.dtype)
        }
        let (place, places) = log.places();
        let [_, step] = self.addresses()?;
        let places = i32::try_from(places).map_err(candle_core::Error::wrap)?;
        let arguments = [
            Argument::Address(value.address),
            Argument::Address(place),
            Argument::Int(places),
            Argument::Address(step),
        ];
        launch(device_of(&self.step)?, "step", "end_step", [1; 3], [32, 1, 1], 0, &arguments)
    }

    /// Returns the addresses of the rates and of the number.
    pub(super) fn addresses(&self) -> Result<[u64; 2]> {
        Ok([Input::of(&self.rates)?.address, Input::of(&self.step)?.address])
    }
}
