//! The workloads of `invaspread bench`, one file each, which `benches/compare.py` compares with PyTorch.
//!
//! The workloads run the project's own code (the engine's step, its embedding loop, its loader, the search of
//! the metrics) on generated numbers, so nothing has to be downloaded. Times are wall-clock; each is measured
//! several times after a warm-up, and the median counts.
//!
//! `gflops` counts the additions and multiplications of the plain computation, in billions per second: two
//! for each product of a convolution, also of those that Winograd saves, and none for norms, transforms and
//! selection. `share_of_peak` divides by the rate that the vector units reach on registers alone
//! ([`invaspread_tensor::peak_gflops`]); with Winograd the share can be above 1. The peak is measured right
//! after the work. If other programs use the machine at that moment, the peak is too low and the share too
//! high, so `benches/compare.py` takes the best peak of all its runs. The peak of a GPU is the rate of cuBLAS
//! for a product of matrices with [`PEAK_SIDE`] rows and columns, or the number in [`Compute::peak_side`].

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
use std::fmt::Display;
use std::time::Instant;

/// Rows and columns of matrices that are large enough for every card's fastest kernel.
pub const PEAK_SIDE: usize = 8192;

/// The device and the precision of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Compute {
    /// The device.
    #[serde(serialize_with = "written")]
    pub device: DeviceKind,
    /// The precision in which convolutions multiply.
    #[serde(serialize_with = "written")]
    pub precision: Precision,
    /// Rows and columns of the matrices whose product measures the peak rate of a GPU. A report has it beside
    /// the peak.
    #[serde(skip)]
    pub peak_side: usize,
}

impl Default for Compute {
    fn default() -> Self {
        Self { device: DeviceKind::Cpu, precision: Precision::F32, peak_side: PEAK_SIDE }
    }
}

impl Compute {
    #[cfg(feature = "cuda")]
    fn peak_gflops(self) -> Result<f64, EngineError> {
        if !self.device.is_cuda() {
            return Ok(invaspread_tensor::peak_gflops());
        }
        let device = self.device.open().map_err(failed)?;
        invaspread_tensor::cuda::peak_gflops(&device, self.precision, self.peak_side).map_err(failed)
    }

    /// Returns the most memory held so far; on a GPU, without and with the memory of cuDNN's search for
    /// algorithms.
    #[cfg(feature = "cuda")]
    fn peak_memory(self) -> Result<[Option<u64>; 2], EngineError> {
        if !self.device.is_cuda() {
            return Ok([peak_memory_bytes(), None]);
        }
        let device = self.device.open().map_err(failed)?;
        let peak = invaspread_tensor::cuda::peak_memory(&device).map_err(failed)?;
        Ok([peak.outside_search, peak.with_search].map(Some))
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
    fn peak_memory(self) -> Result<[Option<u64>; 2], EngineError> {
        Ok([peak_memory_bytes(), None])
    }
}

/// Writes a value by its name, as in a config.
fn written<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// The results of a workload, with the machine that they were measured on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BenchReport {
    /// The workload.
    pub what: &'static str,
    /// The workload's sizes.
    #[serde(flatten)]
    pub settings: Map<String, Value>,
    /// The results: times, rates and memory, each with its unit in its name.
    #[serde(flatten)]
    pub figures: Map<String, Value>,
    /// The program's name and version.
    pub version: String,
    /// The processor's model name.
    pub cpu: String,
    /// The number of threads in the pool.
    pub threads: usize,
    /// The vector instructions that the CPU's kernels use.
    pub instruction_set: String,
    /// The GPU, if the workload ran on one.
    pub gpu: Option<String>,
}

/// The wall-clock seconds of each repetition, in rising order.
struct Times(Vec<f64>);

impl Times {
    /// Runs `work` `warmup` times, then `repeats` times with the time of each.
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

    /// Adds the median, the least and the most seconds, times `unit`, as `name`, `name_min` and `name_max`.
    fn times(self, name: &str, times: &Times, unit: f64) -> Self {
        self.with(name, times.median() * unit)
            .with(&format!("{name}_min"), times.least() * unit)
            .with(&format!("{name}_max"), times.most() * unit)
    }

    /// Adds the rate of `operations` in `seconds`, and its share of the peak of the machine (or the GPU).
    fn arithmetic(self, operations: f64, seconds: f64, compute: Compute) -> Result<Self, EngineError> {
        // The peak is measured after the work: before the work, it would warm up the threads and add to the
        // memory.
        let (rate, peak) = (operations / seconds / 1e9, compute.peak_gflops()?);
        let report =
            self.with("gflops", rate).with("machine_peak_gflops", peak).with("share_of_peak", rate / peak);
        Ok(if compute.device.is_cuda() { report.with("peak_side", compute.peak_side) } else { report })
    }

    /// Adds the most memory that the process has held so far, on the GPU or else on the machine.
    fn memory(self, compute: Compute) -> Result<Self, EngineError> {
        let [held, with_search] =
            compute.peak_memory()?.map(|bytes| bytes.map(|bytes| bytes as f64 / f64::from(1 << 20)));
        let report = self.with("peak_mib", held);
        Ok(match with_search {
            Some(mib) => report.with("peak_mib_with_search", mib),
            None => report,
        })
    }

    /// Adds the ways that a GPU took where there are several.
    #[cfg(feature = "cuda")]
    fn switches(self, compute: Compute) -> Result<Self, EngineError> {
        if !compute.device.is_cuda() {
            return Ok(self);
        }
        let switches = invaspread_tensor::cuda::Switches::taken().map_err(failed)?;
        Ok(self.with("switches", switches.to_string()))
    }

    #[cfg(not(feature = "cuda"))]
    #[expect(clippy::unnecessary_wraps, reason = "an environment can name a switch that is not known")]
    fn switches(self, _: Compute) -> Result<Self, EngineError> {
        Ok(self)
    }

    fn report(self, what: &'static str, settings: &impl Serialize) -> BenchReport {
        let environment = machine::environment(DeviceKind::Cpu);
        let settings = match serde_json::to_value(settings) {
            Ok(Value::Object(settings)) => settings,
            other => unreachable!("settings are plain structs of numbers, not {other:?}"),
        };
        let device = settings.get("device").and_then(Value::as_str).and_then(|name| name.parse().ok());
        let gpu = device.and_then(machine::gpu_name);
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

/// Returns the error of a workload that failed.
fn failed(source: candle_core::Error) -> EngineError {
    EngineError::tensor("run the benchmark")(source)
}
