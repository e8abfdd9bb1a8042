//! The device and the precision that a program computes with.

#[cfg(feature = "cuda")]
use candle_core::DType;
use candle_core::{Device, Result, Tensor, bail};

/// A device of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceKind {
    /// The processor.
    #[default]
    Cpu,
    /// The first NVIDIA GPU.
    Cuda,
}

impl DeviceKind {
    /// Returns the GPU if this program can use one here; otherwise the CPU and the reason.
    pub fn best() -> (Self, Option<String>) {
        match Self::Cuda.why_not() {
            None => (Self::Cuda, None),
            Some(why) => (Self::Cpu, Some(why)),
        }
    }

    /// Returns why this program cannot use the device here, or `None` if it can.
    pub fn why_not(self) -> Option<String> {
        match self {
            Self::Cpu => None,
            #[cfg(feature = "cuda")]
            Self::Cuda => crate::cuda::why_not(),
            #[cfg(not(feature = "cuda"))]
            Self::Cuda => {
                Some("this program was built without CUDA; `just build-cuda` builds it with".to_owned())
            }
        }
    }

    /// Returns the name that configs and records use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        }
    }

    /// Opens the device, once for the whole program.
    ///
    /// # Errors
    /// If the device cannot be used. The message says what is missing and what to do.
    pub fn open(self) -> Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            #[cfg(feature = "cuda")]
            Self::Cuda => {
                static OPENED: std::sync::Mutex<Option<Device>> = std::sync::Mutex::new(None);
                let mut opened = OPENED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                if let Some(device) = &*opened {
                    return Ok(device.clone());
                }
                let device = crate::cuda::device(0)?;
                *opened = Some(device.clone());
                Ok(device)
            }
            #[cfg(not(feature = "cuda"))]
            Self::Cuda => bail!("{}", self.why_not().unwrap_or_default()),
        }
    }
}

/// The precision of the products in convolutions: `precision=f32|tf32|bf16`. Sums, parameters, statistics and
/// losses are f32 in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// Full f32.
    #[default]
    F32,
    /// Activations in f32, their products in TF32 (ten bits of mantissa). CUDA alone.
    Tf32,
    /// Activations and products in bf16. CUDA alone.
    Bf16,
}

/// Returns a batch of images as a network's first layer takes it: contiguous, and in the given precision.
///
/// # Errors
/// If the device does not support the precision.
pub fn activations(x: &Tensor, precision: Precision) -> Result<Tensor> {
    match (precision, x.device()) {
        (Precision::F32, _) => x.contiguous(),
        #[cfg(feature = "cuda")]
        (Precision::Tf32, Device::Cuda(_)) => x.contiguous(),
        #[cfg(feature = "cuda")]
        (Precision::Bf16, Device::Cuda(_)) if x.dtype() == DType::BF16 => x.contiguous(),
        #[cfg(feature = "cuda")]
        (Precision::Bf16, Device::Cuda(_)) => {
            let channels = x.dim(candle_core::D::Minus1)?;
            crate::cuda::cast_channels(x, DType::BF16, channels.next_multiple_of(8))
        }
        (precision, device) => {
            bail!("precision {precision:?} is for device=cuda; the images are on {device:?}")
        }
    }
}
