//! One training step on prepared views: forward pass, the method's loss, backward pass, SGD, and what the method
//! does after it, such as the update of a momentum encoder. Heads, queues and teachers have the sizes of the
//! method's recipe, memory banks those of CIFAR-10. The step is one of the second epoch, because in the first some
//! layers are kept as they are.

use super::{BenchReport, Compute, Figures, Times, failed};
#[cfg(feature = "cuda")]
use crate::engine::RepeatedSteps;
use crate::engine::{EngineError, Learner};
use crate::methods::{ChosenMethod, Registry, RunFacts, Step};
use candle_core::{Error, Tensor, bail};
use invaspread_losses::KeySide;
use invaspread_models::{Network, NetworkConfig, ResNetConfig};
use invaspread_random::{Purpose, Stream};
#[cfg(feature = "cuda")]
use invaspread_tensor::cuda::{HostLog, StepCounter, Switches};
use invaspread_tensor::{Algorithm, OptimizerConfig, SgdConfig};
use serde::Serialize;

/// The sizes of the step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TrainBench {
    /// The name of a method of the registry.
    pub method: &'static str,
    /// The number of images in the batch; most methods pass two views of each through the network.
    pub batch: usize,
    /// The channels of the first stage.
    pub width: usize,
    /// The number of layers: 18, 34 or 50.
    pub depth: usize,
    /// The number of timed steps.
    pub steps: usize,
    /// The number of steps that warm up, before the timed ones.
    pub warmup: usize,
    /// Whether 3x3 convolutions may use Winograd on the CPU.
    pub winograd: bool,
    /// The device and the precision.
    #[serde(flatten)]
    pub compute: Compute,
}

impl TrainBench {
    /// InvaSpread's name.
    pub const PAPERS_METHOD: &'static str = "invaspread";

    /// Returns the paper's method and network, with one image a batch and no step.
    pub(super) fn of_paper(compute: Compute) -> Self {
        let method = Self::PAPERS_METHOD;
        Self { method, batch: 1, width: 64, depth: 18, steps: 0, warmup: 0, winograd: true, compute }
    }

    /// Returns the method with the settings of its recipe.
    fn method(&self) -> candle_core::Result<&'static ChosenMethod> {
        let unknown = || Error::Msg(format!("there is no method {}", self.method));
        let entry = Registry::installed().entry(self.method).ok_or_else(unknown)?;
        Ok(entry.default_method())
    }
}

/// The number of times that all steps are timed on a GPU.
const GPU_REPEATS: usize = 5;
/// The learning rate. It has no influence on the time.
pub(super) const RATE: f64 = 0.003;

/// The images of CIFAR-10, of which a memory bank has a row each.
const IMAGES: usize = 50_000;
/// The epoch of the timed steps, and the epochs of the run that they belong to.
const EPOCH: u64 = 2;

/// The side of the images.
pub(super) const SIDE: usize = 32;

/// Returns the paper's network of this size, the method and the paper's optimizer, for `images` images.
pub(super) fn learner(bench: TrainBench, images: usize) -> Result<Learner, EngineError> {
    let network = ResNetConfig {
        depth: bench.depth,
        width: bench.width,
        algorithm: if bench.winograd { Algorithm::Fastest } else { Algorithm::Direct },
        precision: bench.compute.precision,
        ..ResNetConfig::default()
    };
    let weight_decay = 5e-4;
    let facts = RunFacts {
        images,
        dim: network.embedding,
        pooled: NetworkConfig::from(network.clone()).pooled(),
        seed: 0,
        epochs: EPOCH,
        batch_size: bench.batch,
        weight_decay,
        device: bench.compute.device,
        key_side: KeySide::Detached,
    };
    let device = bench.compute.device.open().map_err(failed)?;
    let method = bench.method().map_err(failed)?.build(facts).map_err(failed)?;
    let optimizer = OptimizerConfig::Sgd(SgdConfig { momentum: 0.9, weight_decay });
    Learner::new(Network::on(&device, network, 0).map_err(failed)?, optimizer, RATE, method).map_err(failed)
}

