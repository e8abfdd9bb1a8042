//! The losses of an epoch's steps, as they become known: at once on the CPU, a few steps later from a GPU, which nobody waits for
//! before the epoch's end.

use candle_core::{Device, Result};
#[cfg(feature = "cuda")]
use invaspread_tensor::cuda::HostLog;

use super::learner::Loss;

/// The steps of one epoch.
#[derive(Debug)]
pub(super) struct Losses {
    /// Steps whose loss is known.
    heard: u64,
    /// What the GPU writes to, with the number of steps before its first place and that of the steps it was given.
    #[cfg(feature = "cuda")]
    log: Option<(HostLog, u64, u64)>,
}

impl Losses {
    /// Room for epochs of `steps` steps on `device`.
    ///
    /// # Errors
    /// If memory that the device writes to cannot be had.
    #[cfg_attr(
        not(feature = "cuda"),
        expect(clippy::unnecessary_wraps, unused_variables, reason = "CUDA's memory can fail")
    )]
    pub(super) fn new(device: &Device, steps: u64) -> Result<Self> {
        Ok(Self {
            heard: 0,
            #[cfg(feature = "cuda")]
            log: if device.is_cuda() { Some((HostLog::new(device, steps as usize)?, 0, 0)) } else { None },
        })
    }

    /// Begins an epoch at its step `step`.
    ///
    /// # Errors
    /// If the device fails.
    #[cfg_attr(not(feature = "cuda"), expect(clippy::unnecessary_wraps, reason = "a device can fail"))]
    pub(super) fn begin(&mut self, step: u64) -> Result<()> {
        self.heard = step;
        #[cfg(feature = "cuda")]
        if let Some((log, first, given)) = &mut self.log {
            log.clear()?;
            (*first, *given) = (step, step);
        }
        Ok(())
    }

    /// Takes in a step's loss; returns those that have become known, in the order of the steps.
    ///
    /// # Errors
    /// If the device fails.
    #[cfg_attr(
        not(feature = "cuda"),
        expect(
            clippy::unnecessary_wraps,
            clippy::needless_pass_by_value,
            reason = "a device can fail, and keeps its tensor"
        )
    )]
    pub(super) fn take(&mut self, loss: Loss) -> Result<Vec<f64>> {
        match loss {
            Loss::Known(loss) => {
                self.heard += 1;
                Ok(vec![loss])
            }
            #[cfg(feature = "cuda")]
            Loss::OnDevice(loss) => {
                let Some((log, first, given)) = &mut self.log else {
                    candle_core::bail!("a loss on the device, but nothing that it could be written to")
                };
                log.write((*given - *first) as usize, &loss)?;
                *given += 1;
                Ok(self.arrived())
            }
        }
    }

    /// Waits for all steps taken so far; returns the losses that were not known yet.
    ///
    /// # Errors
    /// If the device fails.
    #[cfg_attr(
        not(feature = "cuda"),
        expect(
            clippy::unnecessary_wraps,
            clippy::unused_self,
            clippy::needless_pass_by_ref_mut,
            reason = "a device can fail"
        )
    )]
    pub(super) fn rest(&mut self) -> Result<Vec<f64>> {
        #[cfg(feature = "cuda")]
        if let Some((log, ..)) = &self.log {
            log.wait()?;
            return Ok(self.arrived());
        }
        Ok(Vec::new())
    }

    /// Steps of the epoch whose loss is known.
    pub(super) fn heard(&self) -> u64 {
        self.heard
    }

    #[cfg(feature = "cuda")]
    fn arrived(&mut self) -> Vec<f64> {
        let mut arrived = Vec::new();
        if let Some((log, first, given)) = &self.log {
            while self.heard < *given
                && let Some(loss) = log.read((self.heard - *first) as usize)
            {
                arrived.push(loss.into());
                self.heard += 1;
            }
        }
        arrived
    }
}
