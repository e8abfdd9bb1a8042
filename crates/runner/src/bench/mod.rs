//! How fast this build is on this machine, one file a workload: what `invaspread bench` runs and `benches/compare.py` sets beside PyTorch.
//!
//! The workloads are the project's own paths (the engine's step, its embedding loop, its loader, the search of the metrics) on
//! generated numbers, so nothing has to be downloaded. Times are wall-clock; each is taken several times after a warm-up and the
//! median is what counts.
//!
//! `gflops` counts the additions and multiplications of the plain computation (two for each product of a convolution, none saved
//! by Winograd, nothing for norms, transforms and selection), in billions a second. `share_of_peak` sets that beside what the
//! vector units do on registers alone ([`invaspread_tensor::peak_gflops`]); Winograd can take it above what a direct sum reaches.
//! The peak is measured in the moment after the work: on a machine that others are using just then it comes out too
//! low and the share too high, so `benches/compare.py` takes the best peak of all its runs.

mod augment;
mod epoch;
mod evaluate;
mod kmeans;
mod knn;
mod noise;
mod train;

pub use augment::{AugmentBench, augment};
pub use epoch::{EpochBench, epoch};
pub use evaluate::{EvaluateBench, evaluate};
pub use kmeans::{KMeansBench, kmeans};
pub use knn::{KnnBench, knn};
pub use train::{TrainBench, train};

use crate::engine::EngineError;
use crate::machine::{self, peak_memory_bytes};
use invaspread_tensor::{DeviceKind, Precision};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use std::time::Instant;

/// Where a workload runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Compute {
    /// The device.
    #[serde(serialize_with = "device_name")]
    pub device: DeviceKind,
    /// What convolutions multiply in.
    #[serde(serialize_with = "precision_name")]
    pub precision: Precision,
}

impl Default for Compute {
    fn default() -> Self {
        Self { device: DeviceKind::Cpu, precision: Precision::F32 }
    }
}

impl Compute {
    #[cfg(feature = "cuda")]
    fn peak_gflops(self) -> Result<f64, EngineError> {
        match self.device {
            DeviceKind::Cpu => Ok(invaspread_tensor::peak_gflops()),
            DeviceKind::Cuda => {
                let device = self.device.open().map_err(failed)?;
                invaspread_tensor::cuda::peak_gflops(&device, self.precision).map_err(failed)
            }
        }
    }

