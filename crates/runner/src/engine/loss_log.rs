//! The losses of an epoch's steps in the order of the steps. On the CPU a loss is known at once. A GPU
//! delivers it a few steps later, and nothing waits for it before the epoch ends.

use candle_core::{Device, Result};
#[cfg(feature = "cuda")]
use invaspread_tensor::cuda::HostLog;

use super::learner::Loss;

/// The losses of one epoch.
#[derive(Debug)]
pub(super) struct LossLog {
    /// The number of the epoch's steps whose loss is known.
    known: u64,
    #[cfg(feature = "cuda")]
    pending: Option<Pending>,
}

/// Losses that the GPU has still to compute.
#[cfg(feature = "cuda")]
#[derive(Debug)]
struct Pending {
    /// The memory that the GPU writes to.
    log: HostLog,
    /// The step whose loss is at the log's first place.
    first: u64,
    /// The step after the last that was pushed.
    end: u64,
}

impl LossLog {
    /// Makes a log for epochs of `steps` steps on `device`.
    ///
    /// # Errors
    /// Returns an error if the memory that the device writes to cannot be allocated.
    #[cfg_attr(
        not(feature = "cuda"),
        expect(clippy::unnecessary_wraps, unused_variables, reason = "CUDA's memory can fail")
    )]
    pub(super) fn new(device: &Device, steps: u64) -> Result<Self> {
        Ok(Self {
            known: 0,
            #[cfg(feature = "cuda")]
            pending: if device.is_cuda() {
                Some(Pending { log: HostLog::new(device, steps as usize)?, first: 0, end: 0 })
            } else {
                None
            },
        })
    }

    /// Starts an epoch at its step `step`.
    ///
    /// # Errors
    /// Returns an error if the device fails.
    #[cfg_attr(not(feature = "cuda"), expect(clippy::unnecessary_wraps, reason = "a device can fail"))]
    pub(super) fn begin(&mut self, step: u64) -> Result<()> {
        self.known = step;
        #[cfg(feature = "cuda")]
        if let Some(pending) = &mut self.pending {
            pending.log.clear()?;
            (pending.first, pending.end) = (step, step);
        }
        Ok(())
    }

    /// Adds a step's loss; returns the losses that became known, in the order of the steps.
    ///
    /// # Errors
    /// Returns an error if the device fails.
    #[cfg_attr(
        not(feature = "cuda"),
        expect(
            clippy::unnecessary_wraps,
            clippy::needless_pass_by_value,
            reason = "a device can fail, and keeps its tensor"
        )
    )]
    pub(super) fn push(&mut self, loss: Loss) -> Result<Vec<f64>> {
        match loss {
            Loss::Known(loss) => {
                self.known += 1;
                Ok(vec![loss])
            }
            #[cfg(feature = "cuda")]
            Loss::OnDevice(loss) => {
                let Some(Pending { log, first, end }) = &mut self.pending else {
                    candle_core::bail!("found a loss on the GPU, but this log was made for the CPU")
                };
                log.write((*end - *first) as usize, &loss)?;
                *end += 1;
                Ok(self.arrived())
            }
        }
    }

    /// Returns the memory to which a step that the GPU counts writes its loss; `None` on the CPU.
    #[cfg(feature = "cuda")]
    pub(super) fn memory(&self) -> Option<&HostLog> {
        self.pending.as_ref().map(|pending| &pending.log)
    }

    /// Counts a step that writes its loss itself; returns the losses that became known, in the order of the
    /// steps.
    #[cfg(feature = "cuda")]
    pub(super) fn written(&mut self) -> Vec<f64> {
        if let Some(pending) = &mut self.pending {
            pending.end += 1;
        }
        self.arrived()
    }

    /// Waits for the losses of all pushed steps; returns those that were not known yet.
    ///
    /// # Errors
    /// Returns an error if the device fails.
    #[cfg_attr(
        not(feature = "cuda"),
        expect(
            clippy::unnecessary_wraps,
            clippy::unused_self,
            clippy::needless_pass_by_ref_mut,
            reason = "a device can fail"
        )
    )]
    pub(super) fn drain(&mut self) -> Result<Vec<f64>> {
        #[cfg(feature = "cuda")]
        if let Some(pending) = &self.pending {
            pending.log.wait()?;
            return Ok(self.arrived());
        }
        Ok(Vec::new())
    }

    /// Returns the number of the epoch's steps whose loss is known.
    pub(super) fn known(&self) -> u64 {
        self.known
    }

    #[cfg(feature = "cuda")]
    fn arrived(&mut self) -> Vec<f64> {
        let mut arrived = Vec::new();
        if let Some(Pending { log, first, end }) = &self.pending {
            while self.known < *end
                && let Some(loss) = log.read((self.known - *first) as usize)
            {
                arrived.push(loss.into());
                self.known += 1;
            }
        }
        arrived
    }
}