/// Times the step.
///
/// # Errors
/// Returns an error if the network cannot be built or a step fails.
pub fn train(bench: TrainBench) -> Result<BenchReport, EngineError> {
    let mut learner = learner(bench, bench.batch.max(IMAGES))?;
    let views = bench.method().map_err(failed)?.views() * bench.batch;
    // Some methods need the features of a whole data set here, of which this workload has none.
    let mut features = |_| bail!("{}: expected a method whose step needs its batch alone", bench.method);
    learner.method.begin_epoch(EPOCH, &mut features).map_err(failed)?;
    let mut stream = Stream::new(0, Purpose::Synthetic, 0, 0);
    let pixels: Vec<f32> = (0..views * SIDE * SIDE * 3).map(|_| stream.normal() as f32).collect();
    let index: Vec<u32> = (0..bench.batch as u32).collect();
    let device = learner.network.device().clone();
    let x = Tensor::from_vec(pixels, (views, SIDE, SIDE, 3), &device).map_err(failed)?;
    #[cfg(feature = "cuda")]
    let time = if device.is_cuda() && Switches::taken().map_err(failed)?.step_as_graph {
        repeated
    } else {
        launched
    };
    #[cfg(not(feature = "cuda"))]
    let time = launched;
    let times = time(bench, &mut learner, &x, &index)?;
    let figures = Figures::default()
        .times("ms_per_step", &times, 1e3)
        .with("views_per_s", views as f64 / times.median())
        .memory(bench.compute)?;
    // What heads and teachers compute is not counted.
    if bench.method != TrainBench::PAPERS_METHOD {
        return Ok(figures.switches(bench.compute)?.report("train", &bench));
    }
    // The forward pass, the gradient of the input and the gradient of the weights cost one forward pass each.
    // The count includes the input gradient of the stem, which is not computed: 0.1 % of a step at width 64,
    // 0.4 % at width 16.
    let operations = 3.0 * 2.0 * learner.network.multiply_adds(SIDE) as f64 * views as f64;
    Ok(figures
        .arithmetic(operations, times.median(), bench.compute)?
        .switches(bench.compute)?
        .report("train", &bench))
}

/// Times steps whose operations are launched one by one.
fn launched(
    bench: TrainBench,
    learner: &mut Learner,
    x: &Tensor,
    index: &[u32],
) -> Result<Times, EngineError> {
    let mut step = 0;
    let mut take = || {
        let at = Step { epoch: EPOCH, step, index };
        step += 1;
        learner.step(std::slice::from_ref(x), &at, RATE).map_err(failed)
    };
    if x.device().is_cpu() {
        return Times::of(bench.warmup, bench.steps, || take().map(drop));
    }
    // Nothing waits for a step on a GPU, so all steps are timed together, until the last loss is known.
    for _ in 0..bench.warmup {
        take()?.number().map_err(failed)?;
    }
    let mut steps = || -> Result<(), EngineError> {
        for _ in 1..bench.steps {
            take()?;
        }
        take()?.number().map(drop).map_err(failed)
    };
    let Times(seconds) = Times::of(1, GPU_REPEATS, &mut steps)?;
    Ok(Times(seconds.into_iter().map(|seconds| seconds / bench.steps as f64).collect()))
}

/// Times steps that are one CUDA graph each.
#[cfg(feature = "cuda")]
fn repeated(
    bench: TrainBench,
    learner: &mut Learner,
    x: &Tensor,
    index: &[u32],
) -> Result<Times, EngineError> {
    let most = bench.steps.max(bench.warmup).max(RepeatedSteps::FIRST_STEPS);
    let device = x.device();
    let mut steps = RepeatedSteps::new(device, most as u64).map_err(failed)?;
    let log = HostLog::new(device, most).map_err(failed)?;
    let views = |_: &StepCounter| Ok(vec![x.clone()]);
    let mut take = |count: usize| -> candle_core::Result<()> {
        steps.begin(&vec![RATE; count])?;
        for _ in 0..count {
            steps.step(learner, index, &views, &log)?;
        }
        log.wait()
    };
    take(bench.warmup.max(RepeatedSteps::FIRST_STEPS)).map_err(failed)?;
    let Times(seconds) = Times::of(1, GPU_REPEATS, || take(bench.steps).map_err(failed))?;
    // Else something else was measured than what is said.
    if let Some(said) = steps.said() {
        return Err(failed(candle_core::Error::Msg(said)));
    }
    Ok(Times(seconds.into_iter().map(|seconds| seconds / bench.steps as f64).collect()))
}

#[cfg(all(test, feature = "cuda"))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{Compute, GPU_REPEATS, RepeatedSteps, TrainBench, learner, repeated};
    use candle_core::{DType, Tensor};
    use invaspread_tensor::cuda::testing::{Counts, device_or_skip};
    use invaspread_tensor::{DeviceKind, Precision};

    /// Skipped where the device is not the emulated one. No other test of this program uses the device: what
    /// it launched meanwhile would be recorded.
    #[test]
    fn what_is_timed_as_a_graph_is_launched_as_one() {
        let (Some(device), Some(before)) = (device_or_skip(), Counts::now()) else { return };
        let compute = Compute { device: DeviceKind::Cuda(0), precision: Precision::Bf16, peak_side: 128 };
        let bench = TrainBench {
            batch: 2,
            width: 8,
            depth: 18,
            steps: 2,
            warmup: 0,
            winograd: false,
            ..TrainBench::of_paper(compute)
        };
        let mut learner = learner(bench, bench.batch).unwrap();
        let x = Tensor::ones((4, 32, 32, 3), DType::F32, &device).unwrap();
        let times = repeated(bench, &mut learner, &x, &[0, 1]).unwrap();
        assert_eq!(times.0.len(), GPU_REPEATS);
        let launched = Counts::now().unwrap().since(before);
        // Two steps before the clock warm up; one more round is not timed.
        assert_eq!(launched.graph_launches as usize, (1 + GPU_REPEATS) * bench.steps, "{launched:?}");
        assert_eq!(RepeatedSteps::FIRST_STEPS, 2);
    }
}