    #[cfg(feature = "cuda")]
    fn peak_memory(self) -> Result<Option<u64>, EngineError> {
        match self.device {
            DeviceKind::Cpu => Ok(peak_memory_bytes()),
            DeviceKind::Cuda => {
                let device = self.device.open().map_err(failed)?;
                invaspread_tensor::cuda::peak_memory(&device).map(Some).map_err(failed)
            }
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[expect(
        clippy::unnecessary_wraps,
        clippy::unused_self,
        reason = "a device can fail, and this build has none"
    )]
    fn peak_gflops(self) -> Result<f64, EngineError> {
        Ok(invaspread_tensor::peak_gflops())
    }

    #[cfg(not(feature = "cuda"))]
    #[expect(
        clippy::unnecessary_wraps,
        clippy::unused_self,
        reason = "a device can fail, and this build has none"
    )]
    fn peak_memory(self) -> Result<Option<u64>, EngineError> {
        Ok(peak_memory_bytes())
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn device_name<S: Serializer>(device: &DeviceKind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(device.name())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn precision_name<S: Serializer>(precision: &Precision, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(match precision {
        Precision::F32 => "f32",
        Precision::Tf32 => "tf32",
        Precision::Bf16 => "bf16",
    })
}

/// What was measured, and on what.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BenchReport {
    /// The workload.
    pub what: &'static str,
    /// Its sizes.
    #[serde(flatten)]
    pub settings: Map<String, Value>,
    /// What came out: times, rates, memory, each with its unit in its name.
    #[serde(flatten)]
    pub figures: Map<String, Value>,
    /// The program's name and version.
    pub version: String,
    /// The processor's model name.
    pub cpu: String,
    /// Threads of the pool.
    pub threads: usize,
    /// The vector instructions the kernels of the CPU run with.
    pub instruction_set: String,
    /// The GPU it ran on, if it did.
    pub gpu: Option<String>,
}

/// Wall-clock seconds of each repetition.
struct Times(Vec<f64>);

impl Times {
    /// Runs `work` `warmup` times, then `repeats` times against the clock.
    fn of<E>(warmup: usize, repeats: usize, mut work: impl FnMut() -> Result<(), E>) -> Result<Self, E> {
        for _ in 0..warmup {
            work()?;
        }
        let mut seconds = Vec::with_capacity(repeats);
        for _ in 0..repeats {
            let from = Instant::now();
            work()?;
            seconds.push(from.elapsed().as_secs_f64());
        }
        seconds.sort_by(f64::total_cmp);
        Ok(Self(seconds))
    }

    fn median(&self) -> f64 {
        let Self(seconds) = self;
        let middle = seconds.len() / 2;
        if seconds.len().is_multiple_of(2) {
            f64::midpoint(seconds[middle - 1], seconds[middle])
        } else {
            seconds[middle]
        }
    }

    fn least(&self) -> f64 {
        self.0[0]
    }

    fn most(&self) -> f64 {
        self.0[self.0.len() - 1]
    }
}

/// Figures by name.
#[derive(Default)]
struct Figures(Map<String, Value>);

impl Figures {
    fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    /// Median, least and most seconds, scaled by `unit` and named `name`, `name_min`, `name_max`.
    fn times(self, name: &str, times: &Times, unit: f64) -> Self {
        self.with(name, times.median() * unit)
            .with(&format!("{name}_min"), times.least() * unit)
            .with(&format!("{name}_max"), times.most() * unit)
    }

    /// Rate and share of the machine's (or device's) peak of `operations` in `seconds`.
    fn arithmetic(self, operations: f64, seconds: f64, compute: Compute) -> Result<Self, EngineError> {
        // The peak is measured after the work, or its threads would still be warm and its memory counted.
        let (rate, peak) = (operations / seconds / 1e9, compute.peak_gflops()?);
        Ok(self.with("gflops", rate).with("machine_peak_gflops", peak).with("share_of_peak", rate / peak))
    }

    /// The most memory the process has held so far: on a GPU, of the device's; otherwise, of the machine's.
    fn memory(self, compute: Compute) -> Result<Self, EngineError> {
        let mib = compute.peak_memory()?.map(|bytes| bytes as f64 / f64::from(1 << 20));
        Ok(self.with("peak_mib", mib))
    }

    fn report(self, what: &'static str, settings: &impl Serialize) -> BenchReport {
        let environment = machine::environment("cpu");
        let settings = match serde_json::to_value(settings) {
            Ok(Value::Object(settings)) => settings,
            other => unreachable!("settings are plain structs of numbers, not {other:?}"),
        };
        let gpu = (settings.get("device") == Some(&Value::from("cuda"))).then(gpu_name).flatten();
        BenchReport {
            what,
            settings,
            figures: self.0,
            version: environment.version,
            cpu: environment.cpu,
            threads: environment.threads,
            instruction_set: format!("{:?}", invaspread_tensor::instruction_set()),
            gpu,
        }
    }
}

/// The GPU's name.
#[cfg(feature = "cuda")]
fn gpu_name() -> Option<String> {
    let device = DeviceKind::Cuda.open().ok()?;
    invaspread_tensor::cuda::facts(&device).ok().map(|facts| facts.name)
}

#[cfg(not(feature = "cuda"))]
fn gpu_name() -> Option<String> {
    None
}

/// A workload that could not be run.
fn failed(source: candle_core::Error) -> EngineError {
    EngineError::tensor("run the benchmark")(source)
}
