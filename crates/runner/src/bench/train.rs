//! One training step on prepared views: forward pass, InvaSpread's loss, backward pass, SGD.

use super::{BenchReport, Compute, Figures, Times, failed};
use crate::config::built_in_method;
use crate::engine::{EngineError, Learner};
use crate::methods::{RunFacts, Step};
use candle_core::Tensor;
use invaspread_losses::KeySide;
use invaspread_models::{Network, NetworkConfig, ResNetConfig};
use invaspread_random::{Purpose, Stream};
use invaspread_tensor::{Algorithm, OptimizerConfig, SgdConfig};
use serde::Serialize;

/// The sizes of the step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TrainBench {
    /// The number of images; twice as many views pass through the network.
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

/// The number of times that all steps are timed on a GPU.
const GPU_REPEATS: usize = 5;
/// The learning rate. It has no influence on the time.
pub(super) const RATE: f64 = 0.003;

/// The side of the images.
pub(super) const SIDE: usize = 32;

/// Returns the paper's network of this size, its method and its optimizer, for `images` images.
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
        weight_decay,
        device: bench.compute.device,
        key_side: KeySide::Detached,
    };
    let device = bench.compute.device.open().map_err(failed)?;
    let method = built_in_method().build(facts).map_err(failed)?;
    let optimizer = OptimizerConfig::Sgd(SgdConfig { momentum: 0.9, weight_decay });
    Learner::new(Network::on(&device, network, 0).map_err(failed)?, optimizer, RATE, method).map_err(failed)
}

/// Times the step.
///
/// # Errors
/// Returns an error if the network cannot be built or a step fails.
pub fn train(bench: TrainBench) -> Result<BenchReport, EngineError> {
    let views = 2 * bench.batch;
    let mut learner = learner(bench, bench.batch)?;
    let mut stream = Stream::new(0, Purpose::Synthetic, 0, 0);
    let pixels: Vec<f32> = (0..views * SIDE * SIDE * 3).map(|_| stream.normal() as f32).collect();
    let index: Vec<u32> = (0..bench.batch as u32).collect();
    let device = learner.network.device().clone();
    let x = Tensor::from_vec(pixels, (views, SIDE, SIDE, 3), &device).map_err(failed)?;
    let mut step = 0;
    let mut take = || {
        let at = Step { epoch: 1, step, index: &index };
        step += 1;
        learner.step(std::slice::from_ref(&x), &at, RATE).map_err(failed)
    };
    let times = if device.is_cpu() {
        Times::of(bench.warmup, bench.steps, || take().map(drop))?
    } else {
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
        Times(seconds.into_iter().map(|seconds| seconds / bench.steps as f64).collect())
    };
    // The forward pass, the gradient of the input and the gradient of the weights cost one forward pass each.
    // The count includes the input gradient of the stem, which is not computed: 0.1 % of a step at width 64,
    // 0.4 % at width 16.
    let operations = 3.0 * 2.0 * learner.network.multiply_adds(SIDE) as f64 * views as f64;
    Ok(Figures::default()
        .times("ms_per_step", &times, 1e3)
        .with("views_per_s", views as f64 / times.median())
        .memory(bench.compute)?
        .arithmetic(operations, times.median(), bench.compute)?
        .report("train", &bench))
}
