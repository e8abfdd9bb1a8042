//! The device and the precision that a program computes with.

use crate::storage::{converted, with};
use candle_core::{DType, Device, Result, Tensor, bail};
use half::bf16;

/// The device to compute on: `device=auto|cpu|cuda|cuda:N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DeviceKind {
    /// The first NVIDIA GPU if this program can use one here; otherwise the processor.
    Auto,
    /// The processor.
    #[default]
    Cpu,
    /// The NVIDIA GPU with this number, counted from 0 in the driver's order (`CUDA_VISIBLE_DEVICES` can hide
    /// some GPUs).
    Cuda(usize),
}

impl DeviceKind {
    /// Returns the first GPU if this program can use one here; otherwise the CPU and the reason.
    pub fn best() -> (Self, Option<String>) {
        match Self::Cuda(0).why_not() {
            None => (Self::Cuda(0), None),
            Some(why) => (Self::Cpu, Some(why)),
        }
    }

    /// Returns the device; `auto` becomes the best device of this machine.
    #[must_use]
    pub fn resolve(self) -> Self {
        if self == Self::Auto { Self::best().0 } else { self }
    }

    /// Returns the number of GPUs that this program can use here.
    pub fn gpus() -> usize {
        #[cfg(feature = "cuda")]
        if crate::cuda::why_not().is_none() {
            return crate::cuda::device_count().unwrap_or(0);
        }
        0
    }

    /// Returns why this program cannot use the device here, or `None` if it can.
    pub fn why_not(self) -> Option<String> {
        match self {
            Self::Auto | Self::Cpu => None,
            #[cfg(feature = "cuda")]
            Self::Cuda(index) => crate::cuda::why_not().or_else(|| match Self::gpus() {
                gpus if index < gpus => None,
                0 => Some("cuda: the driver finds no GPU".to_owned()),
                1 => Some(format!("cuda: there is no {self}: there is 1 GPU, cuda:0")),
                gpus => Some(format!(
                    "cuda: there is no {self}: there are {gpus} GPUs, cuda:0 to cuda:{}",
                    gpus - 1
                )),
            }),
            #[cfg(not(feature = "cuda"))]
            Self::Cuda(_) => {
                Some("this program was built without CUDA; `just build-cuda` builds it with".to_owned())
            }
        }
    }

    /// Returns whether the device is a GPU; of `auto`, whether the best device of this machine is one.
    pub fn is_cuda(self) -> bool {
        matches!(self.resolve(), Self::Cuda(_))
    }

    /// Returns the kind of the device, which records and the names of runs use: "cpu" or "cuda". The GPU's
    /// number is not part of it, since the result does not depend on which of a machine's cards computes it.
    pub fn name(self) -> &'static str {
        if self.is_cuda() { "cuda" } else { "cpu" }
    }

    /// Opens the device, once for the whole program.
    ///
    /// # Errors
    /// If the device cannot be used. The message says what is missing and what to do.
    pub fn open(self) -> Result<Device> {
        match self.resolve() {
            #[cfg(feature = "cuda")]
            Self::Cuda(index) => {
                static OPENED: std::sync::Mutex<Vec<(usize, Device)>> = std::sync::Mutex::new(Vec::new());
                if let Some(why) = self.why_not() {
                    bail!("{why}")
                }
                let mut opened = OPENED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                if let Some((_, device)) = opened.iter().find(|(known, _)| *known == index) {
                    return Ok(device.clone());
                }
                let device = crate::cuda::device(index)?;
                opened.push((index, device.clone()));
                Ok(device)
            }
            #[cfg(not(feature = "cuda"))]
            Self::Cuda(_) => bail!("{}", self.why_not().unwrap_or_default()),
            _ => Ok(Device::Cpu),
        }
    }
}

/// The names of devices in the words of error messages.
const DEVICES: &str = "auto, cpu, cuda or cuda:N (GPU number N, from 0)";

impl std::str::FromStr for DeviceKind {
    type Err = String;

