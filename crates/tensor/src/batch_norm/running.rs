//! Running mean and variance. Evaluation normalizes by them; each training batch moves them a little towards
//! its own statistics.

use super::{BatchNormConfig, Statistics, batch_norm_with};
use candle_core::{DType, Device, Result, Tensor, bail};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

/// Weight of a batch's statistics in each update of the running ones (PyTorch's `momentum`).
pub(crate) const SHARE: f64 = 0.1;

/// The running statistics of one batch norm. They live where its parameters are: on the host, or on the
/// device, whose kernels then update them.
///
/// ```
/// use candle_core::{DType, Device};
/// use invaspread_tensor::RunningStatistics;
///
/// let running = RunningStatistics::new(2, DType::F32, &Device::Cpu)?;
/// let [mean, variance] = running.tensors()?;
/// assert_eq!((mean.to_vec1::<f32>()?, variance.to_vec1::<f32>()?), (vec![0.0; 2], vec![1.0; 2]));
/// assert_eq!(running.batches(), 0);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug)]
pub struct RunningStatistics {
    numbers: Numbers,
    dtype: DType,
    /// Shared with recorded steps, which count a batch whenever they run.
    batches: Arc<AtomicI64>,
}

#[derive(Debug)]
enum Numbers {
    Host(Statistics),
    /// Mean and variance, (C) each, f32.
    #[cfg(feature = "cuda")]
    OnDevice([Tensor; 2]),
}

impl RunningStatistics {
    /// Makes running statistics with mean 0 and variance 1 for `channels` channels, in the data type of the
    /// parameters.
    ///
    /// # Errors
    /// If the memory cannot be allocated.
    pub fn new(channels: usize, dtype: DType, device: &Device) -> Result<Self> {
        let numbers = match device {
            #[cfg(feature = "cuda")]
            Device::Cuda(_) => Numbers::OnDevice([
                Tensor::from_vec(vec![0.0f32; channels], channels, device)?,
                Tensor::from_vec(vec![1.0f32; channels], channels, device)?,
            ]),
            Device::Cpu => {
                Numbers::Host(Statistics { mean: vec![0.0; channels], variance: vec![1.0; channels] })
            }
            other => bail!("batch_norm: running statistics cannot be on {other:?}"),
        };
        Ok(Self { numbers, dtype, batches: Arc::default() })
    }

    /// Returns the number of batches that updated the statistics.
    pub fn batches(&self) -> i64 {
        self.batches.load(Relaxed)
    }

    /// Returns the mean and the variance, (C) each, on the CPU, in the data type of the parameters.
    ///
    /// # Errors
    /// If they cannot be copied from the device.
    pub fn tensors(&self) -> Result<[Tensor; 2]> {
        let [mean, variance] = match &self.numbers {
            Numbers::Host(statistics) => [&statistics.mean, &statistics.variance]
                .map(|values| Tensor::new(values.as_slice(), &Device::Cpu)),
            #[cfg(feature = "cuda")]
            Numbers::OnDevice(numbers) => numbers.each_ref().map(|numbers| numbers.to_device(&Device::Cpu)),
        };
        Ok([mean?.to_dtype(self.dtype)?, variance?.to_dtype(self.dtype)?])
    }

    /// Replaces the mean and the variance by tensors of (C) values each, and the number of batches.
    ///
    /// # Errors
    /// If they are not float tensors of the right length.
    pub fn set(&mut self, [mean, variance]: [&Tensor; 2], batches: i64) -> Result<()> {
        let [mean, variance] = [mean.flatten_all()?, variance.flatten_all()?];
        let channels = match &self.numbers {
            Numbers::Host(statistics) => statistics.mean.len(),
            #[cfg(feature = "cuda")]
            Numbers::OnDevice([mean, _]) => mean.elem_count(),
        };
        if mean.elem_count() != channels || variance.elem_count() != channels {
            bail!(
                "batch_norm: running statistics {:?} and {:?} for {channels} channels",
                mean.shape(),
                variance.shape()
            )
        }
        match &mut self.numbers {
            Numbers::Host(statistics) => {
                let values = |tensor: &Tensor| tensor.to_dtype(DType::F64)?.to_vec1::<f64>();
                *statistics = Statistics { mean: values(&mean)?, variance: values(&variance)? };
            }
            #[cfg(feature = "cuda")]
            Numbers::OnDevice(numbers) => {
                // In their places, which recorded steps know.
                for (place, tensor) in numbers.iter().zip([&mean, &variance]) {
                    let single = tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
                    place.slice_set(&single.to_device(place.device())?, 0, 0)?;
                }
            }
        }
        self.batches.store(batches, Relaxed);
        Ok(())
    }

    /// Runs the batch norm in evaluation mode, by [`batch_norm_with`].
    ///
    /// # Errors
    /// Returns the errors of [`batch_norm_with`].
    pub fn normalize(
        &self,
        x: &Tensor,
        [gamma, beta]: [&Tensor; 2],
        residual: Option<&Tensor>,
        config: BatchNormConfig,
    ) -> Result<Tensor> {
        match &self.numbers {
            Numbers::Host(statistics) => batch_norm_with(x, gamma, beta, residual, statistics, config),
            #[cfg(feature = "cuda")]
            Numbers::OnDevice(numbers) => {
                super::check(x, gamma, beta, residual)?;
                crate::cuda::normalize_by(x, [gamma, beta], residual, numbers.each_ref(), config)
            }
        }
    }

    /// Counts a batch of `rows` values for each channel. On the host, moves the statistics towards the
    /// batch's; the running variance is the unbiased one.
    pub(crate) fn track(&mut self, batch: Option<&Statistics>, rows: usize) {
        #[cfg(feature = "cuda")]
        if matches!(self.numbers, Numbers::OnDevice(_)) {
            return crate::cuda::count_run(&self.batches);
        }
        self.batches.fetch_add(1, Relaxed);
        let (Some(batch), Numbers::Host(statistics)) = (batch, &mut self.numbers) else { return };
        let unbiased = rows as f64 / (rows as f64 - 1.0).max(1.0);
        // The values have the precision that a checkpoint stores; otherwise a resumed run would differ from
        // one that never stopped.
        let single = self.dtype == DType::F32;
        let round = |x: f64| if single { f64::from(x as f32) } else { x };
        for (old, new) in statistics.mean.iter_mut().zip(&batch.mean) {
            *old = round((1.0 - SHARE) * *old + SHARE * new);
        }
        for (old, new) in statistics.variance.iter_mut().zip(&batch.variance) {
            *old = round((1.0 - SHARE) * *old + SHARE * new * unbiased);
        }
    }

    /// Returns the mean and the variance on the device, for the kernel that moves them.
    #[cfg(feature = "cuda")]
    pub(crate) fn on_device(&self) -> Result<[&Tensor; 2]> {
        match &self.numbers {
            Numbers::OnDevice(numbers) => Ok(numbers.each_ref()),
            Numbers::Host(_) => bail!("batch_norm: the input is on CUDA, its running statistics on the host"),
        }
    }
}