    /// Parses `auto`, `cpu`, `cuda` (the same as `cuda:0`) or `cuda:N`.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text.split_once(':') {
            None => match text {
                "auto" => Some(Self::Auto),
                "cpu" => Some(Self::Cpu),
                "cuda" => Some(Self::Cuda(0)),
                _ => None,
            },
            Some(("cuda", index)) if !index.starts_with('+') => index.parse().ok().map(Self::Cuda),
            Some(_) => None,
        }
        .ok_or_else(|| format!("found {text:?}, expected {DEVICES}"))
    }
}

impl std::fmt::Display for DeviceKind {
    /// Writes the device as configs have it; the first GPU is `cuda`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(0) => f.write_str("cuda"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

/// The precision of activations and of the products in convolutions: `precision=f32|tf32|bf16`. Sums,
/// parameters, statistics and losses are f32 in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    /// Full f32.
    #[default]
    F32,
    /// Activations in f32, their products in TF32 (ten bits of mantissa). Only on CUDA.
    Tf32,
    /// Activations and their gradients in bf16. Products of convolutions are of bf16 on CUDA, and on a
    /// processor that has an instruction for them; on other processors they are of f32.
    Bf16,
}

impl Precision {
    /// Returns the name that configs and records use.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
        }
    }
}

impl std::str::FromStr for Precision {
    type Err = String;

    /// Parses `f32`, `tf32` or `bf16`.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let all = [Self::F32, Self::Tf32, Self::Bf16];
        all.into_iter()
            .find(|precision| precision.name() == text)
            .ok_or_else(|| format!("found {text:?}, expected f32, tf32 or bf16"))
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
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
        (Precision::Bf16, _) if x.dtype() == DType::BF16 => x.contiguous(),
        (Precision::Bf16, Device::Cpu) => {
            let values = with::<f32, _>(&x.contiguous()?, converted::<f32, bf16>)?;
            Tensor::from_vec(values, x.shape(), x.device())
        }
        #[cfg(feature = "cuda")]
        (Precision::Bf16, Device::Cuda(_)) => {
            let channels = x.dim(candle_core::D::Minus1)?;
            crate::cuda::cast_channels(x, DType::BF16, channels.next_multiple_of(8))
        }
        (precision, device) => {
            bail!("precision {precision} is not for images on {device:?}")
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{DeviceKind, Precision};

    #[test]
    fn devices_are_read_as_they_are_written() {
        let all = [
            ("auto", DeviceKind::Auto),
            ("cpu", DeviceKind::Cpu),
            ("cuda", DeviceKind::Cuda(0)),
            ("cuda:12", DeviceKind::Cuda(12)),
        ];
        for (text, device) in all {
            assert_eq!(text.parse(), Ok(device));
            assert_eq!(device.to_string(), text);
        }
        assert_eq!("cuda:0".parse(), Ok(DeviceKind::Cuda(0)));
        for wrong in ["", "gpu", "cuda:", "cuda:-1", "cuda:+1", "cuda:x", "cpu:0", "CUDA", "cuda:0:1"] {
            let told = wrong.parse::<DeviceKind>().unwrap_err();
            assert!(told.contains("cuda:N") && told.contains(&format!("{wrong:?}")), "{told}");
        }
        assert_eq!(DeviceKind::Cuda(3).name(), "cuda");
        assert_eq!(DeviceKind::Cpu.name(), "cpu");
    }

    #[test]
    fn a_gpu_that_is_not_there_is_told_of_with_the_number_of_those_that_are() {
        let gpus = DeviceKind::gpus();
        let missing = DeviceKind::Cuda(gpus);
        let why = missing.why_not().unwrap();
        assert!(missing.open().unwrap_err().to_string().contains(&why));
        if gpus > 0 {
            assert!(why.contains(&format!("there is no {missing}")) || gpus == 1, "{why}");
            assert!(why.contains(&gpus.to_string()), "{why}");
        }
    }

    #[test]
    fn precisions_are_read_as_they_are_written() {
        for precision in [Precision::F32, Precision::Tf32, Precision::Bf16] {
            assert_eq!(precision.to_string().parse(), Ok(precision));
        }
        assert!("f16".parse::<Precision>().unwrap_err().contains("bf16"));
    }
}
